"""Importing: rows a second of a segment that is walked at the sandbox, against the same rows come by webhook.

The webhooks' rows wait in the inbox when the worker starts; the segment's are read page by page by `relay segments
import` in a process of its own, while the worker takes them apart. Both take turns on the same Redis. The clock
starts when the first delivery can be taken and stops when the last one is taken apart; then every row must have
become a sighting. The peaks are those of a small and a large segment: walking keeps one page in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import orjson

from bench import processes
from bench.flow import LONGEST_S, LOOK_EVERY_S
from bench.processes import Place, Running
from bench.results import Figure, WrongCount, expect, middle
from bench.sizes import Sizes
from pipeline import books, keys
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from sandbox.audiencelab_segments import PIXEL_ID
from sandbox.invented import visits

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "import"
#: the usual page, and about what a busy pixel sends in a quarter of an hour
ROWS = 500


@dataclass(frozen=True, slots=True)
class Round:
    """One turn: rows a second until all were taken apart, and the most that each process held, in MiB."""

    rows_per_s: float
    worker_mib: float
    importer_mib: float = 0.0


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Measure both ways in turns, and the peaks of a small segment once."""
    few, many = sizes.import_rows
    webhooks: list[Round] = []
    imported: list[Round] = []
    redis = at.client()
    try:
        with stand_in(at) as url:
            small = await by_import(at, redis, url, few)
            for _ in range(sizes.rounds):
                webhooks.append(await by_webhook(at, redis, url, many))
                imported.append(await by_import(at, redis, url, many))
    finally:
        await redis.aclose()
    return list(_figures(small, webhooks, imported, sizes.import_rows))


def _figures(
    small: Round, webhooks: list[Round], imported: list[Round], rows: tuple[int, int]
) -> Iterator[Figure]:
    yield middle(BENCH, "webhooks unpacked", [one.rows_per_s for one in webhooks], "rows/s")
    yield middle(BENCH, "segment imported", [one.rows_per_s for one in imported], "rows/s")
    pairs = zip(imported, webhooks, strict=True)
    ratios = [walked.rows_per_s / posted.rows_per_s for walked, posted in pairs]
    yield middle(BENCH, "import / webhooks", ratios, "x", at_least=0.5)
    if not small.importer_mib:  # only Linux tells
        return
    few, many = rows
    for who in ("worker", "importer"):
        peaks = [getattr(one, f"{who}_mib") for one in imported]
        first = getattr(small, f"{who}_mib")
        yield Figure(BENCH, f"{who}'s peak, segment of {few:,}", first, "MiB")
        yield middle(BENCH, f"{who}'s peak, segment of {many:,}", peaks, "MiB")
        grown = [peak / first for peak in peaks]
        # a tenth is what two runs of the same size differ by
        yield middle(BENCH, f"{who}'s peak, large / small", grown, "x", at_most=1.1)


@contextmanager
def stand_in(at: Place) -> Iterator[str]:
    """Run the sandbox; give AudienceLab's base URL."""
    with processes.python(at, "sandbox", ["sandbox", "--quiet"]) as sandbox:
        yield sandbox.first_line().split()[-1] + "/audiencelab"


def settings(url: str) -> dict[str, str]:
    """Return what makes a relay that merges who was seen and asks nobody about them."""
    return {
        "AUDIENCELAB_API_KEY": "sandbox",
        "AUDIENCELAB_BASE_URL": url,
        "AUDIENCELAB_RATE": "0",
        "ENRICH": "off",
        "SUBSCRIBE": "off",
    }


@contextmanager
def worker(at: Place, url: str) -> Iterator[Running]:
    """Run one worker as a platform does."""
    arguments = ["arq", "workers.main.WorkerSettings"]
    with processes.python(at, "worker", arguments, settings(url)) as running:
        yield running


async def by_webhook(at: Place, redis: Redis, url: str, rows: int) -> Round:
    """Preload *rows* as webhooks, and let a worker take them apart."""
    await processes.empty(redis)
    inbox = Inbox(redis)
    await inbox.start()
    deliveries = 0
    for first in range(0, rows, ROWS):
        numbers = range(first, min(first + ROWS, rows))
        body = orjson.dumps({"result": visits(numbers, PIXEL_ID)})
        now = int(time.time() * 1000)
        await inbox.put([Delivery(new_delivery_id(), "audience", body, now, "application/json")])
        deliveries += 1
    with worker(at, url) as running:
        await _until(redis, running, keys.BELLS, "unpack", 1)
        began = perf_counter()
        await _until(redis, running, keys.BOOKS, "unpack:done", deliveries)
        seconds = perf_counter() - began
        await _check(redis, rows, deliveries)
        return Round(rows / seconds, _peak_mib(running))


async def by_import(at: Place, redis: Redis, url: str, rows: int) -> Round:
    """Let `relay segments import` walk a segment of *rows*, while a worker takes the pages apart."""
    await processes.empty(redis)
    deliveries = -(-rows // ROWS)
    words = ["console.main", "segments", "import", f"segment-{rows}", "--json"]
    with worker(at, url) as running:
        await _until(redis, running, keys.BELLS, "unpack", 0)
        with processes.python(at, "importer", words, settings(url)) as importer:
            await _until(redis, running, keys.BOOKS, "unpack:in", 1)
            began, peak = perf_counter(), 0.0
            until = began + LONGEST_S
            while int(await redis.hget(keys.BOOKS, "unpack:done") or 0) < deliveries:
                running.check()
                # what has ended tells no more
                peak = max(peak, _peak_mib(importer))
                if perf_counter() > until:
                    raise WrongCount(f"not imported:\n{importer.last_words()}")
                await asyncio.sleep(LOOK_EVERY_S)
            seconds = perf_counter() - began
        await _check(redis, rows, deliveries)
        return Round(rows / seconds, _peak_mib(running), peak)


async def _until(redis: Redis, running: Running, key: str, field: str, least: int) -> None:
    until = perf_counter() + LONGEST_S
    while perf_counter() < until:
        if int(await redis.hget(key, field) or 0) >= least:
            return
        running.check()
        await asyncio.sleep(LOOK_EVERY_S)
    raise WrongCount(f"not done after {LONGEST_S:g} seconds:\n{running.last_words()}")


async def _check(redis: Redis, rows: int, deliveries: int) -> None:
    """Raise `WrongCount` unless the books say that each row is one sighting, and none is dead."""
    status = await books.snapshot(redis)
    expect("balanced", status["balanced"], True)
    expect("deliveries unpacked", status["stages"]["unpack"]["done"], deliveries)
    for name, wanted in (("in", rows), ("duplicate", 0), ("dead", 0)):
        expect(f"enrich: {name}", status["stages"]["enrich"][name], wanted)


def _peak_mib(running: Running) -> float:
    held = processes.memory_kb(running.pid)
    return held[1] / 1024 if held else 0.0

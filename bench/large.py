"""One delivery of 20 MiB and 8 000 sightings: how long the worker's loop stands still over it, and what it holds.

`python -m bench.large` is the worker, without arq: it takes apart what waits in the inbox of REDIS_URL and prints what
that came to. A pause is told in the process's own time, in whatever thread: what others of the machine compute
meanwhile is not in it.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from time import perf_counter

import orjson
import uvloop

from bench import processes
from bench.processes import Place
from bench.results import Figure, expect, middle
from bench.sizes import Sizes
from pipeline import books, wake
from pipeline.connections import worker_redis
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from pipeline.settings import Settings
from sandbox.samples import SAMPLES
from workers.app import _opened
from workers.timing import Timing
from workers.unpack import unpack

BENCH = "large"
EVENTS = 8_000
BYTES = 20 * 1024**2
TICK_S = 0.002


@dataclass(frozen=True, slots=True)
class Told:
    """What the worker prints."""

    seconds: float
    longest_pause_s: float
    more_bytes: int


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Let a fresh worker take the same body apart in each round."""
    body = large_body(EVENTS, BYTES)
    rounds = [await one_round(at, body, EVENTS) for _ in range(sizes.rounds)]
    pauses = [one.longest_pause_s * 1000 for one in rounds]
    held = [one.more_bytes / len(body) for one in rounds]
    return [
        middle(BENCH, "seconds for 8,000 sightings", [one.seconds for one in rounds], "s"),
        middle(BENCH, "the loop's longest pause", pauses, "ms", at_most=100),
        middle(BENCH, "memory on top / body", held, "x", at_most=8),
    ]


def large_body(events: int, size: int) -> bytes:
    """Return a pixel's delivery of *events* sightings of as many people, of at least *size* bytes."""
    (sample,) = (one for one in SAMPLES["pixel"] if one.name == "window")
    rows = orjson.loads(sample.body)["events"]
    filler = "x" * max(0, size // events - len(sample.body) // len(rows) + 200)
    made = []
    for number in range(events):
        row = rows[number % len(rows)]
        who = {
            "UUID": f"person-{number}",
            "PERSONAL_EMAILS": f"p{number}@example.com",
            "SKILLS": filler,
        }
        made.append(row | {"hem_sha256": f"{number:064x}", "resolution": row["resolution"] | who})
    return orjson.dumps({"events": made})


async def one_round(at: Place, body: bytes, events: int) -> Told:
    """Store *body*, let a worker of its own process take it apart, check the books, return what it told."""
    redis = at.client()
    try:
        await processes.empty(redis)
        inbox = Inbox(redis)
        await inbox.start()
        now = int(time.time() * 1000)
        delivery = Delivery(new_delivery_id(), "pixel", body, now, "application/json")
        await inbox.put_entries([[delivery]], 60.0)
        with processes.python(at, "large", ["bench.large"]) as worker:
            line = await asyncio.to_thread(worker.first_line)
        stages = (await books.snapshot(redis))["stages"]
        expect("deliveries unpacked", stages["unpack"]["done"], 1)
        expect("sightings", stages["enrich"]["in"], events)
    finally:
        await redis.aclose()
    return Told(**orjson.loads(line))


async def work() -> Told:
    """Take apart what waits."""
    settings = Settings()
    redis = wake.arq_redis(worker_redis(settings).connection_pool)
    async with _opened(settings, redis, Timing(sweep_s=3600.0)) as context:
        before, _ = memory()
        pauses = [0.0]
        watching = asyncio.create_task(watch(pauses))
        began = perf_counter()
        await unpack(context, asyncio.Event(), time.monotonic() + 3600.0)
        seconds = perf_counter() - began
        await asyncio.sleep(2 * TICK_S)
        watching.cancel()
    await redis.aclose(close_connection_pool=True)
    return Told(seconds, max(pauses), 1024 * (memory()[1] - before))


async def watch(pauses: list[float]) -> None:
    """Note how much this process computes between two turns of its loop, whenever that is more than ever."""
    while True:
        asleep = time.process_time()
        await asyncio.sleep(TICK_S)
        pauses[0] = max(pauses[0], time.process_time() - asleep - TICK_S)


def memory() -> tuple[int, int]:
    """Return the kB held now and at most; zeros without /proc."""
    return processes.memory_kb(os.getpid()) or (0, 0)


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(work())).decode(), flush=True)

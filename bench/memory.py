"""Memory: what waiting work costs Redis beside its raw size, and whether a backlog makes a worker grow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench import backlog, flow, processes
from bench.backlog import Shape
from bench.processes import Place
from bench.results import Figure, expect
from bench.sizes import Sizes
from pipeline import keys, pauses
from pipeline.outcomes import Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "memory"


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Measure Redis for the shapes in which work comes, then the worker for two backlogs."""
    redis = at.client()
    try:
        found = []
        for shape in (backlog.SINGLE, backlog.THIRTY, backlog.ALONE):
            found += await waiting(at, redis, sizes.waiting, shape)
        return found + await worker_peaks(at, redis, sizes.backlogs)
    finally:
        await redis.aclose()


async def waiting(at: Place, redis: Redis, events: int, shape: Shape) -> list[Figure]:
    """Fill the inbox, then let a worker with `forward` paused unpack it all; weigh both."""
    await processes.empty(redis)
    empty = await _used(redis)
    deliveries, size = await backlog.fill(redis, events, shape)
    used = await _used(redis) - empty
    await pauses.pause(redis, Stage.FORWARD, "weighing")
    with flow.worker_process(at, "http://127.0.0.1:9") as worker:
        for _ in range(60_000):
            if int(await redis.hget(keys.BOOKS, "unpack:done") or 0) == deliveries:
                break
            worker.check()
            await asyncio.sleep(flow.LOOK_EVERY_S)
    expect("events waiting", int(await redis.hget(keys.BOOKS, "forward:waiting") or 0), events)
    queue = int(await redis.memory_usage(keys.queue("forward"), samples=0))
    payloads = await _payload_bytes(redis)
    return list(_weights(shape, used / size, queue / payloads, queue / size))


def _weights(shape: Shape, inbox: float, forward: float, raw: float) -> Iterator[Figure]:
    yield Figure(BENCH, f"inbox / bodies, {shape.name}", inbox, "x", at_most=1.5)
    if shape is not backlog.ALONE:  # how a delivery was stored makes no difference any more
        yield Figure(BENCH, f"forward / what leaves, {shape.name}", forward, "x", at_most=1.5)
        yield Figure(BENCH, f"forward / bodies, {shape.name}", raw, "x", at_most=1.5)


async def _used(redis: Redis) -> int:
    await asyncio.sleep(0.2)  # the buffers of clients that left are freed by a timer
    return int((await redis.info("memory"))["used_memory"])


async def _payload_bytes(redis: Redis) -> int:
    total, start = 0, "-"
    while rows := await redis.xrange(keys.queue("forward"), start, "+", count=1000):
        total += sum(len(fields[b"p"]) for _, fields in rows)
        start = "(" + rows[-1][0].decode()
    return total


async def worker_peaks(at: Place, redis: Redis, backlogs: tuple[int, int]) -> list[Figure]:
    """Drain a small and a large backlog, each by a fresh worker; compare the most that each held."""
    peaks = []
    for events in backlogs:
        await processes.empty(redis)
        await backlog.fill(redis, events, backlog.SINGLE)
        with flow.vendor(at) as url, flow.worker_process(at, url) as worker:
            await flow.drained(redis, worker, events)
            held = processes.memory_kb(worker.pid)
            flow.check_arrived(url, events)
        if held is None:  # only Linux tells
            return []
        peaks.append(held[1] / 1024)
    found = [
        Figure(BENCH, f"worker's peak, backlog of {events:,}", peak, "MiB")
        for events, peak in zip(backlogs, peaks, strict=True)
    ]
    # a tenth is what two runs on the same backlog differ by
    grown = Figure(BENCH, "worker's peak, large / small", peaks[1] / peaks[0], "x", at_most=1.1)
    return [*found, grown]

"""A large backlog: whether its last tenth leaves at the rate of its first, and what is held in memory meanwhile.

Everything waits in the inbox when the worker starts, so for most of the time it takes apart and forwards side by side.
The tenths are of events in accepted batches. The fraction says whether anything grows with what waits: a queue that
is slower when it is long, marks of what was seen, the worker itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

from bench import backlog, flow, processes
from bench.processes import Place, Running
from bench.results import Figure, WrongCount
from bench.sizes import Sizes
from pipeline import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "backlog"
TENTHS = 10
LONGEST_S = 3600.0
MIB = 1024**2


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Drain one backlog by one worker."""
    redis, events = at.client(), sizes.drain_events
    try:
        await processes.empty(redis)
        before = await _memory(redis)
        deliveries, _ = await backlog.fill(redis, events, backlog.SINGLE)
        waiting = await _memory(redis) - before
        with flow.vendor(at) as url, flow.worker_process(at, url) as worker:
            await flow.first_take(redis, worker)
            moments, spent, peak = await _tenths(redis, (worker, at.redis_pid), events)
            held = processes.memory_kb(worker.pid)
            await flow.check_books(redis, events, deliveries)
            flow.check_arrived(url, events)
    finally:
        await redis.aclose()
    found = list(_figures(events, moments, waiting, peak - before))
    if spent[1] > spent[0]:
        ratio = (spent[-1] - spent[-2]) / (spent[1] - spent[0])
        found.append(Figure(BENCH, "processor time, last tenth / first", ratio, "x"))
    if held is not None:  # only Linux tells
        found.append(Figure(BENCH, "worker's peak", held[1] / 1024, "MiB"))
    return found


async def _tenths(
    redis: Redis, who: tuple[Running, int], events: int
) -> tuple[list[float], list[float], int]:
    """Return when each tenth had left, the beginning first, the processor time until then, the most that Redis held."""
    worker, redis_pid = who
    moments, spent, peak = [perf_counter()], [_spent(worker, redis_pid)], 0
    until = moments[0] + LONGEST_S
    while len(moments) <= TENTHS:
        done = int(await redis.hget(keys.BOOKS, "forward:done") or 0)
        now = perf_counter()
        if done * TENTHS < events * len(moments):
            worker.check()
            if now > until:
                raise WrongCount(f"not done after {LONGEST_S:g} seconds:\n{worker.last_words()}")
            await asyncio.sleep(flow.LOOK_EVERY_S)
            continue
        moments.append(now)
        spent.append(_spent(worker, redis_pid))
        peak = max(peak, await _memory(redis))
    return moments, spent, peak


def _spent(worker: Running, redis_pid: int) -> float:
    return processes.cpu_s(worker.pid) + processes.cpu_s(redis_pid)


async def _memory(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


def _figures(events: int, moments: Sequence[float], waiting: int, peak: int) -> Iterator[Figure]:
    rates = tuple(events / TENTHS / (end - begin) for begin, end in pairwise(moments))
    whole = events / (moments[-1] - moments[0])
    yield Figure(BENCH, f"{events:,} events, all of them", whole, "events/s", rates)
    yield Figure(BENCH, "the first tenth", rates[0], "events/s")
    yield Figure(BENCH, "the last tenth", rates[-1], "events/s")
    yield Figure(BENCH, "last tenth / first", rates[-1] / rates[0], "x", at_least=0.9)
    yield Figure(BENCH, "Redis, a waiting event", waiting / events, "bytes")
    yield Figure(BENCH, "Redis at most", max(waiting, peak) / MIB, "MiB")

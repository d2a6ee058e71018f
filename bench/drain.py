"""A large backlog: whether it drains at the rate of a small one, and what is held in memory meanwhile.

Everything waits in the inbox when a worker starts, so for most of the time it takes apart and forwards side by side:
it takes apart faster than it forwards, so the first tenths share the worker with most of that, and the last ones have
it for themselves. The whole of the large backlog is therefore held against the whole of a small one. The tenths are of
events in accepted batches. The fractions say whether anything grows with what waits: a queue that is slower when it is
long, marks of what was seen, the worker itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

from bench import backlog, flow, processes
from bench.processes import Place, Running
from bench.results import Figure, WrongCount, middle
from bench.sizes import Sizes
from pipeline import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "backlog"
TENTHS = 10
#: how many times as large the large one is
SMALLER = 5
LONGEST_S = 3600.0
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Drained:
    """A backlog that has left: when each tenth had (the beginning first), what was spent until then, what was held."""

    events: int
    moments: Sequence[float]
    spent_s: Sequence[float]
    waiting_bytes: int
    most_bytes: int
    worker_kb: int | None

    @property
    def rates(self) -> tuple[float, ...]:
        """Events a second, of each tenth."""
        return tuple(self.events / TENTHS / (end - began) for began, end in pairwise(self.moments))

    @property
    def whole(self) -> float:
        """Events a second, of all but the last tenth: its last batch waits until it is old enough."""
        return self.events * (TENTHS - 1) / TENTHS / (self.moments[-2] - self.moments[0])


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Drain a small backlog, a large one, and the small one once more, by one worker each."""
    redis, small = at.client(), sizes.drain_events // SMALLER
    try:
        before = await _drain(at, redis, small)
        large = await _drain(at, redis, sizes.drain_events)
        after = await _drain(at, redis, small)
    finally:
        await redis.aclose()
    return list(_figures(large, (before, after)))


async def _drain(at: Place, redis: Redis, events: int) -> Drained:
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
    most = max(waiting, peak - before)
    return Drained(events, moments, spent, waiting, most, held[1] if held else None)


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


def _figures(large: Drained, small: Sequence[Drained]) -> Iterator[Figure]:
    rates = large.rates
    yield Figure(BENCH, f"{large.events:,} events", large.whole, "events/s", rates)
    yield middle(BENCH, f"{small[0].events:,} events", [one.whole for one in small], "events/s")
    ratios = [large.whole / one.whole for one in small]
    yield middle(BENCH, "all of a large one / a small one", ratios, "x", at_least=0.9)
    yield Figure(BENCH, "the first tenth", rates[0], "events/s")
    yield Figure(BENCH, "the last tenth", rates[-1], "events/s")
    spent = large.spent_s
    cpu = [(one.spent_s[-1] - one.spent_s[0]) * 1e6 / one.events for one in small]
    yield Figure(
        BENCH, "worker's and Redis's CPU, large", (spent[-1] - spent[0]) * 1e6 / large.events, "µs"
    )
    yield middle(BENCH, "worker's and Redis's CPU, small", cpu, "µs")
    yield Figure(BENCH, "Redis, a waiting event", large.waiting_bytes / large.events, "bytes")
    yield Figure(BENCH, "Redis at most", large.most_bytes / MIB, "MiB")
    if large.worker_kb is not None:  # only Linux tells
        yield Figure(BENCH, "worker's peak", large.worker_kb / 1024, "MiB")

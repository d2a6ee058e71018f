"""Two workers against one: events a second the whole way, of the same backlog.

The stage `unpack` is paused until all workers live, so that none is measured while it starts. Redis, the sink and two
workers keep four cores busy: with fewer the ratio is told, and is no target.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench import backlog, flow, machine, processes
from bench.processes import Place
from bench.results import Figure, middle
from bench.sizes import Sizes
from pipeline import keys, pauses
from pipeline.outcomes import Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "workers"
CORES = 4


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Measure one and two workers, in turns."""
    redis = at.client()
    rates: dict[int, list[float]] = {1: [], 2: []}
    try:
        for number in range(sizes.rounds):
            for count in rates if number % 2 == 0 else reversed(rates):
                rates[count].append(await whole_way(at, redis, sizes.flow_events, count))
    finally:
        await redis.aclose()
    ratios = [two / one for one, two in zip(*rates.values(), strict=True)]
    figures = [middle(BENCH, f"{n} of them", found, "events/s") for n, found in rates.items()]
    if (cores := machine.cores()) < CORES:
        name = f"two workers / one (no target: {cores} cores, {CORES} are needed)"
        return [*figures, middle(BENCH, name, ratios, "x")]
    return [*figures, middle(BENCH, "two workers / one", ratios, "x", at_least=1.6)]


async def whole_way(at: Place, redis: Redis, events: int, count: int) -> float:
    """Preload *events*, let *count* workers forward them, and return how many that were a second."""
    await processes.empty(redis)
    deliveries, _ = await backlog.fill(redis, events, backlog.SINGLE)
    await pauses.pause(redis, Stage.UNPACK, "all workers shall be there")

    async def alive() -> int:
        return int(await redis.zcard(keys.WORKERS))

    with flow.vendor(at) as url, ExitStack() as stack:
        workers = [
            stack.enter_context(flow.worker_process(at, url, f"worker-{n}")) for n in range(count)
        ]
        await flow.until(workers[0], alive, lambda n: n == count)
        await pauses.resume(redis, Stage.UNPACK)
        await flow.first_take(redis, workers[0])
        seconds = await flow.drained(redis, workers[0], events)
        await flow.check_books(redis, events, deliveries)
        flow.check_arrived(url, events)
    return events / seconds

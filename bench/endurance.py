"""A long run: posted events go the whole way; what each costs, and whether a process grows.

A receiver and a worker take the events as they come, each in a delivery of its own, in five parts. The processor time
is that of all parts. Memory is what a process holds after the first part and after the last: it grows while caches and
buffers fill, and must not after that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import orjson

from bench import backlog, flow, load, processes, receive
from bench.processes import Place, Running
from bench.receive import RECEIVER
from bench.results import Figure, expect
from bench.sizes import Sizes
from pipeline import books, keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "endurance"
PARTS = 5
# what a part may take, with all that waits behind it
PART_WITHIN_S = 600.0


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Post and forward all events; return the costs of one thousand, and how much was held."""
    redis = at.client()
    await processes.empty(redis)
    try:
        with flow.vendor(at) as url, flow.worker_process(at, url) as worker, ExitStack() as stack:
            server = receive.serve(at, stack, RECEIVER)
            pids = {"receiver": server.pid, "worker": worker.pid, "Redis": at.redis_pid}
            held, before = [], list(map(processes.cpu_s, pids.values()))
            for part in range(PARTS):
                await _part(at, redis, worker, server.port, part, sizes.endurance_events // PARTS)
                held.append([processes.memory_kb(pid) for pid in pids.values()])
            after = list(map(processes.cpu_s, pids.values()))
            events = await _check(redis, url)
    finally:
        await redis.aclose()
    spent = [(b - a) * 1e6 / events for a, b in zip(before, after, strict=True)]
    return list(_figures(events, list(pids), spent, held))


async def _part(
    at: Place, redis: Redis, worker: Running, port: int, part: int, events: int
) -> None:
    """Post the events of a part and wait until all that was stored is forwarded."""
    request = receive.request(_body())
    numbers = (part * events, (part + 1) * events)
    one = receive.with_load(at, port, PART_WITHIN_S, request=request, numbers=numbers)
    expect("events posted", one.answered + one.put_off, events)

    async def missing() -> int:
        done = int(await redis.hget(keys.BOOKS, "forward:done") or 0)
        duplicate = int(await redis.hget(keys.BOOKS, "forward:duplicate") or 0)
        return numbers[0] + one.answered - done - duplicate

    await flow.until(worker, missing, lambda n: n <= 0)


def _body() -> bytes:
    event = backlog.event(0)
    event["send_id"] = f"campaign-{load.MARK}"
    event["email"] = f"reader.{load.MARK}@example.com"
    return orjson.dumps(event)


async def _check(redis: Redis, url: str) -> int:
    """Raise `WrongCount` unless each event arrived once; return how many did."""
    status = await books.snapshot(redis)
    expect("balanced", status["balanced"], True)
    forward = status["stages"]["forward"]
    expect("forward: dead", forward["dead"], 0)
    flow.check_arrived(url, forward["done"])
    return int(forward["done"])


Held = Sequence[Sequence[tuple[int, int] | None]]


def _figures(
    events: int, names: Sequence[str], spent: Sequence[float], held: Held
) -> Iterator[Figure]:
    for name, each in zip(names, spent, strict=True):
        # a microsecond an event is a millisecond for a thousand
        yield Figure(BENCH, f"{name}'s CPU for 1 000 events", each, "ms")
    yield Figure(BENCH, "CPU for 1 000 events, all three", sum(spent), "ms")
    for number, name in enumerate(names[:2]):
        each_part = [one[number] for one in held]
        rounds = tuple(one[0] / 1024 for one in each_part if one is not None)
        if len(rounds) < len(held):  # only Linux tells
            return
        yield Figure(BENCH, f"{name} holds after {events:,} events", rounds[-1], "MiB", rounds)
        grown = rounds[-1] / rounds[0]
        yield Figure(BENCH, f"{name}, the last part / the first", grown, "x", at_most=1.1)

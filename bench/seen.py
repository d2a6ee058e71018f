"""The seen window: Redis memory and time for each remembered event, by the move that really marks them.

Each call is one move with 500 fresh events, as `unpack` makes them; the events themselves are thrown away
at once, so that what remains is the marks. A move that says it leaves a slice behind keeps its entry, so one
entry serves for all of them. Two drivers keep Redis busy while the next call is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from bench import processes
from bench.processes import Place
from bench.results import Figure, expect
from bench.sizes import Sizes
from pipeline import keys, seen
from pipeline.clock import DAY_MS
from pipeline.deliveries import Delivery
from pipeline.inbox import Inbox
from pipeline.moves import Move, Mover, Result
from pipeline.outcomes import Stage
from pipeline.queues import Entry, Queues

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "seen"
SLICE = 500
DRIVERS = 2
CONSUMER = "bench"
WEEK_MS = 7 * DAY_MS


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Measure plain keys, then the marks at each number of `sizes.marks`, growing."""
    redis = at.client()
    try:
        # only the memory counts here, and the file would grow to gigabytes
        await redis.config_set("appendonly", "no")
        found = [await plain_keys(redis, sizes.plain_keys)]
        await processes.empty(redis)
        empty = await _used(redis)
        made = 0
        drivers = [Driver(entry) for entry in await _entries(redis)]
        for marks in sizes.marks:
            began = perf_counter()
            await _mark(redis, drivers, made, marks)
            seconds = perf_counter() - began
            found += _figures(marks, marks - made, seconds, await _used(redis) - empty)
            expect("marks remembered", await seen.remembered(redis), marks)
            made = marks
        await _check_remembered(redis, made)
        return found
    finally:
        # the file stays off: a server that is just writing it anew does not stop when it is told to
        await redis.flushall()
        await redis.aclose()


def _figures(marks: int, new: int, seconds: float, used: int) -> Iterator[Figure]:
    yield Figure(BENCH, f"bytes an event at {marks:,}", used / marks, "bytes", at_most=24)
    yield Figure(BENCH, f"time a mark up to {marks:,}", seconds / new * 1e6, "µs")


async def plain_keys(redis: Redis, count: int) -> Figure:
    """Weigh one key an event, as `SET … EX` would remember it."""
    await processes.empty(redis)
    empty = await _used(redis)
    script = (
        "for i = ARGV[1], ARGV[2] do redis.call('SET', 'seen:' .. "
        "string.sub(redis.sha1hex(tostring(i)), 1, 32), '1', 'EX', 604800) end"
    )
    for first in range(0, count, 1_000):
        await redis.eval(script, 0, first, first + 999)
    used = await _used(redis) - empty
    return Figure(BENCH, f"plain keys with a life time, {count:,}", used / count, "bytes")


async def _used(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


async def _entries(redis: Redis) -> list[Entry]:
    """Store a delivery for each driver and take them, so that moves have something in their hands."""
    inbox = Inbox(redis)
    await inbox.start()
    for number in range(DRIVERS):
        await inbox.put([Delivery(f"bench-{number}", "events", b"{}", 0)])
    taken = await Queues(redis, CONSUMER).take(Stage.UNPACK, Stage.UNPACK, most=DRIVERS)
    return list(taken.entries)


async def _mark(redis: Redis, drivers: list[Driver], first: int, last: int) -> None:
    step = SLICE * len(drivers)
    await asyncio.gather(
        *(
            driver.run(redis, range(first + SLICE * n, last, step), last)
            for n, driver in enumerate(drivers)
        )
    )
    await _throw_away(redis)


@dataclass(slots=True)
class Driver:
    """Makes moves that leave their entry, each with the cursor that the one before has set."""

    entry: Entry
    cursor: str = ""

    async def run(self, redis: Redis, starts: range, last: int) -> None:
        """Mark a slice from each of *starts*, and nothing from *last* on."""
        mover = Mover(redis, CONSUMER, WEEK_MS)
        for turn, start in enumerate(starts):
            following = str(start + 1)
            move = Move(self.entry.queue, [self.entry.id], self.cursor, following)
            for number in range(start, min(start + SLICE, last)):
                _add(move, number)
            moved = await mover.apply([move])
            expect("result of a move", moved.results[0], Result.DONE)
            self.cursor = following
            if turn % 20 == 0:
                await _throw_away(redis)


def _add(move: Move, number: int) -> None:
    move.append_fresh(Stage.FORWARD, f"event {number}", b"{}", "events|0|o|")


async def _throw_away(redis: Redis) -> None:
    await redis.xtrim(keys.queue(Stage.FORWARD), maxlen=0, approximate=False)


async def _check_remembered(redis: Redis, made: int) -> None:
    """Send some of the events again: every one must be counted as a duplicate."""
    entry = (await _entries(redis))[0]
    again = [made * n // SLICE for n in range(SLICE)]
    move = Move(entry.queue, [entry.id])
    for number in again:
        _add(move, number)
    await Mover(redis, CONSUMER, WEEK_MS).apply([move])
    duplicates = int(await redis.hget(keys.BOOKS, "forward:duplicate") or 0)
    expect("duplicates recognised", duplicates, len(again))

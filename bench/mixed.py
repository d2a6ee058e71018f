"""A mixed stream: how fast a worker takes apart deliveries of all senders, against the same events by `events`.

Every sender tells of as many events, in calls as it makes them; `events` tells of the same ones in calls of the
same sizes, in the same order. `forward` is paused, so that nothing but unpacking is done. Nothing is signed: a worker
reads what the receiver has believed already.

A worker lives long, so it is measured as one that has: before either stream it reads every user agent that there is
once, and the clock starts when a third of the stream's deliveries is taken apart. What a user agent costs that was
never seen before is therefore not in the figures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

from bench import calls, flow, parse, processes
from bench.processes import Place, Running
from bench.results import Figure, WrongCount, expect, middle
from bench.sizes import Sizes
from pipeline import books, keys, pauses
from pipeline.deliveries import Delivery
from pipeline.inbox import Inbox
from pipeline.outcomes import Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "mixed"
PER_FLUSH = 32
SENDERS = len(calls.CALLERS)


@dataclass(frozen=True, slots=True)
class Stream:
    """Deliveries in the order in which they are stored, and how many events each of them holds."""

    deliveries: Sequence[Delivery]
    sizes: Sequence[int]

    def after(self, other: Stream) -> Stream:
        """Return a stream that goes on with this one after the *other*."""
        return Stream([*other.deliveries, *self.deliveries], [*other.sizes, *self.sizes])


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A backlog that was taken apart."""

    events_per_s: float
    worker_cpu_us: float
    redis_cpu_us: float


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Let one worker take both streams apart, in turns."""
    redis = at.client()
    mixed, events = streams(sizes.mixed_events // SENDERS)
    first = warm_up(sum(mixed.sizes), sizes.mixed_agents)
    ours: list[Unpacked] = []
    theirs: list[Unpacked] = []
    try:
        for _ in range(sizes.mixed_rounds):
            theirs.append(await unpacked(at, redis, first, events))
            ours.append(await unpacked(at, redis, first, mixed))
    finally:
        await redis.aclose()
    return list(_figures(ours, theirs))


def _figures(ours: Sequence[Unpacked], theirs: Sequence[Unpacked]) -> Iterator[Figure]:
    for name, rounds in (("all senders", ours), ("events", theirs)):
        yield middle(BENCH, f"unpack, {name}", [one.events_per_s for one in rounds], "events/s")
        spent = [one.worker_cpu_us for one in rounds]
        yield middle(BENCH, f"worker's CPU an event, {name}", spent, "µs")
        spent = [one.redis_cpu_us for one in rounds]
        yield middle(BENCH, f"Redis's CPU an event, {name}", spent, "µs")
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [one.events_per_s / other.events_per_s for one, other in pairs]
    yield middle(BENCH, "all senders / events", ratios, "x", at_least=0.8)


def streams(events_each: int) -> tuple[Stream, Stream]:
    """Return the deliveries of all senders, and those of `events` that tell the same.

    The senders take turns by the share of their events that they have told.
    """
    placed: list[tuple[float, Delivery]] = []
    for number, caller in enumerate(calls.CALLERS):
        posted = list(caller.deliveries(number * events_each, events_each))
        placed += [((place + 0.5) / len(posted), one) for place, one in enumerate(posted)]
    mixed = [one for _, one in sorted(placed, key=lambda pair: pair[0])]
    told = [parse.outcomes(one, time.time()) for one in mixed]
    sizes = [len(one) for one in told]
    return Stream(mixed, sizes), Stream([parse.as_events(one) for one in told], sizes)


def warm_up(number: int, agents: int) -> Stream:
    """Return deliveries that tell of so many user agents, or all there are, once, by events from *number* on."""
    posted = list(calls.of_every_agent(number, agents))
    return Stream(posted, [len(parse.outcomes(one, time.time())) for one in posted])


async def unpacked(at: Place, redis: Redis, first: Stream, stream: Stream) -> Unpacked:
    """Store both streams, let one worker take them apart, and return how *stream* went once it was warm."""
    both = stream.after(first)
    behind, total = len(first.deliveries), len(both.deliveries)
    await processes.empty(redis)
    await _store(redis, both.deliveries)
    await pauses.pause(redis, Stage.FORWARD, "measuring")
    with flow.worker_process(at, "http://127.0.0.1:9") as worker:
        pids = (worker.pid, at.redis_pid)
        # a handful is taken apart at the first look: then all of it counts, too slow as that is
        done = await _taken_apart(redis, worker, behind + len(stream.deliveries) // 3)
        done = done if done < total else 0
        began, before = perf_counter(), [processes.cpu_s(pid) for pid in pids]
        await _taken_apart(redis, worker, total)
        seconds, after = perf_counter() - began, [processes.cpu_s(pid) for pid in pids]
    await _check_books(redis, both)
    events = sum(both.sizes[done:])
    spent = [(b - a) * 1e6 / events for a, b in zip(before, after, strict=True)]
    return Unpacked(events / seconds, *spent)


async def _taken_apart(redis: Redis, worker: Running, deliveries: int) -> int:
    """Wait until so many *deliveries* are taken apart; return how many they are then."""
    until = perf_counter() + flow.LONGEST_S
    while perf_counter() < until:
        if (done := int(await redis.hget(keys.BOOKS, "unpack:done") or 0)) >= deliveries:
            return done
        worker.check()
        await asyncio.sleep(flow.LOOK_EVERY_S)
    raise WrongCount(f"not done after {flow.LONGEST_S:g} seconds:\n{worker.last_words()}")


async def _store(redis: Redis, deliveries: Sequence[Delivery]) -> None:
    inbox = Inbox(redis)
    await inbox.start()
    now = int(time.time() * 1000)
    for first in range(0, len(deliveries), PER_FLUSH):
        flush = deliveries[first : first + PER_FLUSH]
        await inbox.put([replace(one, received_at_ms=now) for one in flush])


async def _check_books(redis: Redis, stream: Stream) -> None:
    """Raise `WrongCount` unless every delivery was taken apart and every event waits to be forwarded, once."""
    status, events = await books.snapshot(redis), sum(stream.sizes)
    expect("balanced", status["balanced"], True)
    expect("deliveries unpacked", status["stages"]["unpack"]["done"], len(stream.deliveries))
    for name, wanted in (("in", events), ("waiting", events), ("duplicate", 0), ("dead", 0)):
        expect(f"forward: {name}", status["stages"]["forward"][name], wanted)

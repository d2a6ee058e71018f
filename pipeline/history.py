"""The history: the books as they stood at each minute of the last week, so that a page can draw how it went.

A worker writes a minute's entry as soon as it sees that nobody has. An entry holds the counters of the books, always
the same in the same order, so Redis keeps their names once and an entry takes up to 400 bytes. A minute without
any worker is missing: nothing was done in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.clock import redis_now_ms
from pipeline.outcomes import Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

MINUTE_MS = 60_000
#: a week of minutes; a few more may stand there
MOST_ENTRIES = 7 * 24 * 60
#: moments that are read in one step; Redis needs some 60 µs for each
_AT_ONCE = 20
_COUNTERS = [f"{stage}:{name}" for stage in Stage for name in keys.COUNTERS]


@dataclass(frozen=True, slots=True)
class Moment:
    """The books at *at_ms*: numbers by `STAGE:counter`."""

    at_ms: int
    numbers: dict[str, int]


async def note(redis: Redis) -> bool:
    """Write this minute's entry unless it is there; return whether it was written."""
    args: list[str | int] = [MOST_ENTRIES, len(_COUNTERS), *_COUNTERS]
    return bool(await script(redis, "chronicle")(args=args))


async def read(redis: Redis, for_ms: int, pieces: int) -> list[Moment]:
    """Return the books at up to *pieces* + 1 moments, about equally far apart, of the last *for_ms*, oldest first."""
    now = await redis_now_ms(redis)
    # a piece without a minute of its own begins with the next one's
    starts = [max(0, now - for_ms + n * for_ms // pieces) for n in range(pieces)]
    past = script(redis, "past")
    async with redis.pipeline(transaction=False) as pipe:
        for n in range(0, pieces, _AT_ONCE):
            await past(args=starts[n : n + _AT_ONCE], client=pipe)
        pipe.xrevrange(keys.HISTORY, min=starts[0], count=1)
        *answers, last = await pipe.execute()
    moments = {}
    for sets, rows in answers:
        names = [[name.decode() for name in each] for each in sets]
        for entry, which, numbers in rows:
            moments[entry] = dict(zip(names[which - 1], map(int, numbers), strict=True))
    for entry, fields in last:
        moments[entry] = {name.decode(): int(n) for name, n in fields.items()}
    return [Moment(int(entry.split(b"-")[0]), numbers) for entry, numbers in moments.items()]


@dataclass(frozen=True, slots=True)
class Span:
    """What was from *since_ms*, the moment before, to *at_ms*: a *value* for all of the time between."""

    since_ms: int
    at_ms: int
    value: float


def rates(moments: list[Moment], *counters: str) -> list[Span]:
    """Return how fast *counters* grew together from each moment to the next: a minute of it on average.

    Books that began anew grew by nothing.
    """
    return [_rate(before, after, counters) for before, after in pairwise(moments)]


def levels(moments: list[Moment], *counters: str) -> list[Span]:
    """Return how high *counters* stood together at each moment but the first, for the time since the one before."""
    return [
        Span(before.at_ms, after.at_ms, _sum(after, counters))
        for before, after in pairwise(moments)
    ]


def _rate(before: Moment, after: Moment, counters: Sequence[str]) -> Span:
    grown = _sum(after, counters) - _sum(before, counters)
    minutes = (after.at_ms - before.at_ms) / MINUTE_MS
    return Span(before.at_ms, after.at_ms, max(0.0, grown / minutes))


def _sum(moment: Moment, counters: Sequence[str]) -> int:
    return sum(moment.numbers.get(counter, 0) for counter in counters)

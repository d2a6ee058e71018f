"""The history: the books as they stood at each minute of the last week, so that a page can draw how it went.

A worker writes a minute's entry as soon as it sees that nobody has. An entry holds the counters of the books, always
the same in the same order, so Redis keeps their names once and an entry takes some hundred bytes. A minute without
any worker is missing: nothing was done in it.
"""

from __future__ import annotations

from dataclasses import dataclass
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


async def read(redis: Redis, for_ms: int) -> list[Moment]:
    """Return the minutes of the last *for_ms*, oldest first."""
    since = await redis_now_ms(redis) - for_ms
    rows = await redis.xrange(keys.HISTORY, min=max(0, since))
    return [
        Moment(int(entry.split(b"-")[0]), {name.decode(): int(n) for name, n in fields.items()})
        for entry, fields in rows
    ]


@dataclass(frozen=True, slots=True)
class Span:
    """What happened to one counter between two moments, a minute of it on average."""

    at_ms: int
    per_minute: float


def rates(moments: list[Moment], counter: str, spans: int) -> list[Span]:
    """Return how fast *counter* grew, in at most *spans* pieces of about equal length.

    A minute that is missing makes its piece longer.
    """
    if len(moments) < 2:
        return []
    first, last = moments[0].at_ms, moments[-1].at_ms
    length_ms = max(MINUTE_MS, -(-(last - first) // spans))
    found: list[Span] = []
    begin = moments[0]
    for moment in moments[1:]:
        if moment.at_ms - begin.at_ms >= length_ms or moment is moments[-1]:
            grown = moment.numbers.get(counter, 0) - begin.numbers.get(counter, 0)
            minutes = (moment.at_ms - begin.at_ms) / MINUTE_MS
            found.append(Span(moment.at_ms, max(0.0, grown / minutes)))
            begin = moment
    return found

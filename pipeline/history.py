"""The history: the books as they stood at each minute of the last week, so that a page can draw how it went.

A worker writes a minute's entry as soon as it sees that nobody has. An entry holds the counters of the books, always
the same in the same order, so Redis keeps their names once and an entry takes up to 400 bytes. A minute without
any worker is missing: nothing was done in it.
"""

from __future__ import annotations

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
    async with redis.pipeline(transaction=False) as pipe:
        for n in range(pieces):
            pipe.xrange(keys.HISTORY, min=max(0, now - for_ms + n * for_ms // pieces), count=1)
        pipe.xrevrange(keys.HISTORY, min=max(0, now - for_ms), count=1)
        found = await pipe.execute()
    # a piece without a minute of its own begins with the next one's
    rows = dict(row for rows in found for row in rows)
    return [
        Moment(int(entry.split(b"-")[0]), {name.decode(): int(n) for name, n in fields.items()})
        for entry, fields in sorted(rows.items(), key=lambda row: int(row[0].split(b"-")[0]))
    ]


@dataclass(frozen=True, slots=True)
class Span:
    """What happened to one counter until *at_ms*, since the moment before: a minute of it on average."""

    at_ms: int
    per_minute: float


def rates(moments: list[Moment], counter: str) -> list[Span]:
    """Return how fast *counter* grew from each moment to the next; books that began anew grew by nothing."""
    return [_span(before, after, counter) for before, after in pairwise(moments)]


def _span(before: Moment, after: Moment, counter: str) -> Span:
    grown = after.numbers.get(counter, 0) - before.numbers.get(counter, 0)
    minutes = (after.at_ms - before.at_ms) / MINUTE_MS
    return Span(after.at_ms, max(0.0, grown / minutes))

"""Walks over dead letters by time of burial: over the index of all, or over those of some kinds as if they were one.

Of several indexes a piece of each is read, and what stands before the end of every piece is in order. So whoever wants
few letters reads few, of however many kinds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: when a letter was buried, and how it is named in the index of all
Row = tuple[float, bytes]

# of many kinds each one's share of what is wanted would be a row or two, and every row a question
_LEAST = 20


@dataclass(frozen=True, slots=True)
class Stretch:
    """The letters that were buried from *first* to *last*, both included, and from which end they are met."""

    first: float | str
    last: float
    oldest_first: bool = False


async def pages(
    redis: Redis, kinds: Sequence[str] | None, stretch: Stretch, size: int
) -> AsyncIterator[list[Row]]:
    """Walk over the letters of *kinds*, or over all with None, some *size* letters at a time.

    Who is given a page may take its letters away: the next begins at the last time of burial, without those that were
    met there.
    """
    walks = [_Walk(kind, stretch) for kind in (("",) if kinds is None else kinds)]
    share = size if len(walks) < 2 else max(_LEAST, size // len(walks))
    while True:
        await _read_on(redis, [walk for walk in walks if not walk.rows and not walk.is_over], share)
        if not (page := _in_order(walks, oldest_first=stretch.oldest_first)):
            return
        yield page


async def _read_on(redis: Redis, walks: Sequence[_Walk], share: int) -> None:
    if not walks:
        return
    async with redis.pipeline(transaction=False) as pipe:
        for walk in walks:
            walk.ask(pipe, share)
        answers = await pipe.execute()
    for walk, answer in zip(walks, answers, strict=True):
        walk.hear(answer)


def _in_order(walks: Sequence[_Walk], *, oldest_first: bool) -> list[Row]:
    """Take from *walks* the rows before which nothing comes that was not read yet."""
    ends = [walk.rows[-1] for walk in walks if not walk.is_over]
    page = [row for walk in walks for row in walk.rows]
    if ends:
        end = min(ends) if oldest_first else max(ends)
        page = [row for row in page if (row <= end if oldest_first else row >= end)]
    given = set(page)
    for walk in walks:
        walk.rows = [row for row in walk.rows if row not in given]
    return sorted(page, reverse=not oldest_first)


class _Walk:
    """A walk over one index: *rows* are read and not given yet."""

    def __init__(self, kind: str, stretch: Stretch) -> None:
        self.rows: list[Row] = []
        self.is_over = False
        self._index = keys.dead_of(kind) if kind else keys.DEAD
        self._kind = f"{kind}/".encode() if kind else b""
        self._first: float | str = stretch.first
        self._last: float | str = stretch.last
        self._oldest_first = stretch.oldest_first
        self._met: set[bytes] = set()  # at the time where the next page begins
        self._asked = 0

    def ask(self, pipe: Any, size: int) -> None:
        """Ask for the next rows."""
        # that many more, so that the walk goes on also when more than a page share one millisecond
        self._asked = size + len(self._met)
        page: dict[str, Any] = {"start": 0, "num": self._asked, "withscores": True}
        if self._oldest_first:
            pipe.zrangebyscore(self._index, self._first, self._last, **page)
        else:
            pipe.zrevrangebyscore(self._index, self._last, self._first, **page)

    def hear(self, answer: Sequence[tuple[bytes, float]]) -> None:
        """Take the rows that were asked for."""
        self.is_over = len(answer) < self._asked
        rows = [(member, at_ms) for member, at_ms in answer if member not in self._met]
        if not rows:
            return
        turn = rows[-1][1]
        if turn != (self._first if self._oldest_first else self._last):
            self._met = set()
        self._met |= {member for member, at_ms in rows if at_ms == turn}
        if self._oldest_first:
            self._first = turn
        else:
            self._last = turn
        self.rows = [(at_ms, self._kind + member) for member, at_ms in rows]

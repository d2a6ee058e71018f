"""The index of dead letters by kind: few letters of a kind are found among a million others without a walk.

A kind is `stage/source/reason`. Each has a sorted set of its letters' ids by time of burial, kept by the very steps
that keep the index of all letters, so it is whole as long as all processes are of a version that keeps it. Whether it
is, numbers tell: each kind has as many letters as were counted of it, and all kinds together as many as the index of
all. Where they have not, readers walk that one instead, and a worker mends the other piece by piece.

An older process that buries one letter and takes away another of the same kind leaves all numbers as they should be.
Therefore the index is gone through every six hours in any case. A letter's place there costs Redis 120 bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.clock import HOUR_MS
from pipeline.scripts import Script, script

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: letters that are brought in line in one step, while which Redis does nothing else
A_PIECE = 200
#: keys among which the indexes are looked for in one step
_KEYS = 1_000
#: after that time what no number tells is looked for again: a million letters take 20 to 30 s of Redis,
#: about a thousandth of it
CHECKED_EVERY_MS = 6 * HOUR_MS


@dataclass(frozen=True, slots=True)
class _Stand:
    """How the index stands: how many letters each kind has, and whether that is believed."""

    kinds: dict[str, int]
    is_whole: bool
    was_gone_through: bool


async def read(redis: Redis) -> dict[str, int] | None:
    """Return how many letters each kind has, or None while the index is not whole."""
    stand = await _stand(redis)
    return stand.kinds if stand.is_whole else None


async def is_to_be_mended(redis: Redis) -> bool:
    """Tell whether the index is not whole, or was not gone through for so long that it may not be."""
    stand = await _stand(redis)
    return not (stand.is_whole and stand.was_gone_through)


async def _stand(redis: Redis) -> _Stand:
    letters, checked, flat = await script(redis, "letter_kinds")(args=[])
    rows = [
        (kind.decode(), int(counted), int(listed))
        for kind, counted, listed in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    ]
    is_whole = all(counted == listed for _, counted, listed in rows)
    return _Stand(
        kinds={kind: listed for kind, _, listed in rows},
        is_whole=is_whole and sum(listed for *_, listed in rows) == letters,
        was_gone_through=bool(checked),
    )


async def mend(redis: Redis) -> AsyncGenerator[int, None]:
    """Make the index whole; gives after each piece how many places were wrong in it.

    The caller paces it, and sees to it that nobody else is at it. What others bury, retry or drop meanwhile they keep
    in line themselves. Raises `OutOfMemoryError` when Redis has no room for what is missing.
    """
    step, cursor = script(redis, "mend_letters"), 0
    while True:  # by their names: that of a kind that no letter is counted of stands nowhere else
        cursor, found = await redis.scan(cursor, match=keys.dead_of("*"), count=_KEYS)
        yield 0
        for key in found:
            async for wrong in _through(step, key.decode().removeprefix(keys.dead_of(""))):
                yield wrong
        if not cursor:
            break
    async for wrong in _through(step, ""):
        yield wrong


async def _through(step: Script, kind: str) -> AsyncGenerator[int, None]:
    """Go through the index of *kind*, or with '' through that of all, piece by piece."""
    cursor = b"0"
    while True:
        cursor, wrong = await step(args=[kind, cursor, A_PIECE, CHECKED_EVERY_MS])
        yield int(wrong)
        if cursor == b"0":
            return

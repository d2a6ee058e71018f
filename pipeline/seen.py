"""The seen window: which events came before, at about ten bytes an event.

A fingerprint becomes a 63-bit mark; the marks lie in many small sets that Redis keeps as packed integers.
The looking and the marking happen inside the move that appends the event (`lua/move.lua`), never apart
from it: a mark without its event would swallow the sender's retry. Slots that are too old to count are
removed by the sweep, not by a TTL, which would cost more than the marks.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis


def mark(fingerprint: str) -> int:
    """Return the mark of *fingerprint*: 63 bits, so that Redis stores it as one integer."""
    text = fingerprint.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest()) >> 1


def is_over(slot_ms: float, now_ms: float, window_ms: float) -> bool:
    """Tell whether the slot that began at *slot_ms* is too old to count, as `lua/move.lua` looks at it."""
    return slot_ms <= now_ms - 1.5 * window_ms


async def forget_old_slots(redis: Redis, window_ms: int, most: int = 5_000) -> int:
    """Remove up to *most* buckets of slots older than the window; return how many. For the sweep."""
    return int(await script(redis, "forget_marks")(args=[window_ms, most]))


async def remembered(redis: Redis) -> int:
    """Return how many marks are kept now."""
    return sum(int(state.decode().partition(":")[2]) for state in await redis.hvals(keys.SEEN))

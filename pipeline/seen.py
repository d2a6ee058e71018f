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
from pipeline.clock import redis_now_ms

if TYPE_CHECKING:
    from redis.asyncio import Redis


def mark(fingerprint: str) -> int:
    """Return the mark of *fingerprint*: 63 bits, so that Redis stores it as one integer."""
    return int.from_bytes(blake2b(fingerprint.encode(), digest_size=8).digest()) >> 1


async def forget_old_slots(redis: Redis, window_ms: int, most: int = 5_000) -> int:
    """Remove up to *most* buckets of slots older than the window; return how many. For the sweep."""
    now = await redis_now_ms(redis)
    removed = 0
    for name, state in (await redis.hgetall(keys.SEEN)).items():
        if int(name) > now - window_ms * 1.5:
            continue
        buckets, _, marks = state.decode().partition(":")
        left = max(int(buckets) - (most - removed), 0)
        names = [f"{keys.SEEN}:{name.decode()}:{n}" for n in range(left, int(buckets))]
        if names:
            removed += len(names)
            await redis.unlink(*names)
        if left:
            await redis.hset(keys.SEEN, name, f"{left}:{marks}")
            return removed
        await redis.hdel(keys.SEEN, name)
    return removed


async def remembered(redis: Redis) -> int:
    """Return how many marks are kept now."""
    return sum(int(state.decode().partition(":")[2]) for state in await redis.hvals(keys.SEEN))

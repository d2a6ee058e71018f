"""Leases: what one worker of all does at a time, for as long as it gives signs of life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

MENDING = "mending"
POLLING = "polling"
RECONCILING = "reconciling"


async def hold(redis: Redis, what: str, holder: str, ms: float) -> bool:
    """Be the only one who does *what* for *ms*, again or for the first time; tell whether *holder* is."""
    return bool(await script(redis, "lease")(args=[what, holder, int(ms)]))


async def leave(redis: Redis, what: str, holder: str) -> None:
    """Leave *what* to others at once, if it is *holder* who does it."""
    await hold(redis, what, holder, 0)

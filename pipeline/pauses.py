"""Pauses: a stage that takes nothing new, by the operator's word or by the relay's own.

An operator's pause stops the whole stage until it is resumed. The relay's own pause stops only the calls to
the vendor: it ends at its time, or for good with the first call that goes well. Calls in flight finish, the
receiver goes on, and both kinds survive restarts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from pipeline import keys
from pipeline.clock import redis_now_ms
from pipeline.outcomes import Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

NO_KEY = "no key"


async def pause(redis: Redis, stage: Stage, reason: str, *, by: str = "operator") -> None:
    """Pause *stage* until somebody resumes it."""
    since = await redis_now_ms(redis)
    await redis.hset(keys.PAUSED, stage, _pause(by, reason, since))


def _pause(by: str, reason: str, since_ms: int) -> bytes:
    return orjson.dumps({"by": by, "reason": reason, "since_ms": since_ms, "until_ms": None})


async def resume(redis: Redis, stage: Stage) -> bool:
    """Lift a pause of either kind and forget the failures behind it; return whether there was one."""
    return bool(await script(redis, "resume")(args=[stage]))


async def pause_without_key(redis: Redis, stage: Stage, reason: str) -> None:
    """Pause *stage* because its vendor's key is not set; an operator's pause stays as it is."""
    stored = await redis.hget(keys.PAUSED, stage)
    if stored is None:  # only if still unset: an operator may pause it at this very moment
        since = await redis_now_ms(redis)
        await redis.hsetnx(keys.PAUSED, stage, _pause("relay", reason, since))
        return
    known = orjson.loads(stored)
    if known["by"] == "relay":
        since = known["since_ms"] if known["reason"] == reason else await redis_now_ms(redis)
        await redis.hset(keys.PAUSED, stage, _pause("relay", reason, since))


async def end_pause_without_key(redis: Redis, stage: Stage) -> None:
    """Lift the pause that `pause_without_key` made, once the key is set."""
    stored = await redis.hget(keys.PAUSED, stage)
    known = orjson.loads(stored) if stored else None
    if known and known["by"] == "relay" and known["reason"].startswith(NO_KEY):
        await resume(redis, stage)

"""Which workers live: each one notes the time every few seconds, by Redis's clock.

arq's own health key lasts long after a crash and is shared by all workers of a queue, so a worker keeps a
heartbeat of its own. Work in the hands of a worker without a fresh heartbeat is given back (`lua/adopt.lua`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.clock import HOUR_MS, redis_now_ms
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

EVERY_S = 2.0
#: four beats may be late on a busy machine; work of a killed worker is taken up well within 15 s
FRESH_MS = 8_000
FORGOTTEN_MS = HOUR_MS


async def beat(redis: Redis, worker_id: str) -> None:
    """Note that *worker_id* lives."""
    await script(redis, "beat")(args=[worker_id, FORGOTTEN_MS])


async def stop(redis: Redis, worker_id: str) -> None:
    """Note that *worker_id* ended on purpose."""
    await redis.zrem(keys.WORKERS, worker_id)


async def youngest_age_s(redis: Redis) -> float | None:
    """Return the age of the youngest heartbeat in seconds, or None when there is none."""
    newest = await redis.zrange(keys.WORKERS, 0, 0, desc=True, withscores=True)
    if not newest:
        return None
    return max(0.0, (await redis_now_ms(redis) - float(newest[0][1])) / 1000)

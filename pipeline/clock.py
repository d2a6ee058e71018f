"""Redis's clock, the only one that ages are measured by, since processes' clocks differ and jump; times in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


async def redis_now_ms(redis: Redis) -> int:
    """Return the time of the Redis server in Unix milliseconds."""
    seconds, micros = await redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


def iso(ms: float) -> str:
    """Return Unix milliseconds as ISO-8601 UTC, to the millisecond, with `Z`."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

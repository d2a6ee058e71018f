"""Which form of each AudienceLab call worked last, by the call's name; kept for all processes and for `doctor`.

It only saves a try: a service that has changed its mind is asked in the other form. So what cannot be kept is
logged and let go, and no call fails or waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from redis.utils import str_if_bytes

from pipeline import keys
from pipeline.scripts import words_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)


async def read(redis: Redis) -> dict[str, str]:
    """Return call -> dialect (`observed` or `documented`), in the order of the names."""
    known = await redis.hgetall(keys.DIALECTS)
    return dict(sorted((str_if_bytes(call), str_if_bytes(it)) for call, it in known.items()))


async def keep(redis: Redis, call: str, dialect: str) -> None:
    """Keep that *dialect* worked for *call*; what Redis refuses is logged."""
    try:
        await redis.hset(keys.DIALECTS, call, dialect)
    except (RedisError, OSError) as error:
        logger.warning("dialect not kept call=%s error=%s", call, words_of(error))


class Keeper:
    """Keeps what a client learns, beside its calls."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._tasks: set[asyncio.Task[None]] = set()

    def learned(self, call: str, dialect: str) -> None:
        """Take note that *dialect* worked for *call*; does not wait."""
        logger.info("audiencelab understands call=%s dialect=%s", call, dialect)
        task = asyncio.create_task(keep(self._redis, call, dialect))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until all is kept."""
        await asyncio.gather(*self._tasks)

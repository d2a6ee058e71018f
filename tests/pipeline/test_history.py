"""The history: the books at some moments, read in a few steps."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from pipeline import history, keys
from pipeline.clock import redis_now_ms
from pipeline.history import MINUTE_MS, Moment

pytestmark = pytest.mark.anyio


async def write(redis: Redis, *minutes_ago: int, **numbers: int) -> dict[int, Moment]:
    """Write entries of so many minutes ago; return by minute what is to be read of them."""
    now = await redis_now_ms(redis)
    told = {}
    for ago in minutes_ago:
        at_ms = now - ago * MINUTE_MS
        counters = {f"unpack:{name}": ago * n for name, n in numbers.items()}
        await redis.xadd(keys.HISTORY, dict(counters), id=f"{at_ms}-0")
        told[ago] = Moment(at_ms, counters)
    return told


async def test_pieces_are_told_once_each_and_the_last_moment_too(redis: Redis) -> None:
    """However many steps it takes: the first entry of each piece in their order, none twice, and the newest of all."""
    assert await history.read(redis, 60 * MINUTE_MS, 60) == []
    every = await write(redis, *range(99, 0, -1), done=3, dead=1)
    read = await history.read(redis, 90 * MINUTE_MS, 45)
    assert read == [every[ago] for ago in (*range(89, 0, -2),)]
    assert await history.read(redis, 90 * MINUTE_MS, 2) == [every[89], every[44], every[1]]
    # pieces that are shorter than a minute begin with the next entry
    assert await history.read(redis, 3 * MINUTE_MS, 30) == [every[2], every[1]]


async def test_entries_of_other_counters_keep_their_names(redis: Redis) -> None:
    """An older version wrote fewer counters, or others: each number is told under the name it was written with."""
    older = await write(redis, 9, 8, done=3)
    newer = await write(redis, 7, 6, dead=5, done=3)
    every = [older[9], older[8], newer[7], newer[6]]
    assert await history.read(redis, 10 * MINUTE_MS, 10) == every

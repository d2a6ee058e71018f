"""The price of remembering: how many bytes of Redis one seen mark costs."""

from __future__ import annotations

from secrets import token_hex

import pytest
from redis.asyncio import Redis

from pipeline import keys, seen
from tests.pipeline.test_moves import mark_all
from tests.pipeline.work import check_books

pytestmark = pytest.mark.anyio

MARKS = 100_000


async def test_a_mark_costs_at_most_24_bytes(redis: Redis) -> None:
    """A hundred thousand marks stay packed integers; with everything around them they cost under 24 bytes each."""
    run = token_hex(4)
    assert await mark_all(redis, [f"{run}-{n}" for n in range(MARKS)]) == MARKS
    assert await seen.remembered(redis) == MARKS
    await redis.delete(keys.queue("forward"), keys.queue("unpack"), keys.BOOKS)
    await check_books(redis)
    with_marks = (await redis.info("memory"))["used_memory_dataset"]
    names = await redis.keys(f"{keys.SEEN}*")
    assert (len(names) - 1) * 512 > MARKS
    await redis.delete(*names)
    without = (await redis.info("memory"))["used_memory_dataset"]
    assert (with_marks - without) / MARKS <= 24

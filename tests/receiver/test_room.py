"""How often the receiver asks for Redis's memory: never later than others could fill it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from pipeline.inbox import Inbox
from receiver import room
from receiver.room import FULL_AT, LONGEST_S, POLL_S, RoomWatch
from tests.pipeline.work import limited_to
from tests.receiver.desk import until

pytestmark = pytest.mark.anyio

#: far more than the tests' server uses by itself
LIMIT = 1_000_000_000


@pytest.fixture
async def limited(redis: Redis) -> AsyncIterator[Redis]:
    """Give the server a limit, for this test only."""
    async with limited_to(redis, LIMIT):
        yield redis


@asynccontextmanager
async def watching(redis: Redis) -> AsyncIterator[RoomWatch]:
    """Let a receiver's watch run."""
    watch = RoomWatch(Inbox(redis))
    running = asyncio.create_task(watch.watch())
    yield watch
    running.cancel()
    await asyncio.wait({running})


async def test_an_answer_is_good_until_others_could_have_filled_the_rest(limited: Redis) -> None:
    """Nobody gets further from one answer to the next than who fills the last 15 % in a quarter of a second."""
    watch = RoomWatch(Inbox(limited))
    assert watch.good_for_s == LONGEST_S
    await watch.look()
    assert watch.good_for_s == LONGEST_S
    a_part = (LIMIT - watch.used_bytes) // 100
    for _ in range(100):
        watch.stored(a_part)  # what this receiver stores counts at once
        used = watch.used_bytes + watch._stored_since
        fastest = (1 - FULL_AT) / POLL_S
        assert used / LIMIT + watch.good_for_s * fastest <= 1.000001
        assert not watch.is_full or watch.good_for_s <= POLL_S


async def test_an_answer_that_is_no_good_any_more_is_replaced(
    limited: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is left alone while the answer is good; what the receiver itself stores ends that."""
    for name, value in (("LONGEST_S", 3600.0), ("POLL_S", 0.01), ("FULL_AT", 0.99999)):
        monkeypatch.setattr(room, name, value)  # with all the room an answer is good for 1000 s
    async with watching(limited) as watch:
        await until(lambda: watch.limit_bytes > 0)
        watch.stored(1)
        await asyncio.sleep(0.1)
        assert watch._stored_since == 1
        watch.stored(LIMIT)
        await until(lambda: watch._stored_since == 0)


async def test_redis_is_asked_again_and_again(
    limited: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others fill is noticed, and so is what they let go."""
    monkeypatch.setattr(room, "POLL_S", 0.01)
    async with watching(limited) as watch:
        await until(lambda: watch.limit_bytes > 0 and not watch.is_full)
        await limited.config_set("maxmemory", 1_000_000)
        await until(lambda: watch.is_full)
        await limited.config_set("maxmemory", LIMIT)
        await until(lambda: not watch.is_full)

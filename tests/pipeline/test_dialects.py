"""Which form of AudienceLab's calls worked is kept for all processes."""

from __future__ import annotations

import logging

import pytest
from redis.asyncio import Redis

from pipeline import dialects, keys

pytestmark = pytest.mark.anyio


async def test_what_worked_last_is_read_again(redis: Redis) -> None:
    """Each call has one dialect, the last that worked, and all are read in the order of their names."""
    keeper = dialects.Keeper(redis)
    keeper.learned("pixel", "observed")
    await keeper.settle()
    keeper.learned("pixel", "documented")
    keeper.learned("enrich", "observed")
    await keeper.settle()
    known = await dialects.read(redis)
    assert list(known.items()) == [("enrich", "observed"), ("pixel", "documented")]


async def test_what_redis_refuses_hinders_nobody(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It is only a try that is saved: what cannot be kept is logged and let go."""
    await redis.set(keys.DIALECTS, "no hash")
    keeper = dialects.Keeper(redis)
    with caplog.at_level(logging.WARNING):
        keeper.learned("pixel", "observed")
        await keeper.settle()
    assert "dialect not kept call=pixel error=ResponseError" in caplog.text

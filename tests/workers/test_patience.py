"""Patience: which refusals of Redis arq's own client lives with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from arq import ArqRedis
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ResponseError

from tests.pipeline.work import full
from workers.patience import Patience, arqs_redis

pytestmark = pytest.mark.anyio

Refusing = Callable[[Redis], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def without_a_replica(redis: Redis) -> AsyncIterator[None]:
    """Have the server refuse writes because it misses a replica, until the block ends."""
    await redis.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        await redis.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def a_replica(redis: Redis) -> AsyncIterator[None]:
    """Let the server be the replica of one that is not there, until the block ends."""
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")


@pytest.fixture
async def arq(redis_url: str) -> AsyncIterator[ArqRedis]:
    """Give arq's own client, as a worker has it."""
    arq = arqs_redis(ConnectionPool.from_url(redis_url), Patience())
    yield arq
    await arq.aclose(close_connection_pool=True)


@pytest.mark.parametrize("refusing", [full, without_a_replica])
async def test_a_sign_of_life_may_be_refused_for_a_while(
    redis: Redis, arq: ArqRedis, refusing: Refusing
) -> None:
    """Nobody reads it: a worker starts and goes on where writes are refused for some time."""
    async with refusing(redis):
        assert await arq.psetex("sign", 1_000, b"alive") is False
    assert await arq.psetex("sign", 1_000, b"alive") is True


async def test_a_worker_does_not_stay_with_a_replica(redis: Redis, arq: ArqRedis) -> None:
    """It would never write again: it ends, and finds the primary when it is started anew."""
    async with a_replica(redis):
        with pytest.raises(ResponseError):
            await arq.psetex("sign", 1_000, b"alive")

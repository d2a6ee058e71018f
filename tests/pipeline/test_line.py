"""The line: its own replies for each caller's commands, whatever happened to the one before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from pipeline.connections import receiver_redis
from pipeline.line import Line
from pipeline.settings import Settings

pytestmark = pytest.mark.anyio


def client_for(url: str, home: Path) -> Redis:
    """Return a client as the receiver has it."""
    return receiver_redis(Settings(redis_url=SecretStr(url), relay_home=home))


async def test_each_command_has_its_own_reply(redis: Redis) -> None:
    """Commands of one call are answered in their order; a refusal is the reply of its command only."""
    line = Line(redis.connection_pool)
    replies = await line.ask([("SET", "key", b"\xff"), ("INCR", "key"), ("GET", "key")])
    assert replies[0] in (b"OK", True)
    assert isinstance(replies[1], ResponseError)
    assert replies[2] == b"\xff"


async def test_one_connection_serves_all_calls(redis: Redis) -> None:
    """A line stays connected between its calls."""
    line = Line(redis.connection_pool)
    assert await line.ask([("CLIENT", "ID")]) == await line.ask([("CLIENT", "ID")])


async def test_a_call_that_was_given_up_leaves_no_reply_behind(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    """Whoever calls after a cancelled call gets its own reply, never the late one of the other."""
    async with client_for(redis_url, tmp_path) as client:
        line = Line(client.connection_pool)
        waiting = asyncio.create_task(line.ask([("BLPOP", "nothing", 0), ("ECHO", "late")]))
        while "blpop" not in [one["cmd"] for one in await redis.client_list()]:
            pass  # asking takes a turn of the loop
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await line.ask([("ECHO", "mine")]) == [b"mine"]


async def test_a_server_that_has_hung_up_is_called_again(redis: Redis, redis_url: str) -> None:
    """After a restart of Redis the first call is served: the line notices before it writes."""
    async with Redis.from_url(redis_url) as client:
        line = Line(client.connection_pool)
        (number,) = await line.ask([("CLIENT", "ID")])
        await redis.execute_command("CLIENT", "KILL", "ID", number)
        assert await line.ask([("ECHO", "again")]) == [b"again"]


async def test_the_pools_end_is_the_lines_end(redis: Redis, redis_url: str) -> None:
    """Who closes the client hangs up; nothing stays open at the server."""
    client = Redis.from_url(redis_url)
    (number,) = await Line(client.connection_pool).ask([("CLIENT", "ID")])
    await client.aclose()
    assert number not in [int(one["id"]) for one in await redis.client_list()]

"""The line: its own replies for each caller's commands, whatever happened to the one before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import uvloop
from pydantic import SecretStr
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ReadOnlyError, ResponseError

from pipeline.connections import Quick, receiver_redis
from pipeline.line import Line, Word
from pipeline.settings import Settings

pytestmark = pytest.mark.anyio


Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
async def own(redis_url: str, tmp_path: Path) -> AsyncIterator[Redis]:
    """Give a client as the receiver has it."""
    settings = Settings(redis_url=SecretStr(redis_url), relay_home=tmp_path)
    async with receiver_redis(settings) as client:
        yield client


async def ask(line: Line, *commands: Sequence[Word]) -> list[object]:
    """Return the replies to *commands*."""
    replies: list[object] = []
    await line.ask(commands, replies)
    return replies


async def test_each_command_has_its_own_reply(redis: Redis) -> None:
    """Commands of one call are answered in their order; a refusal is the reply of its command only."""
    line = Line(redis.connection_pool)
    replies = await ask(line, ("SET", "key", b"\xff"), ("INCR", "key"), ("GET", "key"))
    assert replies[0] in (b"OK", True)
    assert isinstance(replies[1], ResponseError)
    assert replies[2] == b"\xff"


async def test_one_connection_serves_all_calls(redis: Redis) -> None:
    """A line stays connected between its calls."""
    line = Line(redis.connection_pool)
    assert await ask(line, ("CLIENT", "ID")) == await ask(line, ("CLIENT", "ID"))


async def test_callers_at_once_have_their_turns(redis: Redis) -> None:
    """Each of many callers gets the replies to its own commands."""
    line = Line(redis.connection_pool)
    found = await asyncio.gather(*(ask(line, ("ECHO", str(n)), ("ECHO", "x")) for n in range(20)))
    assert found == [[str(n).encode(), b"x"] for n in range(20)]


async def test_a_call_that_was_given_up_leaves_no_reply_behind(redis: Redis, own: Redis) -> None:
    """Whoever calls after a cancelled call gets its own reply; what had come of the other is known."""
    line = Line(own.connection_pool)
    replies: list[object] = []
    commands = [("ECHO", "first"), ("BLPOP", "nothing", 0), ("ECHO", "late")]
    waiting = asyncio.create_task(line.ask(commands, replies))
    while "blpop" not in [one["cmd"] for one in await redis.client_list()] or not replies:
        pass  # asking takes a turn of the loop
    waiting.cancel()
    await asyncio.wait([waiting])
    assert replies == [b"first"]
    assert await ask(line, ("ECHO", "mine")) == [b"mine"]


async def test_a_server_that_has_hung_up_is_called_again(redis: Redis, own: Redis) -> None:
    """After a restart of Redis the first call is served: the line notices before it writes."""
    line = Line(own.connection_pool)
    (number,) = await ask(line, ("CLIENT", "ID"))
    await redis.execute_command("CLIENT", "KILL", "ID", number)
    await redis.ping()
    assert await ask(line, ("ECHO", "again")) == [b"again"]


@pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_a_connection_that_was_reset_is_made_anew(loop: Loop) -> None:
    """A reset (a proxy, a host that was switched off) is no end of file, and is noticed all the same."""

    async def scene() -> list[list[object]]:
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    if line == b"ECHO\r\n":
                        writer.write(b"+answer\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            pool = ConnectionPool(host="127.0.0.1", port=port, lib_name=None, lib_version=None)
            pool.connection_class = type("Own", (Quick, pool.connection_class), {})
            line = Line(pool)
            found = [await ask(line, ("ECHO",))]
            reset(writers[0])
            await until_noticed(line)
            found.append(await ask(line, ("ECHO",)))
            await pool.disconnect()
            await asyncio.gather(*(writer.wait_closed() for writer in writers[1:]))
        return found

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(scene()) == [[b"answer"], [b"answer"]]


async def until_noticed(line: Line) -> None:
    """Wait until the kernel has told this side of the end."""
    assert line._connection is not None
    with contextlib.suppress(ConnectionError):
        await line._connection._reader.read(1)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a host does that knows nothing of it any more."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_a_primary_that_became_a_replica_is_left(redis: Redis, own: Redis) -> None:
    """After a refusal of a replica the next call connects anew: the name may lead elsewhere by now."""
    line = Line(own.connection_pool)
    (number,) = await ask(line, ("CLIENT", "ID"))
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        (refusal,) = await ask(line, ("SET", "key", "value"))
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert isinstance(refusal, ReadOnlyError)
    assert await ask(line, ("CLIENT", "ID")) != [number]


async def test_the_pools_end_is_the_lines_end(redis: Redis, own: Redis) -> None:
    """Who closes the pool hangs up, nothing stays open at the server; a later call connects anew."""
    line = Line(own.connection_pool)
    (number,) = await ask(line, ("CLIENT", "ID"))
    await own.connection_pool.disconnect()
    assert number not in [int(one["id"]) for one in await redis.client_list()]
    assert await ask(line, ("ECHO", "again")) == [b"again"]

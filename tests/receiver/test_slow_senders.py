"""Slow senders against a real server, over raw sockets: whoever holds a connection and sends no request is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import uvicorn
from httpx import AsyncClient
from redis.asyncio import Redis

from pipeline.settings import Settings
from tests.patience import patient_receiver
from tests.receiver.conftest import TOKEN

pytestmark = pytest.mark.anyio

#: far more than anything here takes
PATIENCE_S = 30.0
LINE = f"POST /hooks/events/{TOKEN} HTTP/1.1\r\nHost: relay.test\r\n".encode()
WHOLE = LINE + b"Content-Length: 2\r\n\r\n[]"


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    port: int

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Give a connection, for as long as a test may take."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield reader, writer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def cut_off(self) -> float:
        """Return how many connections were cut off so far."""
        async with AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as client:
            text = (await client.get("/metrics")).text
        return float(text.partition("\nrelay_cut_off_total ")[2].partition("\n")[0])


@pytest.fixture(params=["httptools", "h11"])
async def served(
    request: pytest.FixtureRequest, redis: Redis, make_settings: Callable[..., Settings]
) -> AsyncIterator[Served]:
    """Serve a receiver under each of uvicorn's protocols; a head has 0.2 s to come, a body 0.4 s, a rest 60 s."""
    settings = make_settings()
    app = patient_receiver(settings, read_deadline_s=0.4, head_deadline_s=0.2)
    config = uvicorn.Config(
        app, port=0, http=request.param, log_config=None, access_log=False, timeout_keep_alive=60
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield Served(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await task


async def to_its_end(reader: asyncio.StreamReader) -> bytes:
    """Return all that comes until the server hangs up."""
    got = bytearray()
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            got += piece
    return bytes(got)


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send *data* byte by byte, as long as somebody takes it."""
    with suppress(ConnectionError):
        for n in range(len(data)):
            writer.write(data[n : n + 1])
            await writer.drain()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("sent", [b"", b"POST", LINE, LINE + b"X-Never: en"])
async def test_a_head_that_stops_is_cut_off(served: Served, sent: bytes) -> None:
    """A connection that sends nothing, or the half of a head, is closed without an answer, and counted."""
    async with served.connected() as (reader, writer):
        writer.write(sent)
        assert await to_its_end(reader) == b""
    assert await served.cut_off() == 1


async def test_a_head_that_trickles_is_cut_off(served: Served) -> None:
    """Bytes that come now and then move no deadline."""
    async with served.connected() as (reader, writer):
        sending = asyncio.create_task(trickle(writer, LINE + b"X-Filler: " + b"x" * 10_000))
        assert await to_its_end(reader) == b""
        await sending


async def test_the_second_head_has_no_more_time(served: Served) -> None:
    """After an answer, a head that begins and does not come is cut off too."""
    async with served.connected() as (reader, writer):
        writer.write(WHOLE)
        assert b"HTTP/1.1 202 " in await reader.readuntil(b"}")
        writer.write(b"POST /ho")
        assert await to_its_end(reader) == b""
    assert await served.cut_off() == 1


async def test_a_refused_body_that_trickles_is_cut_off(served: Served) -> None:
    """Who was told 401 and goes on with the body that it announced holds no connection by it."""
    head = b"POST /hooks/events/wrong-token-01234567 HTTP/1.1\r\nHost: relay.test\r\nContent-Length: 60000\r\n\r\n"
    async with served.connected() as (reader, writer):
        writer.write(head)
        sending = asyncio.create_task(trickle(writer, b"1" * 60_000))
        assert (await to_its_end(reader)).startswith(b"HTTP/1.1 401 ")
        await sending


async def test_a_body_that_trickles_is_told_so(served: Served) -> None:
    """A body has its time as a whole: byte by byte it gets 408, and the connection is closed."""
    async with served.connected() as (reader, writer):
        writer.write(LINE + b"Content-Length: 5000\r\n\r\n")
        sending = asyncio.create_task(trickle(writer, b"1" * 5_000))
        assert (await to_its_end(reader)).startswith(b"HTTP/1.1 408 ")
        await sending


async def test_who_rests_between_two_requests_is_left_alone(served: Served) -> None:
    """A kept-alive connection waits as long as the server's own setting says; others are cut off meanwhile."""
    async with served.connected() as (reader, writer), served.connected() as (idle, _):
        writer.write(WHOLE)
        await reader.readuntil(b"}")
        assert await to_its_end(idle) == b""
        writer.write(WHOLE)
        assert b"HTTP/1.1 202 " in await reader.readuntil(b"}")
    assert await served.cut_off() == 1


async def test_many_slow_ones_keep_nobody_out(served: Served) -> None:
    """While a hundred connections send nothing, a delivery is taken; afterwards all of them are gone."""
    slow = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(100)]
    async with served.connected() as (reader, writer):
        writer.write(WHOLE)
        assert b"HTTP/1.1 202 " in await reader.readuntil(b"}")
        for idle, _ in slow:
            assert await to_its_end(idle) == b""
    for _, gone in slow:
        gone.close()
    assert await served.cut_off() == 100

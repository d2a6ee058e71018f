"""A prepared answer is what uvicorn would have sent, in one write; under another server all is as ASGI has it."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver.answers import Prepared, answer

pytestmark = pytest.mark.anyio

START = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n"
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"5"), (b"relay-ack", b"stored")]


class Transport(asyncio.Transport):
    """Remembers each write as it came, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Remember one write."""
        self.written.append(bytes(data))

    def close(self) -> None:
        """Remember the closing as the last thing written."""
        self.is_closed = True
        self.written.append(b"closed")

    def is_closing(self) -> bool:
        """Tell whether it was closed."""
        return self.is_closed

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


async def prepared(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as to a stored delivery."""
    await receive()
    await Prepared(202, HEADERS).send(send, b"hello")


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Give the same answer in ASGI's two messages."""
    await receive()
    await answer(send, 202, HEADERS, b"hello")


async def written_for(
    app: object,
    *requests: bytes,
    access_log: bool = False,
    is_paused: bool = False,
    day: bytes = b"today",
) -> list[bytes]:
    """Return what uvicorn's own protocol writes for *requests* on one connection, write by write."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=access_log)  # type: ignore[arg-type]
    config.load()
    protocol = HttpToolsProtocol(config, uvicorn.server.ServerState(), {})
    protocol.server_state.default_headers = [(b"date", day), (b"server", b"uvicorn")]
    transport = Transport()
    protocol.connection_made(transport)
    for request in requests:
        protocol.data_received(request)
        while tasks := list(protocol.tasks):
            if is_paused:
                protocol.pause_writing()
                await asyncio.wait(tasks, timeout=0.01)
                protocol.resume_writing()
            await asyncio.wait(tasks)
    if protocol.timeout_keep_alive_task:
        protocol.timeout_keep_alive_task.cancel()
    return transport.written


async def test_a_prepared_answer_leaves_at_once() -> None:
    """Head and body are one write, and the same bytes as uvicorn's own two."""
    (whole,) = await written_for(prepared, START + b"\r\n")
    assert whole == b"".join(await written_for(plain, START + b"\r\n"))
    assert whole.startswith(b"HTTP/1.1 202 Accepted\r\ndate: today\r\n")


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([START + b"\r\n"] * 3, id="one after another"),
        pytest.param([(START + b"\r\n") * 3], id="three in one packet"),
        pytest.param([START + b"connection: close\r\n\r\n"], id="the last one"),
        pytest.param([START.replace(b"1.1", b"1.0") + b"\r\n"], id="HTTP/1.0"),
        pytest.param([START + b"expect: 100-continue\r\n\r\n"], id="asks before it sends"),
    ],
)
@pytest.mark.parametrize("access_log", [False, True])
@pytest.mark.parametrize("is_paused", [False, True])
async def test_the_sender_sees_no_difference(
    requests: list[bytes], access_log: bool, is_paused: bool
) -> None:
    """Whatever the connection goes through, the sender gets what uvicorn alone would have sent."""
    ways = [
        await written_for(app, *requests, access_log=access_log, is_paused=is_paused)
        for app in (prepared, plain)
    ]
    assert b"".join(ways[0]) == b"".join(ways[1])
    assert b"hello" in b"".join(ways[0])


async def test_the_date_stays_todays() -> None:
    """The head is made anew when the server's own headers change."""
    ready = Prepared(202, HEADERS)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await ready.send(send, b"hello")

    for day in (b"today", b"tomorrow"):
        (whole,) = await written_for(app, START + b"\r\n", day=day)
        assert b"date: %b\r\n" % day in whole


async def test_another_server_is_left_alone() -> None:
    """A `send` that is not uvicorn's gets its two messages as ASGI has them."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Prepared(202, HEADERS).send(send, b"hello")
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"], sent[0]["headers"], sent[1]["body"]) == (202, HEADERS, b"hello")

"""Answers leave uvicorn in one write; under another server nothing is touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver.answers import answer

pytestmark = pytest.mark.anyio

REQUEST = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n"
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


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


async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the receiver does."""
    await answer(send, 202, HEADERS, b"hello")


async def written_for(request: bytes) -> list[bytes]:
    """Return what uvicorn's own protocol writes for *request*, write by write."""
    config = uvicorn.Config(endpoint, lifespan="off", log_config=None)
    config.load()
    protocol = HttpToolsProtocol(config, uvicorn.server.ServerState(), {})
    transport = Transport()
    protocol.connection_made(transport)
    protocol.data_received(request)
    while tasks := list(protocol.tasks):
        await asyncio.wait(tasks)
    if protocol.timeout_keep_alive_task:
        protocol.timeout_keep_alive_task.cancel()
    return transport.written


async def test_head_and_body_leave_together() -> None:
    """One answer is one write, with the head before the body."""
    (whole,) = await written_for(REQUEST + b"\r\n")
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 202 ")
    assert body == b"hello"


async def test_requests_in_a_row_are_answered_in_their_order() -> None:
    """Two requests that arrive in one packet get two whole answers."""
    written = await written_for((REQUEST + b"\r\n") * 2)
    assert [whole.count(b"hello") for whole in written] == [1, 1]


async def test_the_last_answer_is_written_before_the_connection_closes() -> None:
    """A sender that asked to close gets its answer first."""
    written = await written_for(REQUEST + b"connection: close\r\n\r\n")
    assert written[-1] == b"closed"
    assert b"hello" in written[0]


async def test_another_server_is_left_alone() -> None:
    """A `send` that is not uvicorn's gets its two messages as ASGI has them."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await answer(send, 202, HEADERS, b"hello")
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"], sent[0]["headers"], sent[1]["body"]) == (202, HEADERS, b"hello")


@pytest.fixture(autouse=True)
async def quiet_loop() -> AsyncIterator[None]:
    """Leave no task behind."""
    yield
    await asyncio.sleep(0)

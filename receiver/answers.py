"""Sending an answer over bare ASGI: the frequent one quickly, one given early so that it is read.

A webhook's answer is always the same but for an id, and under uvicorn making it anew is a tenth of what
receiving a webhook costs: its headers are checked one by one, and head and body are two writes, two
packets. `Prepared` has the head ready and hands uvicorn's request cycle all of it at once. Under any
other server, or whenever something is unusual, the answer is sent as ASGI has it.

A server that closes a connection while bytes of the request lie unread makes the kernel reset it,
and the sender sees "connection reset" instead of the 413 it was sent. So an answer given before
the body was read goes out at once, what still comes is thrown away for a short while, and then
the connection closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from starlette.types import Receive, Send

from receiver.problems import Headers

try:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as UvicornsCycle
except ImportError:  # another server, or a uvicorn that has changed: answers leave as ASGI has them
    UvicornsCycle = None  # type: ignore[assignment, misc]

# Long enough for a sender to read the answer over a slow line, short enough to hold no
# connection open.
LINGER_S = 1.0


def note_hang_up(send: Send) -> None:
    """Let a cycle of uvicorn's know that its connection is closed: then it sends nothing.

    Of requests that came together only the last one's is told, and uvloop raises when another one's still writes.
    """
    cycle: Any = getattr(send, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is not None and transport.is_closing():
        cycle.disconnected = True


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer, where somebody is there to read it."""
    note_hang_up(send)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Prepared:
    """An answer to POST whose status and headers are known; *headers* hold its body's length."""

    def __init__(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = headers
        self._defaults: object = None
        self._head = b""

    async def send(self, send: Send, body: bytes) -> None:
        """Send it with *body*, in one write where the server lets us."""
        cycle = getattr(send, "__self__", None)
        if type(cycle) is UvicornsCycle and _is_usual(cycle):
            self._hand_over(cycle, body)
        else:
            await answer(send, self._status, self._headers, body)

    def _hand_over(self, cycle: Any, body: bytes) -> None:
        """Do what uvicorn's cycle does with an answer's two messages."""
        if cycle.default_headers is not self._defaults:  # a new list each second, for the date
            self._defaults = cycle.default_headers
            self._head = _head(self._status, [*cycle.default_headers, *self._headers])
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.chunked_encoding = False
        cycle.transport.write(self._head + body)
        cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()


def _is_usual(cycle: Any) -> bool:
    """Tell whether the sender is there, reads, and goes on; and uvicorn need not log the answer."""
    is_unusual = cycle.access_log or cycle.transport.is_closing() or cycle.flow.write_paused
    return bool(cycle.keep_alive and not is_unusual)


def _head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    return first + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"


async def answer_early(
    receive: Receive, send: Send, status: int, headers: Headers, body: bytes
) -> None:
    """Send an answer whose request was not read to its end, and close the connection after it."""
    note_hang_up(send)
    headers = [*headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _throw_away(receive)
    await send({"type": "http.response.body", "body": b""})


async def _throw_away(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        return

"""Sending an answer: as ASGI has it, or whole; and one given early so that it is read.

A webhook's answer is always the same but for an id, and making it anew is a tenth of what receiving a webhook costs: a
server checks its headers one by one. `Prepared` has the head ready, for a request that is answered whole (`short_way`).

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
        self.status = status
        self.headers = headers
        self._defaults: object = None
        self._head = b""

    def head(self, defaults: Headers) -> bytes:
        """Return its head with the server's own headers, *defaults*, but for the empty line at the end."""
        if defaults is not self._defaults:  # a new list each second, for the date
            self._defaults = defaults
            self._head = head(self.status, [*defaults, *self.headers])
        return self._head


def head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the head of an answer, but for the empty line at its end."""
    first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    return first + b"".join(b"%b: %b\r\n" % header for header in headers)


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

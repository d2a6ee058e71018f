"""Sending an answer over bare ASGI: in one write, and also to a sender that is still talking.

uvicorn writes the head when it is told the status and the body when it gets it: two system calls and
two packets for each answer, a tenth of what receiving a webhook costs. While an answer is sent, its
cycle's transport is replaced by one that collects, and what was collected is written at the end.
Under any other server, or another protocol of uvicorn's, the answer is sent as usual.

A server that closes a connection while bytes of the request lie unread makes the kernel reset it,
and the sender sees "connection reset" instead of the 413 it was sent. So an answer given before
the body was read goes out at once, what still comes is thrown away for a short while, and then
the connection closes.
"""

from __future__ import annotations

import asyncio
from asyncio import Transport

from starlette.types import Receive, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from receiver.problems import Headers

# Long enough for a sender to read the answer over a slow line, short enough to hold no
# connection open.
LINGER_S = 1.0


class Collected:
    """Stands in for a transport while one answer is sent."""

    __slots__ = ("_parts", "_transport", "write")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self.write = self._parts.append

    def leave(self) -> None:
        """Write everything."""
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def close(self) -> None:
        """Close the connection, as uvicorn does after the last answer of one."""
        self.leave()
        self._transport.close()


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer, in one write where the server lets us."""
    start = {"type": "http.response.start", "status": status, "headers": headers}
    rest = {"type": "http.response.body", "body": body}
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle:
        await send(start)
        await send(rest)
        return
    transport = cycle.transport
    collected = Collected(transport)
    cycle.transport = collected  # type: ignore[assignment] # it has what the cycle needs of one
    try:
        await send(start)
        await send(rest)
    finally:
        cycle.transport = transport
        collected.leave()


async def answer_early(
    receive: Receive, send: Send, status: int, headers: Headers, body: bytes
) -> None:
    """Send an answer whose request was not read to its end, and close the connection after it."""
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

"""An answer's head and body in one write to the socket.

uvicorn writes the head when it is told the status and the body when it gets it: two system calls and
two packets for each answer, a tenth of what receiving a webhook costs. While an answer is sent, its
cycle's transport is replaced by one that collects, and what was collected is written at the end.
Under any other server, or another protocol of uvicorn's, the answer is sent as usual.
"""

from __future__ import annotations

from asyncio import Transport

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


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


async def send_whole(send: Send, start: Message, body: Message) -> None:
    """Send an answer of two messages, in one write where the server lets us."""
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle:
        await send(start)
        await send(body)
        return
    transport = cycle.transport
    collected = Collected(transport)
    cycle.transport = collected  # type: ignore[assignment] # it has what the cycle needs of one
    try:
        await send(start)
        await send(body)
    finally:
        cycle.transport = transport
        collected.leave()

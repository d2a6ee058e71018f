"""Sending an answer over bare ASGI, also to a sender that is still talking.

A server that closes a connection while bytes of the request lie unread makes the kernel reset it,
and the sender sees "connection reset" instead of the 413 it was sent. So an answer given before
the body was read goes out at once, what still comes is thrown away for a short while, and then
the connection closes.
"""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Send

from receiver.one_write import send_whole
from receiver.problems import Headers

# Long enough for a sender to read the answer over a slow line, short enough to hold no
# connection open.
LINGER_S = 1.0


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    await send_whole(
        send,
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    )


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

"""`python -m bench.sink`: takes batches of events as AudiencePoint does, and does nothing with them.

It answers at once and keeps the bodies; `GET /` tells how many batches and events came and how many of
them are different, which is counted only then, and when the last one came.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import cast

import orjson
import uvloop

_RECEIPT = orjson.dumps({"SequenceNumber": "4" * 56, "ShardId": "shardId-000000000000"})


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


_TAKEN = _answer(_RECEIPT)


class Connection(asyncio.Protocol):
    """One connection of a worker."""

    def __init__(self, bodies: list[bytes], last: list[float]) -> None:
        self._bodies = bodies
        self._last = last
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports only look like asyncio's
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._buffer += data
        while request := self._next():
            head, body = request
            if head.startswith(b"GET"):
                counts = {**_counts(self._bodies), "last_at": self._last[0]}
                self._transport.write(_answer(orjson.dumps(counts)))
            else:
                self._bodies.append(body)
                self._last[0] = time.time()
                self._transport.write(_TAKEN)

    def _next(self) -> tuple[bytes, bytes] | None:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        _, _, after = head.lower().partition(b"content-length:")
        length = int(after.partition(b"\r\n")[0] or 0)
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return head, rest[:length]


def _counts(bodies: list[bytes]) -> dict[str, int]:
    events = [item["send_id"] for body in bodies for item in orjson.loads(body)["events"]]
    return {"batches": len(bodies), "events": len(events), "different": len(set(events))}


async def serve() -> None:
    """Serve until told to stop."""
    bodies: list[bytes] = []
    last = [0.0]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(bodies, last), "127.0.0.1", 0)
    stopped = asyncio.Event()
    # by name: a shell lets its background jobs ignore SIGINT, and a child inherits that
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())

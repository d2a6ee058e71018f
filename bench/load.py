"""`python -m bench.load`: posts the same request over many connections, as fast as it is answered.

It shares the machine with what it measures, so it does little: the request is made once, an answer is
known by its length and its status. At the end it sends nothing new and waits for what
is on the way, so that what was answered can be held against what was stored.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import orjson
import uvloop

_HEAD_ENDS = b"\r\n\r\n"


class Tally:
    """What all connections have seen."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.answered = 0
        self.put_off = 0
        self.refused = 0
        self.lost = 0
        self.took_s: list[float] = []


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request on the way at a time."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._length = 0
        self._buffer = b""
        self._began = 0.0
        self._waits = False
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        # uvloop's transports only look like asyncio's
        self._transport = cast("asyncio.Transport", transport)
        self._send(self._loop.time())

    def _send(self, now: float) -> None:
        self._began = now
        self._waits = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count an answer once it is whole, and send the next request."""
        if self._buffer:
            data = self._buffer + data
        if len(data) != self._length and not self._is_whole(data):
            self._buffer = data
            return
        self._buffer = b""
        tally, now = self._tally, self._loop.time()
        tally.took_s.append(now - self._began)
        if data[9] == 0x32:  # "HTTP/1.1 2.."
            tally.answered += 1
        elif data[9:12] == b"503":
            tally.put_off += 1
        else:
            tally.refused += 1
        self._waits = False
        if now < tally.until:
            self._send(now)
        else:
            self._transport.close()

    def _is_whole(self, data: bytes) -> bool:
        """Find out how long the answer is; the answers of one server are all of one length."""
        head, found, body = data.partition(_HEAD_ENDS)
        if not found:
            return False
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if len(body) < length:
            return False
        self._length = len(data)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Note whether the server hung up with a request unanswered."""
        self._tally.lost += self._waits
        if not self.ended.done():
            self.ended.set_result(None)


async def post(port: int, request: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Post for *seconds*; return counts, the time it really took, and percentiles in ms."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tally = Tally(began + seconds)
    pairs = await asyncio.gather(
        *(
            loop.create_connection(lambda: Connection(request, tally), "127.0.0.1", port)
            for _ in range(connections)
        )
    )
    async with asyncio.timeout(seconds + 20):
        await asyncio.gather(*(connection.ended for _, connection in pairs))
    took = sorted(tally.took_s) or [0.0]
    return {
        "answered": tally.answered,
        "put_off": tally.put_off,
        "refused": tally.refused,
        "lost": tally.lost,
        "seconds": loop.time() - began,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
    }


def main() -> None:
    """Read what to do from stdin, print what came of it."""
    task = orjson.loads(sys.stdin.buffer.read())
    request = task["request"].encode("latin-1")
    found = uvloop.run(post(task["port"], request, task["connections"], task["seconds"]))
    sys.stdout.buffer.write(orjson.dumps(found) + b"\n")


if __name__ == "__main__":
    main()

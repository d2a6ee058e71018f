"""`python -m bench.load`: posts the same request over many connections, as fast as it is answered.

It shares the machine with what it measures, so it does little: the request is made once, an answer is
known by its length and its status. At the end it sends nothing new and waits for what
is on the way, so that what was answered can be held against what was stored.

With a *rate* it posts at fixed moments instead, whatever the answers do (an open loop). A request that is due while
no connection is free waits, and each is timed from the moment it was due: a server that stalls is charged for all
that came meanwhile. With *numbers* each request is another one: its marks are replaced by the next number.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import orjson
import uvloop

_HEAD_ENDS = b"\r\n\r\n"
#: stands for the number, in as many digits
MARK = "@" * 9
# the timers of the loop are no finer
_TICK_S = 0.001


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
        self._begin(self._loop.time())

    def _begin(self, now: float) -> None:
        self._send(now)  # even when connecting took all the time there was

    def _go_on(self, now: float) -> None:
        """Send the next request, if there is one."""
        if now < self._tally.until:
            self._send(now)
        else:
            self.close()

    def _send(self, began: float) -> None:
        self._began = began
        self._waits = True
        self._transport.write(self._request)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

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
        self._go_on(now)

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


class Numbered(Connection):
    """Sends each number once."""

    def __init__(self, request: bytes, tally: Tally, numbers: Iterator[int]) -> None:
        super().__init__(request, tally)
        self._numbers = numbers
        self._parts = request.split(MARK.encode())

    def _begin(self, now: float) -> None:
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        number = next(self._numbers, None)
        if number is None:
            self.close()
            return
        self._request = (b"%0*d" % (len(MARK), number)).join(self._parts)
        self._send(now)


class Paced(Connection):
    """Sends what is due."""

    def __init__(self, request: bytes, tally: Tally, pace: Pace) -> None:
        super().__init__(request, tally)
        self._pace = pace

    def _begin(self, now: float) -> None:
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        if self._pace.overdue:
            self._send(self._pace.overdue.popleft())
        else:
            self._pace.idle.append(self)

    def send_due(self, due: float) -> None:
        """Send what was *due* at that moment."""
        self._send(due)


class Pace:
    """The moments at which requests are due: *rate* a second, the same time apart."""

    def __init__(self) -> None:
        self.idle: list[Paced] = []
        self.overdue: deque[float] = deque()

    async def keep(self, rate: float, seconds: float, connections: int) -> None:
        """Give each request that is due to a connection that is free; end when all are answered."""
        loop = asyncio.get_running_loop()
        began, given, total = loop.time(), 0, int(rate * seconds)
        while given < total:
            now_due = min(total, int((loop.time() - began) * rate) + 1)
            for number in range(given, now_due):
                due = began + number / rate
                if self.idle:
                    self.idle.pop().send_due(due)
                else:
                    self.overdue.append(due)
            given = now_due
            await asyncio.sleep(_TICK_S)
        while len(self.idle) < connections:  # noqa: ASYNC110 - it looks like the loop above
            await asyncio.sleep(_TICK_S)
        for connection in self.idle:
            connection.close()


async def post(
    port: int,
    request: bytes,
    connections: int,
    seconds: float,
    rate: float = 0.0,
    numbers: tuple[int, int] | None = None,
) -> dict[str, float]:
    """Post for *seconds*; return counts, the time it really took, and percentiles in ms."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tally, pace = Tally(began + seconds), Pace()
    make: Callable[[], Connection] = partial(Connection, request, tally)
    if rate:
        make = partial(Paced, request, tally, pace)
    elif numbers:
        make = partial(Numbered, request, tally, iter(range(*numbers)))
    pairs = await asyncio.gather(
        *(loop.create_connection(make, "127.0.0.1", port) for _ in range(connections))
    )
    async with asyncio.timeout(seconds + 20):
        if rate:
            await pace.keep(rate, seconds, connections)
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
    task["request"] = task["request"].encode("latin-1")
    found = uvloop.run(post(**task))
    sys.stdout.buffer.write(orjson.dumps(found) + b"\n")


if __name__ == "__main__":
    main()

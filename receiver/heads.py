"""Heads: cutting off connections on which no request comes to be.

uvicorn gives a connection that has had an answer `--timeout-keep-alive` seconds, and all the time in the world to one
that sends nothing, or the head of a request byte by byte. A few thousand of these are all the file descriptors that
a process has. So whoever has not completed a head `deadline_s` after it was due is cut off, without an answer: due
from the connection's beginning, and later from the first byte after an answer. A connection that rests between two
requests is uvicorn's to close, and a body's deadline is kept in `bodies`.

The app never sees such a connection, and ASGI knows none: `servers` finds them. docs/decisions/0017.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from receiver import servers
from receiver.metrics import Metrics


class Heads:
    """Watches the connections of this loop's servers."""

    def __init__(self, deadline_s: float, metrics: Metrics) -> None:
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._due: dict[Any, tuple[object, float]] = {}

    async def watch(self) -> None:
        """Look for ever, now and then: a timer for each connection would be paid for by every good one."""
        while True:
            await asyncio.sleep(min(1.0, self._deadline_s / 4))
            self._look(asyncio.get_running_loop(), monotonic())

    def _look(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        due: dict[Any, tuple[object, float]] = {}
        for connection in servers.connections(loop):
            if hasattr(
                connection, "go_on"
            ):  # `ShortWay`: its head is there, and its body is waited for
                connection.go_on()
            if not _owes(connection):
                continue
            answered, since = self._due.get(connection, (None, now))
            # since another answer, it is another head that is due
            since = since if answered is connection.cycle else now
            due[connection] = (connection.cycle, since)
            if now - since >= self._deadline_s:
                self._metrics.cut_off += 1
                connection.transport.abort()
        self._due = due


def _owes(connection: Any) -> bool:
    """Tell whether a head is what comes next on *connection*."""
    cycle = connection.cycle
    is_answered = cycle is None or cycle.response_complete
    rests = getattr(connection, "rests", connection.timeout_keep_alive_task is not None)
    return is_answered and not rests

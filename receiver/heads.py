"""Heads: cutting off connections on which no request comes to be.

uvicorn gives a connection that has had an answer `--timeout-keep-alive` seconds, and all the time in the world to one
that sends nothing, or the head of a request byte by byte. A few thousand of these are all the file descriptors that
a process has. So whoever has not completed a head `deadline_s` after it was due is cut off, without an answer: due
from the connection's beginning, and later from the first byte after an answer. A connection that rests between two
requests is uvicorn's to close, and a body's deadline is kept in `bodies`.

The app never sees such a connection, and ASGI knows none. So `find_servers` puts a line around `connection_made` of
uvicorn's two protocols, by which their servers, and all their connections, are known. Under another server nothing is
found, and nothing is cut off: docs/decisions/0017.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import wraps
from time import monotonic
from typing import Any
from weakref import WeakSet

from receiver.metrics import Metrics

_servers: WeakSet[Any] = WeakSet()


def find_servers() -> None:
    """Get to know every uvicorn server of this process by its first connection; again changes nothing."""
    for protocol in _protocols():
        made = protocol.connection_made
        if hasattr(made, "__wrapped__"):
            continue
        protocol.connection_made = _noting_the_server(made)


def _protocols() -> list[Any]:
    found: list[Any] = []
    try:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        found.append(H11Protocol)
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        found.append(HttpToolsProtocol)
    except ImportError:  # another server, or one without httptools
        pass
    return found


def _noting_the_server(made: Any) -> Any:
    @wraps(made)
    def connection_made(self: Any, transport: Any) -> None:
        _servers.add(self.server_state)
        made(self, transport)

    return connection_made


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
        for connection in _connections(loop):
            answered, since = self._due.get(connection, (None, now))
            # since another answer, it is another head that is due
            since = since if answered is connection.cycle else now
            due[connection] = (connection.cycle, since)
            if now - since >= self._deadline_s:
                self._metrics.cut_off += 1
                connection.transport.abort()
        self._due = due


def _connections(loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Yield the connections that owe a head."""
    for server in list(_servers):
        for connection in list(server.connections):
            # websockets are connections too, and none of ours
            if getattr(connection, "loop", None) is not loop or not hasattr(connection, "cycle"):
                continue
            cycle = connection.cycle
            is_answered = cycle is None or cycle.response_complete
            if is_answered and connection.timeout_keep_alive_task is None:
                yield connection

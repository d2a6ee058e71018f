"""Servers: what ASGI does not tell about uvicorn's connections, and those that go the short way.

`find` puts a line around `connection_made` of uvicorn's two protocols. By it their servers, and all their connections,
are known, and a connection of an app that takes whole requests is handed over to the protocol that offers them
(`short_way`). Under another server nothing is found: no connection is cut off (`heads`), and all goes as ASGI has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import wraps
from typing import Any
from weakref import WeakSet

_servers: WeakSet[Any] = WeakSet()


def find() -> None:
    """Get to know every uvicorn server of this process by its first connection; again changes nothing."""
    try:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        _wrap(H11Protocol, _noting_the_server)
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        _wrap(HttpToolsProtocol, _handing_over)
    except ImportError:  # another server, or one without httptools
        return


def connections(loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Yield the connections of *loop* that speak HTTP."""
    for server in list(_servers):
        for connection in list(server.connections):
            # websockets are connections too, and none of ours
            if getattr(connection, "loop", None) is loop and hasattr(connection, "cycle"):
                yield connection


def _wrap(protocol: Any, how: Any) -> None:
    if not hasattr(protocol.connection_made, "__wrapped__"):
        protocol.connection_made = how(protocol.connection_made)


def _noting_the_server(made: Any) -> Any:
    @wraps(made)
    def connection_made(self: Any, transport: Any) -> None:
        _servers.add(self.server_state)
        made(self, transport)

    return connection_made


def _handing_over(made: Any) -> Any:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from receiver.short_way import ShortWay, taker_of

    noted = _noting_the_server(made)

    @wraps(made)
    def connection_made(self: Any, transport: Any) -> None:
        taker = taker_of(self.config) if type(self) is HttpToolsProtocol else None
        if taker is None:
            noted(self, transport)
            return
        ours = ShortWay(
            taker, config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        transport.set_protocol(ours)
        ours.connection_made(transport)

    return connection_made

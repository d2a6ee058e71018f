"""The short way: a request that has come whole is taken, and answered, without a task of its own.

ASGI makes a task for each request: it waits for the body, then for the flush, and sends an answer of two messages. With
all that is made for it, that is half of what receiving a webhook costs. Yet a webhook is a few kilobytes, and nothing
else is waited for until it is stored. So `ShortWay`, which is uvicorn's own protocol but for the moment at which a
request is begun, waits until it has come whole, and offers it to the app (`Taker.take`). What the app does not take,
what is large, and who lets the rest of a body be waited for (`heads`) is begun as ASGI has it, and nothing has been
done to it before: docs/decisions/0012.

uvicorn makes a connection's protocol before the app can have a say in it. So the connections of an app that takes
requests are handed over when they are made (`servers`), as uvicorn itself hands those over that become websockets.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)


@runtime_checkable
class Taker(Protocol):
    """An app that takes whole requests."""

    def take(self, whole: Whole) -> bool:
        """Take *whole*, which is answered once then, now or later; or say that it goes on as ASGI has it."""


def taker_of(config: Config) -> Taker | None:
    """Return the app that takes whole requests, where uvicorn does nothing between them and it.

    Its own middleware only says who the client is, which matters to none that is taken.
    """
    app: object = config.loaded_app
    while isinstance(app, ProxyHeadersMiddleware):
        app = app.app
    has_to_see_it = config.access_log or config.limit_concurrency is not None
    return app if isinstance(app, Taker) and not has_to_see_it else None


class _Nobody:
    """Where uvicorn wakes the task of a request; there is none."""

    def set(self) -> None:
        """Do nothing."""


class Whole:
    """A request that has come whole, and the place of its answer; to uvicorn it is the connection's cycle."""

    __slots__ = (
        *("_connection", "body", "disconnected", "headers", "keep_alive", "method", "response_complete"),
        "url",
    )  # fmt: skip
    message_event = _Nobody()

    def __init__(
        self,
        connection: ShortWay,
        method: bytes,
        url: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        self._connection = connection
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Return what uvicorn says in every answer: a new list each second."""
        return self._connection.server_state.default_headers

    @property
    def server(self) -> tuple[str, int | None] | None:
        """Return the server's address and port, as a scope has them."""
        return self._connection.server

    def answer(self, head: bytes, body: bytes) -> None:
        """Send an answer, if somebody is still there; *head* ends with the last header's line."""
        self.response_complete = True
        connection = self._connection
        transport = connection.transport
        if transport.is_closing():
            return
        if self.keep_alive:
            transport.write(head + b"\r\n" + body)
        else:  # the server ends
            transport.write(head + b"connection: close\r\n\r\n" + body)
            transport.close()
        connection.on_response_complete()


class ShortWay(HttpToolsProtocol):
    """A connection whose requests are offered to *taker* once they are whole."""

    def __init__(self, taker: Taker, **options: Any) -> None:
        super().__init__(**options)
        self._taker = taker
        # what has come of a body while it may yet come whole, and its size; None: uvicorn has begun the request
        self._pieces: list[bytes] | None = None
        self._size = 0
        # by the loop's clock; None while a request comes or is answered
        self._rests_since: float | None = None

    def on_message_begin(self) -> None:
        """Note where a request begins; uvicorn makes its scope here, which nobody may need."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Wait for the body, unless the sender waits too, or the request has to wait for the one before it."""
        cycle = self.cycle
        is_busy = cycle is not None and not cycle.response_complete
        if is_busy or self.expect_100_continue or self.parser.should_upgrade():
            self._begin()
        else:
            self._pieces, self._size = [], 0

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self._pieces is None:
            super().on_body(body)
        else:
            self._pieces.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        """Offer the request."""
        if self._pieces is not None:
            if self._is_taken(self._pieces):
                self._pieces = None
                return
            self.go_on()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Read on; a body that gets large is not waited for."""
        super().data_received(data)
        if self._pieces is not None and self._size > HIGH_WATER_LIMIT:
            self.go_on()

    def shutdown(self) -> None:
        """Answer what comes at this moment, and hang up."""
        self.go_on()
        super().shutdown()

    def on_response_complete(self) -> None:
        """Do what uvicorn does after an answer; but one timer of a connection serves all of its rests."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._rests_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def _look_after(self, seconds: float) -> None:
        handler = self.timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(seconds, handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has rested for so long, or look again when it will have."""
        self.timeout_keep_alive_task = None
        if self._rests_since is None:
            return
        left_s = self._rests_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._look_after(left_s)
        else:
            super().timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        """Note that it does not rest: uvicorn would take its timer away here."""
        self._rests_since = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the timer away."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    @property
    def rests(self) -> bool:
        """Whether it was answered, and nothing has come since."""
        return self._rests_since is not None

    def go_on(self) -> None:
        """Let the request whose body is waited for, if there is one, be begun as ASGI has it."""
        if self._pieces is not None:
            pieces, self._pieces = self._pieces, None
            if not self.transport.is_closing():
                self._begin()
                for piece in pieces:
                    super().on_body(piece)

    def _is_taken(self, pieces: Sequence[bytes]) -> bool:
        parser = self.parser
        if not parser.should_keep_alive() or parser.get_http_version() != "1.1":
            return False
        whole = Whole(self, parser.get_method(), self.url, self.headers, b"".join(pieces))
        try:
            if not self._taker.take(whole):
                return False
        except Exception as error:
            # without its words, which may quote the request; whatever it was, the longer way says so as well
            log.error("not taken whole: %s", type(error).__name__)  # noqa: TRY400
            return False
        self.cycle = whole  # type: ignore[assignment] # what uvicorn asks of it, it answers
        return True

    def _begin(self) -> None:
        """Let uvicorn begin the request, by all that it would know of it."""
        url, headers, expects_100 = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects_100
        self.headers.extend(headers)
        super().on_headers_complete()

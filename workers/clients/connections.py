"""httpx's requests over aiohttp's connections: a call costs a third of the processor time (decision 0031).

Failures are told as httpx's own transport tells them: its exceptions for connecting are raised only for what failed
before the request was written.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

#: Bytes of one line of an answer's head; aiohttp's own 8 190 are less than gateways send.
MOST_HEAD_LINE_BYTES = 64 * 1024


class Client(httpx.AsyncClient):
    """httpx's client without what no call of ours needs, and what costs as much as the call.

    It knows no authentication, cookies, redirects, proxies, time-outs of one call or hooks: a request goes to the
    connections as it is.
    """

    def __init__(self, connections: Connections) -> None:
        super().__init__(transport=connections)
        self._connections = connections

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **_: object
    ) -> httpx.Response:
        """Send *request* once; read the body, too, unless it is to be a *stream*."""
        response = await self._connections.handle_async_request(request)
        response.request = request
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response


class Connections(httpx.AsyncBaseTransport):
    """Keep-alive connections to any host, at most so many at a time; opened when they are needed."""

    def __init__(
        self, certificates: ssl.SSLContext, timeout: httpx.Timeout, most: int, keep_s: float
    ) -> None:
        """Connect nothing yet. An unused connection is kept for *keep_s*.

        What *timeout* allows for writing is not heeded: who calls has a deadline for the whole.
        """
        self._certificates = certificates
        waits = (timeout.pool, timeout.connect)
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=None if None in waits else sum(each or 0 for each in waits),
            sock_connect=timeout.connect,
            sock_read=timeout.read,
        )
        self._most = most
        self._keep_s = keep_s
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Write *request*, whose body is read already, and return the answer as soon as its head is there."""
        if self._session is None:
            self._session = self._open()
        headers = [
            (name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw
        ]
        try:
            answer = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=headers,
                data=request.content or None,
                allow_redirects=False,
            )
        except aiohttp.ClientError as error:
            raise _in_httpx_words(error) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer))

    async def aclose(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        """Return a session, which belongs to the loop that runs."""
        return aiohttp.ClientSession(
            connector=_Connector(
                limit=self._most, keepalive_timeout=self._keep_s, ssl=self._certificates
            ),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            max_line_size=MOST_HEAD_LINE_BYTES,
            max_field_size=MOST_HEAD_LINE_BYTES,
        )


class _Connector(aiohttp.TCPConnector):
    """Finds out before each call whether the server has hung up meanwhile.

    aiohttp learns of it in a turn of the loop that a waiting call does not wait for; the call would fail, and leave
    in doubt whether it was carried out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used = WeakSet[ResponseHandler]()

    async def connect(self, *args: Any, **options: Any) -> Connection:
        """Return a new connection, or one on which nothing has come since its last answer."""
        while True:
            connection = await super().connect(*args, **options)
            protocol = connection.protocol
            # on a new one TLS may have said something already
            if protocol is None or protocol not in self._used:
                break
            if not _has_come(connection.transport):
                return connection
            connection.close()
        if protocol is not None:
            self._used.add(protocol)
        return connection


def _has_come(transport: asyncio.Transport | None) -> bool:
    """Tell whether the end of a connection, or whatever else, waits to be read."""
    connected = transport.get_extra_info("socket") if transport is not None else None
    if connected is None or connected.fileno() < 0:
        return True
    waiting = select.poll()
    waiting.register(connected.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


class _Body(httpx.AsyncByteStream):
    """The body of an answer as it comes; what is not read to its end closes the connection."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._answer.content.iter_any():
                yield part
        except aiohttp.ClientError as error:
            raise _in_httpx_words(error) from error

    async def aclose(self) -> None:
        """Give the connection back; close it where something is unread."""
        self._answer.close()


def _in_httpx_words(error: aiohttp.ClientError) -> httpx.TransportError:
    """Return the exception of httpx that says the same as *error*."""
    words = str(error)
    match error:
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return httpx.UnsupportedProtocol(words)
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(words)
        # names, refusals, handshakes, certificates; what breaks later is a ClientOSError
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError(words)
        case aiohttp.ServerTimeoutError():
            return httpx.ReadTimeout(words)
        case aiohttp.ClientOSError():
            return httpx.ReadError(words)
    return httpx.RemoteProtocolError(words)

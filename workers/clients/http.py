"""The one place that speaks HTTP to a vendor, and the only one that sees httpx and its exceptions.

What may go wrong is told apart by one question: can the request have been carried out? Before it is
written (name, connection, TLS, pool) it cannot; after that it may have been, whatever became of the
answer. Nothing is retried here: that is decided in `workers.fates`.

A request is built straight from a URL and a header list made once, not by the client's
`build_request`, which merges URL, headers, cookies and parameters each time. `sniffio` should be
installed: without it httpcore looks for it on disk four times a call, a third of the cost of a
small POST.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from http.cookiejar import CookieJar

import httpx

from workers.clients.errors import CallFailed, Misconfigured, Unavailable
from workers.clients.messages import Answer, Request

#: Seconds. API Gateway gives up on its backend after 29, so 30 sees its 504.
TIMEOUT = httpx.Timeout(connect=5.0, read=30.0, write=10.0, pool=5.0)

#: Seconds for a whole call. The read time-out alone never ends an answer that comes in drops.
DEADLINE_S = 45.0

#: Bytes. The largest enrichment seen is far below; an endless answer must not fill the memory.
MOST_ANSWER_BYTES = 16 * 1024 * 1024

_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")

_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")

_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    # the body was not written to its end, so no server can have acted on it
    httpx.WriteTimeout,
    httpx.LocalProtocolError,
)


def new_client(
    timeout: httpx.Timeout = TIMEOUT, *, most_connections: int = 32
) -> httpx.AsyncClient:
    """Return a client for `VendorHttp`: keep-alive, no redirects, no HTTP/2; the caller closes it.

    Proxies and certificates of the environment are respected (corporate networks need that), but
    loopback, where the sandbox lives, is never reached through a proxy.
    """
    # Both write URLs at INFO or headers at DEBUG.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    return httpx.AsyncClient(
        timeout=timeout,
        limits=httpx.Limits(
            max_connections=most_connections,
            max_keepalive_connections=most_connections,
            # httpx's own value; few servers close sooner, so few calls meet a closing connection
            keepalive_expiry=5.0,
        ),
        mounts=dict.fromkeys(_LOOPBACK),
        cookies=_NoCookies(),
        follow_redirects=False,
        http2=False,
        trust_env=True,
    )


class _NoCookies(CookieJar):
    """Keeps nothing: no call needs a gateway's cookie, and calls stay independent of each other."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Leave the cookies of *response* where they are."""


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]


class VendorHttp:
    """Carries requests to one vendor over a shared client."""

    def __init__(
        self,
        vendor: str,
        base_url: str,
        headers: Mapping[str, str],
        client: httpx.AsyncClient,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Make the header list. Raises `ValueError` for a value that cannot stand in a header."""
        for name, value in headers.items():
            if not _HEADER_VALUE.fullmatch(value):
                # the value is a key: it is not shown
                raise ValueError(f"{vendor}: the value of {name} cannot stand in an HTTP header")
        self._vendor = vendor
        self._base_url = base_url.rstrip("/")
        self._client = client
        self._deadline_s = deadline_s
        self._urls: dict[str, httpx.URL] = {}
        self._headers = [
            (b"Accept", b"*/*"),
            # Answers are small: not worth unpacking, and nothing can swell.
            (b"Accept-Encoding", b"identity"),
            (b"Connection", b"keep-alive"),
            (b"Content-Type", b"application/json"),
            (b"User-Agent", b"audience-relay"),
            *_encoded(headers),
        ]

    async def send(self, request: Request) -> Answer:
        """Send *request* once and return the answer, whatever its status.

        Raises `Unavailable` when no whole answer came, `Misconfigured` for an unusable base URL.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._exchange(request)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(error) from None

    async def _exchange(self, request: Request) -> Answer:
        """Write the request, read the whole answer, give the connection back."""
        response = await self._client.send(
            httpx.Request(
                request.method,
                self._url(request.path),
                headers=[*self._headers, *_encoded(request.headers)],
                content=request.body,
            ),
            stream=True,
        )
        try:
            body = await self._read(response)
        finally:
            await response.aclose()
        headers = {
            name.lower().decode("latin-1"): value.decode("latin-1")
            for name, value in response.headers.raw
        }
        return Answer(response.status_code, headers, body)

    async def _read(self, response: httpx.Response) -> bytes:
        """Return the body, or give up on one that is too long."""
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > MOST_ANSWER_BYTES:
                raise Unavailable(
                    f"{self._vendor} answered more than {MOST_ANSWER_BYTES} bytes",
                    status=response.status_code,
                    maybe_stored=True,
                )
            parts.append(part)
        return b"".join(parts)

    def _url(self, path: str) -> httpx.URL:
        """Return the parsed URL of *path*; there are only a handful, so each is parsed once."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(f"{self._base_url}/{path.lstrip('/')}")
        return url

    def _failed(self, error: Exception) -> CallFailed:
        """Translate what httpx raised.

        Only its words about connecting are quoted: others may hold pieces of request or answer.
        """
        name = type(error).__name__
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            setting = f"{self._vendor.upper()}_BASE_URL"
            return Misconfigured(f"{self._vendor} has no usable address: check {setting}")
        if isinstance(error, httpx.ConnectError):
            return Unavailable(f"{self._vendor} cannot be reached ({name}: {str(error)[:200]})")
        if isinstance(error, _NEVER_SENT):
            return Unavailable(f"{self._vendor} cannot be reached ({name})")
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return Unavailable(f"{self._vendor} did not answer in time ({name})", maybe_stored=True)
        return Unavailable(f"{self._vendor} broke off the exchange ({name})", maybe_stored=True)

"""The one place that speaks HTTP to a vendor, and the only one that sees httpx and its exceptions.

What may go wrong is told apart by one question: can the request have been carried out? Before it is
written (name, connection, TLS, pool) it cannot; after that it may have been, whatever became of the
answer. Nothing is retried here, that is decided in `workers.fates`; only a GET or DELETE whose connection
breaks is sent once more, by aiohttp: a DELETE that had been carried out is then answered 404.

A request is built straight from a URL and a header list made once, not by the client's
`build_request`, which merges URL, headers, cookies and parameters each time. Where no proxy of the
environment stands between, it goes over `connections`; behind one over httpx's own, for which `sniffio`
should be installed: without it httpcore looks for it on disk four times a call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from http.cookiejar import CookieJar
from ipaddress import IPv6Address, ip_address
from time import monotonic
from urllib.parse import quote
from urllib.request import getproxies

import httpx

from pipeline import loopback
from workers.clients.connections import Client, Connections
from workers.clients.errors import (
    CallFailed,
    Misconfigured,
    NotFound,
    Rejected,
    TimedOut,
    Unavailable,
)
from workers.clients.messages import Answer, RateLimit, Request

#: Seconds. API Gateway gives up on its backend after 29, so 30 sees its 504.
TIMEOUT = httpx.Timeout(connect=5.0, read=30.0, write=10.0, pool=5.0)

#: Seconds for which an unused connection is kept; few servers close sooner, so few calls meet a closing one.
KEEP_S = 5.0

#: Seconds for a whole call. The read time-out alone never ends an answer that comes in drops.
DEADLINE_S = 45.0

#: Bytes. The largest enrichment seen is far below; an endless answer must not fill the memory.
MOST_ANSWER_BYTES = 16 * 1024 * 1024

#: Parsed URLs that are kept. The flow uses a handful, over and over; pages and ids come and go.
MOST_URLS = 64

#: Characters of a header's value that no sentence repeats.
SHORTEST_SECRET = 4

#: A stored file may move once or twice; more is a circle.
MOST_REDIRECTS = 3

# What fetches a file from wherever a vendor stored it: no key, no cookie, nothing of ours.
_FILE_HEADERS = [
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"audience-relay"),
]

_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")

_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")

_answered: ContextVar[list[Answered] | None] = ContextVar("_answered", default=None)

# Not only httpx's own: it lets through what TLS says after the handshake, which is an OSError, and what the codec of
# names says of a redirect that nobody follows, which is a UnicodeError.
_NO_ANSWER = (OSError, UnicodeError, httpx.HTTPError, httpx.InvalidURL)

_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    # the body was not written to its end, so no server can have acted on it
    httpx.WriteTimeout,
    httpx.LocalProtocolError,
)


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that was answered, whatever was said: when it was begun (monotonic), and how long the answer took.

    *is_counted* when the tally has it already, as one of another endpoint.
    """

    begun: float
    seconds: float
    is_counted: bool = False


@contextmanager
def calls_noted() -> Iterator[list[Answered]]:
    """Give the calls that this task makes inside and that are answered, as they come.

    Whoever notes calls around it is given them at its end, as counted.
    """
    calls: list[Answered] = []
    before = _answered.set(calls)
    try:
        yield calls
    finally:
        _answered.reset(before)
        if (outer := _answered.get()) is not None:
            outer += [replace(call, is_counted=True) for call in calls]


def _note(begun: float) -> None:
    """Note that a call was answered, where calls are noted."""
    if (calls := _answered.get()) is not None:
        calls.append(Answered(begun, monotonic() - begun))


def new_client(
    timeout: httpx.Timeout = TIMEOUT, *, most_connections: int = 32
) -> httpx.AsyncClient:
    """Return a client for `VendorHttp`: keep-alive, no redirects, no HTTP/2; the caller closes it.

    Proxies and certificates of the environment are respected (corporate networks need that), but
    loopback, where the sandbox lives, is never reached through a proxy. Where there are proxies, the
    connections are httpx's own.
    """
    # Both write URLs at INFO or headers at DEBUG.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    certificates = _certificates(*map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))
    proxies = getproxies()
    if not any(proxies.get(kind) for kind in ("http", "https", "all")):
        return Client(Connections(certificates, timeout, most_connections, KEEP_S))
    return httpx.AsyncClient(
        verify=certificates,
        timeout=timeout,
        limits=httpx.Limits(
            max_connections=most_connections,
            max_keepalive_connections=most_connections,
            keepalive_expiry=KEEP_S,
        ),
        mounts=dict.fromkeys(_LOOPBACK),
        cookies=_NoCookies(),
        follow_redirects=False,
        http2=False,
        trust_env=True,
    )


@lru_cache(maxsize=1)
def _certificates(file: str | None, directory: str | None) -> ssl.SSLContext:
    """Return whom to trust, for all clients and proxies: to read it takes a tenth of a second each time.

    httpx itself takes *file* or *directory* from the environment; here they tell one answer from another.
    """
    return httpx.create_ssl_context()


class _NoCookies(CookieJar):
    """Keeps nothing: no call needs a gateway's cookie, and calls stay independent of each other."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Leave the cookies of *response* where they are."""


def _is_inside(host: str) -> bool:
    """Whether *host* is this machine, or an address that is not of the public internet, however written.

    A name that leads to one is not found out.
    """
    try:
        address = ip_address(host)
    except ValueError:
        try:  # 127.1 and 2130706433 are 127.0.0.1
            address = ip_address(socket.inet_aton(host))
        except (OSError, ValueError):
            return host.rstrip(".").lower().rpartition(".")[2] == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return not (mapped or address).is_global


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]


def _words_of(values: Iterable[str]) -> set[str]:
    """Return header values and the words in them: of `Bearer KEY` the key may come back alone."""
    words = {word for value in values for word in (value, value.split(" ")[-1])}
    # a shorter one would be found in words that say something
    return {word for word in words if len(word) >= SHORTEST_SECRET}


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
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Make the header list. *turn* is waited for before each call, for as long as it takes.

        Raises `ValueError` for a value that cannot stand in a header.
        """
        for name, value in headers.items():
            if not _HEADER_VALUE.fullmatch(value):
                # the value is a key: it is not shown
                raise ValueError(f"{vendor}: the value of {name} cannot stand in an HTTP header")
        #: what the last answer that tells of a limit has told of it
        self.rate_limit: RateLimit | None = None
        self._vendor = vendor
        self._secrets = tuple(_words_of(headers.values()))
        self._base_url = base_url.rstrip("/")
        self._client = client
        self._deadline_s = deadline_s
        self._turn = turn
        self._url = lru_cache(maxsize=MOST_URLS)(self._parse)
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
        if self._turn is not None:
            await self._turn()
        begun = monotonic()
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._exchange(request)
        except _NO_ANSWER as error:
            raise self._failed(error) from None
        _note(begun)
        return answer

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
        told = {
            name.lower().decode("latin-1"): value.decode("latin-1")
            for name, value in response.headers.raw
        }
        answer = Answer(
            response.status_code, told, body, self._secrets, response.url.netloc.decode()
        )
        self.rate_limit = answer.rate_limit or self.rate_limit
        return answer

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

    def _parse(self, path: str) -> httpx.URL:
        """Return the URL of *path*."""
        return httpx.URL(f"{self._base_url}/{path.lstrip('/')}")

    async def file(self, url: str) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file that the vendor has put at *url*, in pieces, as they are stored.

        It is asked for without the vendor's key, which the file's host has no business to see, over
        https; from hosts inside, and from loopback also over http, only when the vendor's own
        address is loopback. Redirects are followed as far as they keep to that. An
        address with `gs://` is one of Google's public storage. Close it (`contextlib.aclosing`) when
        you stop early.

        Raises `Rejected` for an address that cannot be used or is refused, `NotFound` for a file
        that is gone, `Unavailable` when it cannot be had now or breaks off. No message repeats the
        address, whose query may be a signature.
        """
        target = self._file_url(None, url)
        try:
            for _ in range(MOST_REDIRECTS + 1):
                begun = monotonic()
                request = httpx.Request("GET", target, headers=_FILE_HEADERS)
                response = await self._client.send(request, stream=True)
                try:
                    if not response.has_redirect_location:
                        if response.status_code != 200:
                            _note(begun)
                        self._check_file(response)
                        async for part in response.aiter_raw(64 * 1024):
                            yield part
                        _note(begun)
                        return
                    target = self._file_url(target, response.headers["location"])
                finally:
                    await response.aclose()
        except _NO_ANSWER as error:
            raise self._failed(error, f"the host of {self._vendor}'s file") from None
        raise Rejected(f"{self._vendor}'s file is redirected in circles")

    def _file_url(self, before: httpx.URL | None, text: str) -> httpx.URL:
        """Return where a file is, *text* read against the address *before* it, if any."""
        if before is None and text.startswith("gs://"):
            text = f"https://storage.googleapis.com/{quote(text.removeprefix('gs://'))}"
        try:
            url = before.join(text) if before else httpx.URL(text)
        except httpx.InvalidURL:
            url = httpx.URL()
        is_here = url.host in loopback.HOSTS and (before is None or before.scheme == "http")
        is_allowed = url.scheme == "https" or (url.scheme == "http" and is_here)
        is_foreign = _is_inside(url.host) and not loopback.is_loopback(self._base_url)
        if not is_allowed or is_foreign or not url.host or url.userinfo:
            raise Rejected(f"{self._vendor} names an address for its file that cannot be used")
        return url

    def _check_file(self, response: httpx.Response) -> None:
        """Raise what the status of a file's answer means."""
        status, its = response.status_code, f"{self._vendor}'s file"
        match status:
            case 200 if response.headers.get("content-encoding", "") in ("", "identity", "gzip"):
                return
            case 200:
                raise Unavailable(f"{its} is packed in an unknown way", status=status)
            case 404 | 410:
                raise NotFound(f"{its} is gone ({status})", status=status)
            case 408 | 425 | 429:
                raise Unavailable(f"{its} cannot be read now ({status})", status=status)
            case _ if 400 <= status < 500:
                why = "its address has expired, or is not public"
                raise Rejected(f"{its} is refused ({status}): {why}", status=status)
            case _:
                raise Unavailable(f"{its} cannot be read now ({status})", status=status)

    def _failed(self, error: Exception, whom: str | None = None) -> CallFailed:
        """Translate what httpx raised; *whom* did it, the vendor itself if None.

        Only its words about connecting are quoted: others may hold pieces of request or answer.
        """
        name = type(error).__name__
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            setting = f"{self._vendor.upper()}_BASE_URL"
            return Misconfigured(f"{self._vendor} has no usable address: check {setting}")
        whom = whom or self._vendor
        if isinstance(error, httpx.ConnectError):
            where = f" at {self._url('').host}" if whom == self._vendor else ""
            return Unavailable(f"{whom} cannot be reached{where} ({name}: {str(error)[:200]})")
        if isinstance(error, _NEVER_SENT):
            return Unavailable(f"{whom} cannot be reached ({name})")
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return TimedOut(f"{whom} did not answer in time ({name})", maybe_stored=True)
        return Unavailable(f"{whom} broke off the exchange ({name})", maybe_stored=True)

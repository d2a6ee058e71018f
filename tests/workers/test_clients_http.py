"""The HTTP layer against a real server on loopback that behaves, dawdles, breaks off, babbles."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.certificates import certificate
from workers.clients import http as http_module
from workers.clients.audiencelab import AudienceLab, headers
from workers.clients.audiencepoint import AudiencePoint
from workers.clients.connections import Client
from workers.clients.errors import Misconfigured, TimedOut, Unavailable
from workers.clients.http import VendorHttp, new_client
from workers.clients.messages import Answer, RateLimit, Request

pytestmark = pytest.mark.anyio

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
POST = Request("POST", "/events", b'{"events":[]}', {"X-Batch": "7"})
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Amzn-RequestId: r-1\r\n\r\n{}"


class Vendor:
    """A server whose behaviour a test writes, and the requests it read."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.was_asked = asyncio.Event()

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read one whole request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
        self.bodies.append(await reader.readexactly(length))
        self.heads.append(head)
        self.was_asked.set()


@asynccontextmanager
async def serving(behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[Vendor]:
    """Run a server that reads a request, then does as *behaviour* says, over and over."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        vendor.connections += 1
        try:
            while not writer.is_closing():
                await vendor.read(reader)
                await behaviour(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    vendor = Vendor(server.sockets[0].getsockname()[1])
    async with server:
        yield vendor


def saying(raw: bytes, *, then_close: bool = False) -> AbstractAsyncContextManager[Vendor]:
    """Run a server that answers every request with *raw*."""

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if then_close:
            writer.close()

    return serving(say)


async def sent_to(
    url: str, patience: httpx.Timeout | None = None, deadline_s: float = 45.0
) -> Answer:
    """Send one request to *url*."""
    async with new_client(patience or http_module.TIMEOUT) as client:
        http = VendorHttp("AudiencePoint", url, {"X-API-Key": "k"}, client, deadline_s=deadline_s)
        return await http.send(POST)


async def failed_at(
    url: str, patience: httpx.Timeout | None = None, deadline_s: float = 45.0
) -> Unavailable:
    """Send one request to *url* that must not succeed, and return the failure."""
    with pytest.raises(Unavailable) as caught:
        await sent_to(url, patience, deadline_s)
    return caught.value


async def test_a_request_arrives_whole_and_its_answer_comes_back() -> None:
    """Path, key, extra headers and body arrive; header names of the answer are lower-case."""
    async with saying(OK) as vendor:
        answer = await sent_to(vendor.url)
    assert answer == Answer(200, {"content-length": "2", "x-amzn-requestid": "r-1"}, b"{}")
    assert answer.host == vendor.url.split("/")[2]  # told where the answer is none
    lines = vendor.heads[0].split("\r\n")
    assert lines[0] == "POST /v1/events HTTP/1.1"
    assert {"X-API-Key: k", "X-Batch: 7", "Content-Type: application/json"} <= set(lines)
    assert vendor.bodies == [POST.body]


async def test_one_connection_serves_many_calls() -> None:
    """Connections are kept: thousands of small posts do not pay for thousands of handshakes."""
    async with saying(OK) as vendor, new_client() as client:
        http = VendorHttp("AudiencePoint", vendor.url, {}, client)
        for _ in range(5):
            await http.send(POST)
    assert (vendor.connections, len(vendor.bodies)) == (1, 5)


async def test_addresses_that_come_and_go_are_not_all_kept() -> None:
    """Pages and ids are as many as there are: only a bounded number of parsed URLs stays."""
    get = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with saying(get) as vendor, new_client() as client:
        http = VendorHttp("AudienceLab", vendor.url, {}, client)
        for page in range(http_module.MOST_URLS + 9):
            await http.send(POST)
            assert (await http.send(Request("POST", f"/list?page={page}", b"{}"))).status == 200
        kept = http._url.cache_info()
    assert vendor.heads[-1].startswith(f"POST /v1/list?page={http_module.MOST_URLS + 8} ")
    assert kept.currsize == http_module.MOST_URLS
    # the one that is used all the time was parsed once
    assert kept.misses == http_module.MOST_URLS + 10


async def test_no_cookie_is_kept() -> None:
    """A load balancer's cookie does not come back with the next call."""
    raw = OK.replace(b"X-Amzn", b"Set-Cookie: AWSALB=1; Path=/\r\nX-Amzn")
    async with saying(raw) as vendor, new_client() as client:
        http = VendorHttp("AudiencePoint", vendor.url, {}, client)
        await http.send(POST)
        await http.send(POST)
        assert not client.cookies
    assert all("cookie" not in head.lower() for head in vendor.heads)


@pytest.mark.parametrize("status", [301, 307, 400, 403, 429, 500, 504])
@pytest.mark.parametrize("place", ["/other", "https://xn--a/"], ids=["here", "no name"])
async def test_every_status_is_an_answer(status: int, place: str) -> None:
    """Statuses are judged elsewhere; no redirect is followed, with or without the key."""
    raw = f"HTTP/1.1 {status} X\r\nLocation: {place}\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    async with saying(raw.encode()) as vendor:
        answer = await sent_to(vendor.url)
    assert (answer.status, answer.headers["retry-after"]) == (status, "7")
    assert len(vendor.bodies) == 1


async def test_a_compressed_answer_is_read_though_not_asked_for() -> None:
    """A proxy that compresses anyway does not hide the receipt."""
    packed = gzip.compress(b'{"SequenceNumber":"7"}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    async with saying(head.encode() + packed) as vendor:
        assert (await sent_to(vendor.url)).members() == {"SequenceNumber": "7"}


async def test_nobody_listening_means_nothing_was_stored() -> None:
    """A refused connection is the destination's fault, and the request was never out."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        failure = await failed_at(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert not failure.maybe_stored
    assert failure.status is None
    assert "AudiencePoint cannot be reached at 127.0.0.1 (" in failure.sentence


async def test_a_name_that_nobody_has_means_nothing_was_stored() -> None:
    """Looking a name up comes before the request."""
    failure = await failed_at("https://vendor.invalid")
    assert not failure.maybe_stored
    assert "AudiencePoint cannot be reached at vendor.invalid (" in failure.sentence


async def test_a_server_that_speaks_no_tls_means_nothing_was_stored() -> None:
    """A failed handshake comes before the request."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 mail.example.com ready\r\n" * 4)
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        failure = await failed_at(f"https://127.0.0.1:{port}")
    assert not failure.maybe_stored


async def test_waiting_for_a_connection_in_vain_means_nothing_was_stored() -> None:
    """A call that never got a connection of the pool was never out."""
    held = asyncio.Event()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.write(OK)

    hurried = httpx.Timeout(None, connect=0.5, pool=0.0)
    async with serving(hold) as vendor, new_client(hurried, most_connections=1) as client:
        http = VendorHttp("AudiencePoint", vendor.url, {}, client)
        first = asyncio.create_task(http.send(POST))
        await vendor.was_asked.wait()
        with pytest.raises(Unavailable) as caught:
            await http.send(POST)
        held.set()
        assert (await first).status == 200
    assert not caught.value.maybe_stored


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing until the caller hangs up."""
    await writer.drain()
    await reader.read()


async def test_a_time_out_after_the_request_may_have_been_stored() -> None:
    """Once the request was written, silence proves nothing."""
    async with serving(silent) as vendor:
        failure = await failed_at(vendor.url, httpx.Timeout(5.0, read=0.02))
    assert failure.maybe_stored
    assert "in time" in failure.sentence
    assert isinstance(failure, TimedOut)


async def test_an_answer_in_drops_ends_at_the_deadline() -> None:
    """Each drop restarts the read time-out, so the whole call has an end of its own."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.005)

    async with serving(drip) as vendor:
        failure = await failed_at(vendor.url, deadline_s=0.1)
    assert isinstance(failure, TimedOut)
    assert failure.maybe_stored


async def test_a_cancelled_call_is_not_a_failure() -> None:
    """A worker that stops cancels its calls: that is never taken for the vendor's fault."""
    async with serving(silent) as vendor:
        call = asyncio.create_task(sent_to(vendor.url))
        await vendor.was_asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_reset_after_the_request_may_have_been_stored() -> None:
    """A connection torn down without an answer leaves the same doubt as silence."""

    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(reset) as vendor:
        failure = await failed_at(vendor.url)
    assert failure.maybe_stored
    assert "broke off" in failure.sentence


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"220 secret@example.com ready\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    ],
    ids=["nothing", "no HTTP", "cut short", "no chunk", "no gzip"],
)
async def test_garbage_after_the_request_may_have_been_stored(raw: bytes) -> None:
    """What cannot be read as a whole answer proves nothing, and none of it is repeated."""
    async with saying(raw, then_close=True) as vendor:
        failure = await failed_at(vendor.url)
    assert failure.maybe_stored
    assert "secret" not in failure.sentence


async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say what is whole."""
    writer.write(OK)
    await writer.drain()


async def test_one_encrypted_connection_serves_many_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TLS says by itself, such as its tickets, is not taken for the end of a connection."""
    context = certificate(tmp_path, days=1)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    async with serving(answer, context) as vendor, new_client() as client:
        url = vendor.url.replace("http://127.0.0.1", "https://localhost")
        http = VendorHttp("AudiencePoint", url, {}, client)
        for _ in range(5):
            assert (await http.send(POST)).status == 200
    assert (vendor.connections, len(vendor.bodies)) == (1, 5)


async def test_a_certificate_of_nobodys_means_nothing_was_stored(tmp_path: Path) -> None:
    """A server that proves nothing gets no request."""
    async with serving(answer, certificate(tmp_path, days=1)) as vendor:
        failure = await failed_at(vendor.url.replace("http://127.0.0.1", "https://localhost"))
    assert not failure.maybe_stored
    assert "certificate" in failure.sentence
    assert vendor.bodies == []


async def test_a_server_that_hangs_up_between_calls_is_called_anew() -> None:
    """Who closes after each answer without saying so is asked on a new connection: no call is left in doubt."""

    async def once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()

    async with serving(once) as vendor, new_client() as client:
        http = VendorHttp("AudiencePoint", vendor.url, {}, client)
        for _ in range(5):
            assert (await http.send(POST)).status == 200
    assert (vendor.connections, len(vendor.bodies)) == (5, 5)


async def test_a_long_line_in_the_head_of_an_answer_is_read() -> None:
    """Gateways tell policies of more than 8 kB in one header."""
    raw = OK.replace(b"X-Amzn", b"X-Policy: " + b"p" * 30_000 + b"\r\nX-Amzn")
    async with saying(raw) as vendor:
        assert len((await sent_to(vendor.url)).headers["x-policy"]) == 30_000


async def test_what_is_no_tls_after_the_request_may_have_been_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something in between writes past the encryption: an OSError of the library, as Redis's failures are."""
    context = certificate(tmp_path, days=1)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))

    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        os.write(writer.get_extra_info("socket").fileno(), b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    async with serving(babble, context) as vendor:
        failure = await failed_at(vendor.url.replace("http://127.0.0.1", "https://localhost"))
    assert failure.maybe_stored
    assert "broke off" in failure.sentence


async def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer larger than any real one does not fill the worker's memory."""
    monkeypatch.setattr(http_module, "MOST_ANSWER_BYTES", 1000)
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b" " * 2000
    async with saying(raw) as vendor:
        failure = await failed_at(vendor.url)
    assert failure.maybe_stored
    assert failure.status == 200


async def test_the_layer_works_on_after_failures() -> None:
    """A broken exchange gives its connection back: the next call on the same client succeeds."""
    calls = 0

    async def every_other(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            writer.transport.abort()
        else:
            writer.write(OK)
            writer.close()

    async with serving(every_other) as vendor, new_client(most_connections=1) as client:
        http = VendorHttp("AudiencePoint", vendor.url, {}, client)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await http.send(POST)
            assert (await http.send(POST)).status == 200


@pytest.mark.parametrize("url", ["ftp://vendor.example", "vendor.example/v1", "http://a:b:c"])
async def test_an_unusable_base_url_names_its_setting(url: str) -> None:
    """No amount of waiting mends an address: somebody must change it."""
    with pytest.raises(Misconfigured, match="AUDIENCEPOINT_BASE_URL"):
        await sent_to(url)


@pytest.mark.parametrize("key", ["", " key", "key\n", "k\u00e9y", "a\r\nX-Other: b"])
async def test_a_key_that_fits_no_header_is_refused_unseen(key: str) -> None:
    """A key with a line break is refused at once, and the error does not show it."""
    async with new_client() as client:
        with pytest.raises(ValueError, match="X-API-Key") as caught:
            VendorHttp("AudiencePoint", "http://vendor.example", {"X-API-Key": key}, client)
    assert not key or key not in str(caught.value)


async def test_loopback_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corporate proxy of the environment does not stand between a worker and the sandbox."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with saying(OK) as vendor:
        assert (await sent_to(vendor.url)).status == 200


async def test_other_words_about_proxies_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exceptions without a proxy, and proxies of other protocols, leave the quick connections in use."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for spelt in (name, name.lower()):
            monkeypatch.delenv(spelt, raising=False)
    monkeypatch.setenv("no_proxy", "internal.example")
    monkeypatch.setenv("ftp_proxy", "http://127.0.0.1:9")
    async with new_client() as client:
        assert isinstance(client, Client)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    async with new_client() as client:
        assert not isinstance(client, Client)


async def test_a_broken_proxy_means_nothing_was_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is used for other hosts, and its refusal comes before the request."""
    raw = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        failure = await failed_at("https://vendor.invalid/v1")
    assert not failure.maybe_stored


async def test_the_loggers_that_write_urls_are_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """httpx logs every URL at INFO: after making a client it does not."""
    async with saying(OK) as vendor:
        await sent_to(vendor.url)
    assert caplog.records == []
    assert logging.getLogger("httpx").level == logging.WARNING


async def test_the_key_that_was_sent_comes_back_in_no_failure() -> None:
    """Whatever its shape: the layer knows what it put into the headers."""
    told = b'{"message":"Authorization=Bearer my-secret-key-123 of my-secret-key-123"}'
    head = b"HTTP/1.1 403 X\r\nContent-Length: %d\r\n\r\n" % len(told)
    async with saying(head + told) as vendor, new_client() as client:
        http = VendorHttp("AudienceLab", vendor.url, headers("my-secret-key-123"), client)
        with pytest.raises(Misconfigured) as caught:
            await AudienceLab(http).enrich(email="a@example.com")
    assert "Authorization=[key] of [key]" in caught.value.sentence
    assert "my-secret" not in caught.value.sentence


async def test_the_last_word_about_the_limit_is_kept() -> None:
    """A client tells how much may still be asked; an answer that says nothing changes nothing."""
    limited = OK.replace(b"\r\n", b"\r\nX-RateLimit-Remaining: 3\r\n", 1)
    answers = iter([OK, limited, OK])

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers))
        await writer.drain()
        writer.close()

    async with serving(say) as vendor, new_client() as client:
        http = VendorHttp("AudiencePoint", vendor.url, {}, client)
        seen = []
        for _ in range(3):
            await http.send(POST)
            seen.append(AudiencePoint(http).rate_limit)
    assert AudienceLab(http).rate_limit == seen[-1]
    assert seen == [None, RateLimit(None, 3, None), RateLimit(None, 3, None)]

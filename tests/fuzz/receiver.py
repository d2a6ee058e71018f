"""What a real receiver on a real socket makes of any bytes: an answer of the contract, or a closed connection."""

from __future__ import annotations

import gzip
import logging
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn
from hypothesis import strategies as st
from redis import Redis

from pipeline.connections import receiver_redis
from pipeline.settings import Settings
from pipeline.sources.registry import SOURCES
from receiver import answers
from receiver.app import make_app
from tests.fuzz.parsers import CONTENT_TYPES, bodies
from tests.fuzz.target import Target

TOKEN = "hook-token-0123456789"
STATUSES = frozenset((200, 202, 400, 401, 404, 405, 408, 413, 415, 429, 503))
LIMIT = 65_536
#: seconds without an answer that are a fault; all time-outs of this receiver are far below
PATIENCE_S = 20.0

_FIRST_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_PATHS = (
    *(f"/hooks/{name}/{TOKEN}" for name in SOURCES),
    *(
        "/hooks/events",
        f"/hooks/events?token={TOKEN}&tag=shop",
        "/hooks/events/wrong-token-0123456",
    ),
    *("/hooks/nothing/at-all", "/healthz", "/readyz", "/metrics", "/", "*", "//", "/hooks/%2e%2e"),
    *("http://other.example/hooks/events", f"/hooks/events/{TOKEN}/%ff%00?tag=%ff", "/hooks//"),
)
_NAMES = (
    *("content-type", "content-encoding", "transfer-encoding", "content-length", "authorization"),
    *("x-webhook-token", "expect", "connection", "upgrade", "traceparent", "x-forwarded-for"),
)
_VALUES = (
    *("chunked", "gzip", "deflate", "br", "gzip, gzip", "identity", "100-continue", "close"),
    *("keep-alive", "websocket", "0", "1", "-1", "99999999999999999999", "1e3", "+5", "", "\xff"),
    *(f"Bearer {TOKEN}", "Basic Og==", "Basic \xff", "Bearer", "application/json"),
)


@contextmanager
def running(redis_url: str, home: Path) -> Iterator[Target]:
    """Serve a receiver in a thread; give the target that posts to it."""
    settings = Settings.model_validate(
        {
            **{"redis_url": redis_url, "hook_tokens": TOKEN, "relay_home": home},
            **{"max_body_bytes": LIMIT, "max_inflight_bytes": 4 * LIMIT},
        }
    )
    answers.LINGER_S = 0.02
    faults = _Faults()
    logging.getLogger().addHandler(faults)
    server, thread = _serve(settings)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = Redis.from_url(redis_url)

    def hold(requests: list[bytes]) -> None:
        hold_receiver(port, requests, faults)
        if client.xlen("{relay}:queue:unpack") > 2_000:
            client.flushall()

    try:
        yield Target("receiver", st.fixed_dictionaries({"requests": _connections()}), hold)
    finally:
        server.should_exit = True
        thread.join()
        client.close()
        logging.getLogger().removeHandler(faults)


def _serve(settings: Settings) -> tuple[uvicorn.Server, threading.Thread]:
    app = make_app(settings, receiver_redis(settings), read_deadline_s=0.2, head_deadline_s=0.2)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_keep_alive=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    return server, thread


class _Faults(logging.Handler):
    """Keeps what the server logs as an error: an exception that nobody was to see."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            error = record.exc_info[1] if record.exc_info else None
            self.told.append(f"{record.getMessage()}: {error!r}")


def hold_receiver(port: int, requests: list[bytes], faults: _Faults) -> None:
    """Send *requests* on one connection; every answer is the contract's, and the receiver goes on."""
    got = exchange(port, b"".join(requests))
    for status in _FIRST_LINE.findall(got):
        assert int(status) in STATUSES, got[:300]
    assert not got or got.startswith(b"HTTP/1.1 "), got[:300]
    assert TOKEN.encode() not in got
    assert not faults.told, faults.told.pop()


def exchange(port: int, sent: bytes) -> bytes:
    """Return all that comes back until the receiver hangs up; a test that hangs fails by `TimeoutError`."""
    got = bytearray()
    connected = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    with connected as connection, suppress(ConnectionError):
        connection.sendall(sent)
        while piece := connection.recv(65_536):
            got += piece
            # the last answer of a good request leaves the connection open; its end need not be waited for
            if _is_whole(bytes(got), sent):
                break
    return bytes(got)


def _is_whole(got: bytes, sent: bytes) -> bool:
    head, end, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    is_only = sent.count(b" HTTP/1.1\r\n") == 1
    return bool(end and is_only and length and len(body) >= int(length[1]))


def _connections() -> st.SearchStrategy[list[bytes]]:
    """Draw what is sent on one connection: one request or two, or nearly so."""
    wild = st.binary(max_size=300)
    return st.lists(_requests() | _requests() | _requests() | wild, min_size=1, max_size=2)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """Draw one request, more often a sensible one than not; its path's source may be another than its body's."""
    body = draw(bodies(draw(st.sampled_from(sorted(SOURCES)))))
    headers = draw(st.lists(st.tuples(st.sampled_from(_NAMES), _values()), max_size=3))
    headers.append(("content-type", draw(CONTENT_TYPES)))
    if packing := draw(st.sampled_from(("", "", "", "gzip", "deflate"))):
        headers.append(("content-encoding", packing))
        body = gzip.compress(body) if packing == "gzip" else zlib.compress(body)
    framing = draw(st.sampled_from(("length", "length", "length", "chunked", "wrong", "none")))
    if framing == "chunked":
        headers.append(("transfer-encoding", "chunked"))
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif framing != "none":
        length = len(body) if framing == "length" else draw(st.integers(-1, 2 * LIMIT))
        headers.append(("content-length", str(length)))
    lines = [f"{draw(_methods())} {draw(_paths())} HTTP/{draw(_versions())}", "host: relay.test"]
    lines += [f"{name}: {value}" for name, value in headers]
    raw = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
    cut = draw(st.none() | st.none() | st.none() | st.integers(0, 400))
    return raw[:cut]


def _visible() -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


def _values() -> st.SearchStrategy[str]:
    return st.sampled_from(_VALUES) | st.text(st.characters(max_codepoint=255), max_size=40)


def _methods() -> st.SearchStrategy[str]:
    usual = ("POST", "POST", "POST", "POST", "GET", "HEAD", "PUT", "OPTIONS", "CONNECT")
    return st.sampled_from(usual) | _visible()


def _paths() -> st.SearchStrategy[str]:
    return st.sampled_from(_PATHS) | _visible().map("/".__add__)


def _versions() -> st.SearchStrategy[str]:
    return st.sampled_from(("1.1", "1.1", "1.1", "1.1", "1.0", "2.0", "9.9", ""))

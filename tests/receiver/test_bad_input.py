"""Bad input against a real server process: raw bytes on a socket, whatever a client library forbids.

After each line of the table: an answer of the contract or a closed connection, never a 5xx but 503, the
process alive, and at the end no token, valid or refused, in anything it has written.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from redis.asyncio import Redis

from pipeline import keys
from pipeline.deliveries import Delivery
from pipeline.settings import Settings
from tests.patience import patient_receiver
from tests.receiver.conftest import TOKEN

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
LIMIT = 65_536
REFUSED_TOKEN = "refused-token-9876543210"
EVENTS = f"/hooks/events/{TOKEN}"


@dataclass
class Process:
    """A receiver started as anybody would, and everything it has written."""

    process: subprocess.Popen[str]
    port: int = 0
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    def read_until_listening(self) -> None:
        """Read its output up to the line with the port, and the rest in a thread."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                self.reader = threading.Thread(target=self._read_on)
                self.reader.start()
                return
        pytest.fail("the receiver did not start:\n" + "".join(self.lines))

    def _read_on(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def stop(self) -> str:
        """End it as a supervisor would; return all it has written."""
        self.process.terminate()
        self.process.wait(timeout=20)
        if self.reader is not None:
            self.reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return "".join(self.lines)


def start(redis_url: str, folder: Path, *arguments: str, **changed: str) -> Process:
    """Start `uvicorn receiver.main:app` with its access log on, on a port of its own choice."""
    values = {
        "REDIS_URL": redis_url,
        "HOOK_TOKENS": TOKEN,
        "MAX_BODY_BYTES": str(LIMIT),
        "RELAY_HOME": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "uvicorn", "receiver.main:app", "--port", "0", *arguments]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | values | changed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Process(process)


@pytest.fixture(scope="module")
def receiver(redis_server: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Run one receiver for the whole table; at the end, search what it wrote for tokens."""
    url = redis_server.url  # type: ignore[attr-defined]
    running = start(url, tmp_path_factory.mktemp("receiver"))
    running.read_until_listening()
    # so that a line with a token is due, whichever tests run here
    exchange(running.port, post(b"[]"))
    yield running
    assert running.process.poll() is None, "the receiver died:\n" + "".join(running.lines)
    written = running.stop()
    assert "POST /hooks/events/***" in written
    assert TOKEN not in written
    assert REFUSED_TOKEN not in written
    assert "Traceback" not in written
    assert "Exception" not in written


def exchange(port: int, request: bytes, *, hangs_up: bool = False) -> tuple[int, bytes]:
    """Send raw bytes as `exchange_once`, and again after a 503, which a busy machine may cause, as senders do."""
    for _ in range(20):
        status, answer = exchange_once(port, request, hangs_up=hangs_up)
        if status != 503:
            break
    return status, answer


def exchange_once(port: int, request: bytes, *, hangs_up: bool) -> tuple[int, bytes]:
    """Send raw bytes, return the first answer's status (0: closed without one) and all that came."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(request)
            if hangs_up:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was refused before it was read
        answer = b""
        try:
            while chunk := connection.recv(65_536):
                answer += chunk
        except OSError:
            pass
    match = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    return (int(match[1]) if match else 0), answer


def post(
    body: bytes, path: str = EVENTS, *headers: str, method: str = "POST", length: int | None = None
) -> bytes:
    """Return a request as it goes over the wire."""
    head = [f"{method} {path} HTTP/1.1", "Host: relay.test", "Connection: close", *headers]
    head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def chunked(chunks: list[bytes], *, ended: bool = True) -> bytes:
    """Return a request whose length nobody knows."""
    head = f"POST {EVENTS} HTTP/1.1\r\nHost: r\r\nConnection: close\r\nTransfer-Encoding: chunked"
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head.encode() + b"\r\n\r\n" + body + (b"0\r\n\r\n" if ended else b"")


GZIP = "Content-Encoding: gzip"
HANGS_UP = "hangs up in the middle"
KEPT_OPEN = post(b"[]").replace(b"Connection: close\r\n", b"")
NOT_HTTP = b"\x16\x03\x01\x02\x00" + TOKEN.encode()
THOUSAND = [f"X-Header-{number}: {'v' * 20}" for number in range(1_000)]

TABLE: dict[str, tuple[bytes, set[int]]] = {
    "wrong token": (post(b"{}", f"/hooks/events/{REFUSED_TOKEN}"), {401}),
    "missing token": (post(b"{}", "/hooks/events"), {401}),
    "wrong token in the query": (post(b"{}", f"/hooks/events?token={REFUSED_TOKEN}"), {401}),
    "wrong token in a header": (
        post(b"{}", "/hooks/events", f"Authorization: Bearer {REFUSED_TOKEN}"),
        {401},
    ),
    "token that is not ASCII": (post(b"{}", "/hooks/events/%ff%fe%00tok%C3%A9n"), {401}),
    "header token of wild bytes": (
        post(b"{}", "/hooks/events", "X-Webhook-Token: \udcff\udc80"),
        {401},
    ),
    "valid token in the query": (post(b"[]", f"/hooks/events?token={TOKEN}"), {202}),
    "unknown source": (post(b"{}", f"/hooks/{REFUSED_TOKEN}/x"), {404}),
    "path that is none": (post(b"{}", f"/{REFUSED_TOKEN}"), {404}),
    "doubled slashes": (post(b"{}", f"//hooks//events//{TOKEN}"), {404}),
    "escaped slash": (post(b"[]", f"/hooks%2Fevents%2F{TOKEN}"), {202}),
    "dots in the path": (post(b"{}", f"/hooks/events/../../{TOKEN}"), {401}),
    "absolute target": (post(b"[]", f"http://relay.test{EVENTS}"), {202}),
    "wrong method": (post(b"{}", method="PUT"), {405}),
    "unheard-of method": (post(b"{}", method="BREW"), {400, 405}),
    "websocket": (
        f"GET {EVENTS} HTTP/1.1\r\nHost: r\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode(),
        {200, 403},
    ),
    "too large": (post(b"x" * (LIMIT + 1)), {413}),
    "far too large": (post(b"x" * 5_000_000), {413}),
    "announced too large": (post(b"", length=10**12), {413}),
    "endless": (chunked([b"x" * 10_000] * 100, ended=False), {413}),
    "gzip bomb": (post(gzip.compress(bytes(50_000_000)), EVENTS, GZIP), {413}),
    "deflate bomb": (
        post(zlib.compress(bytes(40_000_000)), EVENTS, "Content-Encoding: deflate"),
        {413},
    ),
    "not packed": (post(b"[]", EVENTS, GZIP), {400}),
    "cut off gzip": (post(gzip.compress(b"[]" * 99)[:-5], EVENTS, GZIP), {400}),
    "unknown encoding": (post(b"[]", EVENTS, "Content-Encoding: br"), {415}),
    "not JSON": (post(b"hello"), {400}),
    "half of JSON": (post(b'[{"emailAddress":'), {400}),
    "invalid UTF-8": (post(b'{"a":"\xff\xfe"}'), {400}),
    "UTF-16": (post("{}".encode("utf-16")), {400}),
    "empty": (post(b""), {400}),
    "white space": (post(b" \r\n\t "), {400}),
    "NUL bytes": (post(b"\0" * 100), {400}),
    "NaN": (post(b"[NaN, Infinity]"), {400}),
    "deep nesting": (post(b"[" * 30_000 + b"]" * 30_000), {400}),
    "deep objects": (post(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), {400}),
    "nesting that JSON readers bear": (post(b"[" * 900 + b"]" * 900), {202}),
    "huge integer": (post(b'{"a":' + b"9" * 5_000 + b"}"), {202, 400}),
    "huge exponent": (post(b'{"a":1e999999}'), {202, 400}),
    "lone surrogate": (post(b'{"a":"\\ud800"}'), {202}),
    "lone surrogate in no JSON": (post(b'{"a":"\\ud800"'), {400}),
    "array of scalars": (post(b'[1,"a",null,true,1.5]'), {202}),
    "bare scalar": (post(b"42"), {202}),
    "duplicate keys": (post(b'{"a":1,"a":2}'), {202}),
    "unknown shape": (post(b'{"who":"knows"}'), {202}),
    "thousand headers": (post(b"[]", EVENTS, *THOUSAND), {202}),
    "huge header": (post(b"[]", EVENTS, "X-Big: " + "v" * 60_000), {202, 400, 431}),
    "huge query": (post(b"[]", EVENTS + "?" + "a=1&" * 10_000), {202, 400}),
    "wrong content type": (post(b"[]", EVENTS, "Content-Type: image/png"), {202}),
    "wild request id": (post(b"[]", EVENTS, "X-Request-Id: \udcffa b"), {202}),
    "two lengths": (post(b"[]", EVENTS, "Content-Length: 5"), {400}),
    "length that is none": (post(b"[]", EVENTS, "Content-Length: two"), {400}),
    "not HTTP": (NOT_HTTP, {400}),
    HANGS_UP: (post(b"[", length=100), {0}),
}

REFUSED, PROBE = KEPT_OPEN.replace(b"[]", b"[,"), KEPT_OPEN.replace(b"POST", b"GET")
IN_ONE_PACKET = {
    "a good one": KEPT_OPEN,
    "two good ones": 2 * KEPT_OPEN,
    "a refused and a good one": REFUSED + KEPT_OPEN,
    "two probes": 2 * PROBE,
}


@pytest.mark.parametrize("case", TABLE)
async def test_bad_input_is_answered_and_survived(
    receiver: Process, redis: Redis, case: str
) -> None:
    """The answer is the contract's, shows no token, and a good delivery is stored right after it."""
    request, allowed = TABLE[case]
    status, answer = await asyncio.to_thread(
        exchange, receiver.port, request, hangs_up=case == HANGS_UP
    )
    assert status in allowed, answer[:500]
    assert TOKEN.encode() not in answer
    assert REFUSED_TOKEN.encode() not in answer
    assert (await asyncio.to_thread(exchange, receiver.port, post(b"[]")))[0] == 202


@pytest.mark.parametrize("before", IN_ONE_PACKET)
async def test_what_is_no_request_ends_the_connection(receiver: Process, before: str) -> None:
    """Answered 400 by uvicorn behind requests that came with it; who is still to answer those finds nobody there."""
    request = IN_ONE_PACKET[before] + NOT_HTTP
    status, _ = await asyncio.to_thread(exchange, receiver.port, request)
    assert status == 400
    assert (await asyncio.to_thread(exchange, receiver.port, post(b"[]")))[0] == 202


@pytest.mark.parametrize("case", [case for case, (_, allowed) in TABLE.items() if allowed == {400}])
async def test_what_was_authentic_lies_in_the_dead_letters(
    receiver: Process, redis: Redis, case: str
) -> None:
    """A delivery answered 400 by us, not by the HTTP server, is found with its very bytes."""
    request, _ = TABLE[case]
    _, answer = await asyncio.to_thread(exchange, receiver.port, request)
    letters = await redis.zrange(keys.DEAD, 0, -1)
    if b"application/problem+json" not in answer:
        assert letters == []
        return
    [letter] = letters
    payload = await redis.hget(keys.letter(letter.decode().rpartition("/")[2]), "payload")
    assert Delivery.unpack(payload).body == request.partition(b"\r\n\r\n")[2]


@pytest.fixture
async def impatient(redis: Redis, make_settings: Callable[..., Settings]) -> AsyncIterator[int]:
    """Run a real server in this process that waits a tenth of a second for a body; give its port."""
    settings = make_settings()
    app = patient_receiver(settings, read_deadline_s=0.1)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_keep_alive=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


@pytest.mark.parametrize("sent", [b"", b"[{"])
async def test_a_stalling_sender_is_told_so(impatient: int, sent: bytes) -> None:
    """A sender that stops in the middle of its body gets 408, and the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient)
    writer.write(post(sent, length=100))
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:audience-relay:problem:stalled" in answer


def test_wrong_settings_are_told_in_one_list(redis_url: str, tmp_path: Path) -> None:
    """Every problem is printed, no value is, and the process exits with 2."""
    running = start(redis_url, tmp_path, HOOK_TOKENS="short", MAX_BODY_BYTES="many")
    assert running.process.stdout is not None
    written = running.process.stdout.read()
    assert running.process.wait(timeout=20) == 2
    running.process.stdout.close()
    assert "HOOK_TOKENS" in written
    assert "MAX_BODY_BYTES" in written
    assert "short\n" not in written
    assert "Traceback" not in written


def test_without_a_redis_to_look_for_it_says_so(tmp_path: Path) -> None:
    """Neither REDIS_URL nor a running `relay up`: one sentence, and 2."""
    running = start("", tmp_path)
    assert running.process.stdout is not None
    written = running.process.stdout.read()
    assert running.process.wait(timeout=20) == 2
    running.process.stdout.close()
    assert "REDIS_URL" in written
    assert "Traceback" not in written


def test_not_even_the_most_talkative_server_shows_a_token(redis_url: str, tmp_path: Path) -> None:
    """At uvicorn's level `trace` and our DEBUG, in JSON, no token is written either."""
    running = start(
        redis_url, tmp_path, "--log-level", "trace", LOG_LEVEL="DEBUG", LOG_FORMAT="json"
    )
    running.read_until_listening()
    bearer = f"Authorization: Bearer {TOKEN}"
    assert exchange(running.port, post(b"[]"))[0] == 202
    assert exchange(running.port, post(b"[]", "/hooks/events", bearer))[0] == 202
    assert exchange(running.port, post(b"[]", f"/hooks/events?token={TOKEN}"))[0] == 202
    assert exchange(running.port, TABLE["websocket"][0])[0] in TABLE["websocket"][1]
    written = running.stop()
    assert "flushed deliveries=1" in written
    assert TOKEN not in written

"""The short way is not to be told from ASGI's: the same answers to the same bytes, and the same deliveries."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.settings import Settings
from receiver import servers
from receiver.answers import Prepared
from receiver.app import Receiver
from receiver.short_way import ShortWay, Whole
from tests.patience import be_patient, patient_receiver
from tests.receiver.conftest import TOKEN
from tests.receiver.desk import stored
from tests.served import served_for_life

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0
BODY = b'[{"email":"anna@example.com"}]'
PATH = f"/hooks/events/{TOKEN}".encode()
LAST = b"GET /healthz HTTP/1.1\r\nhost: relay.test\r\nconnection: close\r\n\r\n"


def post(
    body: bytes = BODY,
    path: bytes = PATH,
    *headers: bytes,
    method: bytes = b"POST",
    version: bytes = b"1.1",
) -> bytes:
    """Return a request."""
    lines = [b"%b %b HTTP/%b" % (method, path, version), b"host: relay.test", *headers]
    if not any(line.lower().startswith(b"transfer-encoding") for line in headers):
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


class Longer:
    """A receiver behind something that takes nothing whole."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.router = receiver.router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        await self.receiver(scope, receive, send)


class Counting(Receiver):
    """Counts what it takes whole."""

    taken = 0

    def take(self, whole: Whole) -> bool:
        """Take it, perhaps."""
        is_taken = super().take(whole)
        self.taken += is_taken
        return is_taken


@dataclass(frozen=True, slots=True)
class Ways:
    """Two receivers on one Redis."""

    short: str
    longer: str
    redis: Redis
    receiver: Counting

    async def told(self, url: str, packets: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
        """Return what the sender of *packets* reads until it is hung up on, and which bodies are stored for it."""
        await self.redis.delete("{relay}:queue:unpack")
        where = urlsplit(url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                for packet in packets:
                    writer.write(packet)
                    await writer.drain()
                    await asyncio.sleep(0)
            read = bytearray()
            with suppress(ConnectionError):
                while piece := await reader.read(1 << 16):
                    read += piece
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return _without_chance(bytes(read)), sorted(await stored(self.redis))

    async def check(self, *packets: bytes) -> bytes:
        """Hold what one tells against the other; return it."""
        packets = (*packets, LAST)
        short, longer = [await self.told(url, packets) for url in (self.short, self.longer)]
        assert short == longer
        return short[0]


def _without_chance(read: bytes) -> bytes:
    read = re.sub(rb'"id":"[0-9a-f]+"', b'"id":"?"', read)
    return re.sub(rb"date: [^\r]+", b"date: ?", read)


@pytest.fixture
def ways(
    redis: Redis, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ways]:
    """Serve both."""
    be_patient(monkeypatch)
    monkeypatch.setattr("receiver.app.Receiver", Counting)
    given = make_settings(max_body_bytes=100_000)
    with ExitStack() as stack:
        made = [patient_receiver(given) for _ in range(2)]
        assert isinstance(made[0], Counting)
        assert isinstance(made[1], Counting)
        short = stack.enter_context(served_for_life(made[0]))
        longer = stack.enter_context(served_for_life(Longer(made[1])))  # type: ignore[arg-type]
        made[0]._siblings.answer_on(1)
        yield Ways(short, longer, redis, made[0])


CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    ("packets", "takes"),
    [
        pytest.param([post()], 1, id="whole"),
        pytest.param([post(), post(), post()], None, id="one after the other"),
        pytest.param([post(path=PATH + b"?tag=spring")], 1, id="with a tag"),
        pytest.param([post(path=PATH + b"?tag=not%20one")], 1, id="with a tag that is none"),
        pytest.param([post(path=PATH + b"/")], 1, id="with a slash"),
        pytest.param(
            [post(BODY, b"/hooks/events", b"x-webhook-token: " + TOKEN.encode())], 1, id="header"
        ),
        pytest.param([post(b"")], 0, id="nothing"),
        pytest.param([post(b'"' + 90_000 * b"x" + b'"')], None, id="large"),
        pytest.param([post(b'"' + 99_999 * b"x" + b'"')], 0, id="too large"),
        pytest.param([post(b"{")], 0, id="no JSON"),
        pytest.param([post() + post() + post(b"{") + post()], None, id="in one packet"),
        pytest.param([post()[:-10], post()[-10:]], 1, id="in two packets"),
        pytest.param([post()[i : i + 1] for i in range(len(post()))], None, id="byte by byte"),
        pytest.param([post(b'"' + 4_000 * b"x" + b'"', PATH, b"transfer-encoding: chunked")], 0, id="no chunks"),
        pytest.param([post(CHUNKED, PATH, b"transfer-encoding: chunked")], 1, id="chunked"),
        pytest.param([post(BODY, PATH, b"expect: 100-continue")], 0, id="asks first"),
        pytest.param([post(version=b"1.0")], 0, id="HTTP/1.0"),
        pytest.param([post(BODY, PATH, b"connection: close")], 0, id="the last one"),
        pytest.param([post(BODY, PATH, b"x-request-id: r-1")], 0, id="with an id"),
        pytest.param(
            [post(gzip.compress(BODY), PATH, b"content-encoding: gzip")], 0, id="packed"
        ),
        pytest.param([post(method=b"GET")], 0, id="a probe"),
        pytest.param([post(method=b"PUT")], 0, id="another method"),
        pytest.param([post(path=b"/hooks/events/wrong-token-0123456789")], 0, id="wrong token"),
        pytest.param([post(path=b"/hooks/nobody/" + TOKEN.encode())], 0, id="no source"),
        pytest.param([post(path=b"/hooks/pixel/" + TOKEN.encode())], 1, id="another source"),
        pytest.param([post(path=PATH.replace(b"events", b"%65vents"))], 0, id="encoded"),
        pytest.param([post(path=PATH + b"#there")], 0, id="a fragment"),
        pytest.param([post(path=PATH + b"\xc3\xa9")], 0, id="not ASCII"),
        pytest.param([post(path=b"http://relay.test" + PATH)], 0, id="absolute"),
        pytest.param([post(path=b"/elsewhere")], 0, id="no hook"),
        pytest.param([post(b"5\r\nhello\r\nz", PATH, b"transfer-encoding: chunked")], 0, id="torn"),
    ],
)  # fmt: skip
async def test_the_sender_sees_no_difference(
    ways: Ways, packets: list[bytes], takes: int | None
) -> None:
    """Answers and deliveries are those of the longer way, byte by byte; and what is usual goes the short one."""
    assert await ways.check(*packets)
    assert takes is None or ways.receiver.taken == takes


_REQUESTS = [
    post(),
    post(b"{"),
    post(method=b"GET"),
    post(CHUNKED, PATH, b"transfer-encoding: chunked"),
    post(BODY, PATH, b"x-request-id: r-1"),
    post(path=b"/hooks/events/wrong-token-0123456789"),
]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    requests=st.lists(st.sampled_from(_REQUESTS), min_size=1, max_size=5),
    cuts=st.sets(st.integers(1, 1_000), max_size=6),
)
async def test_how_the_bytes_are_cut_makes_no_difference(
    ways: Ways, requests: list[bytes], cuts: set[int]
) -> None:
    """However the packets of a connection are cut, each request is answered once, in order."""
    stream = b"".join(requests)
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    read = await ways.check(*(stream[a:b] for a, b in pairwise(places)))
    assert read.count(b"HTTP/1.1 ") == len(requests) + 1


# one connection at a time -------------------------------------------------------------------------


class Transport(asyncio.Transport):
    """Remembers each write as it came, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Remember one write."""
        self.written.append(bytes(data))

    def close(self) -> None:
        """Remember the closing as the last thing written."""
        self.is_closed = True
        self.written.append(b"closed")

    def is_closing(self) -> bool:
        """Tell whether it was closed."""
        return self.is_closed

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Belong to another protocol from now on."""
        self.protocol = protocol


class Desk:
    """Takes what comes whole, and keeps it."""

    def __init__(self) -> None:
        self.wholes: list[Whole] = []
        self.is_open = True
        self.error: Exception | None = None
        self.asked = 0

    def take(self, whole: Whole) -> bool:
        """Take it, if it is open."""
        if self.error:
            raise self.error
        if self.is_open:
            self.wholes.append(whole)
        return self.is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI has it."""
        self.asked += 1
        await receive()
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def connected(app: object, **options: Any) -> AsyncIterator[tuple[Any, Transport]]:
    """Give a connection to *app* as uvicorn makes it, and what it writes to."""

    servers.find()
    options = {"access_log": False} | options
    config = uvicorn.Config(app, lifespan="off", log_config=None, **options)  # type: ignore[arg-type]
    config.load()
    transport = Transport()
    first = HttpToolsProtocol(config, uvicorn.server.ServerState(), {})
    transport.set_protocol(first)
    first.connection_made(transport)
    connection: Any = transport.protocol
    connection.access_log = config.access_log
    try:
        yield connection, transport
    finally:
        while tasks := list(connection.tasks):
            await asyncio.wait(tasks)
        if connection.timeout_keep_alive_task:
            connection.timeout_keep_alive_task.cancel()


async def test_what_is_whole_makes_no_task() -> None:
    """A request that is taken is answered by who took it, with no task and in one write."""
    desk = Desk()
    async with connected(desk) as (connection, transport):
        connection.data_received(post())
        assert not connection.tasks
        assert transport.written == []
        [whole] = desk.wholes
        assert (whole.method, whole.url, whole.body) == (b"POST", PATH, BODY)
        whole.answer(b"HTTP/1.1 202 Accepted\r\n", b"hello")
        assert transport.written == [b"HTTP/1.1 202 Accepted\r\n\r\nhello"]
        assert connection.server_state.total_requests == 1
        assert connection.timeout_keep_alive_task is not None
    assert desk.asked == 0


async def test_the_next_request_waits_for_its_turn() -> None:
    """A request that comes before the answer to the one before it is begun after that answer, as ASGI has it."""
    desk = Desk()
    async with connected(desk) as (connection, transport):
        connection.data_received(post() + post())
        assert not connection.tasks
        desk.wholes[0].answer(b"HTTP/1.1 202 Accepted\r\n", b"first")
        await asyncio.wait(connection.tasks)
    assert b"first" in transport.written[0]
    assert b"hello" in transport.written[-1]
    assert desk.asked == 1


async def test_no_request_behind_one_that_is_taken() -> None:
    """What uvicorn refuses and hangs up on takes the answer to what was taken before it along, as ever."""
    desk = Desk()
    async with connected(desk) as (connection, transport):
        connection.data_received(post() + b"no request\r\n\r\n")
        desk.wholes[0].answer(b"HTTP/1.1 202 Accepted\r\n", b"hello")
    assert transport.written[0].startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert transport.written[1:] == [b"closed"]


async def test_an_upgrade_is_for_uvicorn_to_refuse() -> None:
    """Who wants another protocol is never taken whole."""
    desk = Desk()
    async with connected(desk, ws="none") as (connection, _):
        connection.data_received(post(b"", PATH, b"connection: upgrade", b"upgrade: websocket"))
        await asyncio.wait(connection.tasks)
    assert (desk.wholes, desk.asked) == ([], 1)


async def test_the_rest_of_a_body_is_waited_for() -> None:
    """A body may come in packets of its own; who lets it be waited for longer becomes a task."""
    desk = Desk()
    async with connected(desk) as (connection, transport):
        for packet in (post()[:-10], post()[-10:-5], post()[-5:]):
            assert not desk.wholes
            connection.data_received(packet)
        desk.wholes[0].answer(b"HTTP/1.1 202 Accepted\r\n", b"hello")
        connection.data_received(post()[:-5])
        connection.go_on()
        assert len(connection.tasks) == 1
        connection.data_received(post()[-5:])
        await asyncio.wait(connection.tasks)
        assert b"".join(transport.written).count(b"hello") == 2
        connection.data_received(post()[:-5])
        connection.shutdown()
        assert len(connection.tasks) == 1
        connection.data_received(post()[-5:])
        await asyncio.wait(connection.tasks)
    assert transport.written[-1] == b"closed"
    assert (len(desk.wholes), desk.asked) == (1, 2)


async def test_a_large_body_is_not_waited_for() -> None:
    """What does not come at once and is large is a task, which holds the sender back while it is looked at."""
    desk = Desk()
    async with connected(desk) as (connection, _):
        request = post(b"x" * 2 * HIGH_WATER_LIMIT)
        connection.data_received(request[:HIGH_WATER_LIMIT])
        assert not connection.tasks
        connection.data_received(request[HIGH_WATER_LIMIT : HIGH_WATER_LIMIT + 1_000])
        assert len(connection.tasks) == 1
        assert connection.flow.read_paused
        connection.data_received(request[HIGH_WATER_LIMIT + 1_000 :])
        await asyncio.wait(connection.tasks)
    assert (desk.wholes, desk.asked) == ([], 1)


async def test_the_head_is_todays() -> None:
    """A prepared head is made anew when the server's own headers change."""
    prepared = Prepared(202, [(b"relay-ack", b"stored")])
    for day in (b"today", b"tomorrow"):
        told = prepared.head([(b"date", day)])
        assert told == b"HTTP/1.1 202 Accepted\r\ndate: %b\r\nrelay-ack: stored\r\n" % day


async def test_the_server_ends_after_the_answer() -> None:
    """A server that ends lets a taken request be answered, says so, and hangs up."""
    desk = Desk()
    async with connected(desk) as (connection, transport):
        connection.data_received(post())
        connection.shutdown()
        assert transport.written == []
        desk.wholes[0].answer(b"HTTP/1.1 202 Accepted\r\n", b"hello")
    answer = b"HTTP/1.1 202 Accepted\r\nconnection: close\r\n\r\nhello"
    assert transport.written == [answer, b"closed"]


async def test_nobody_is_answered_who_hung_up() -> None:
    """What was taken is answered to nobody when its sender is gone."""
    desk = Desk()
    async with connected(desk) as (connection, transport):
        connection.data_received(post())
        transport.close()
        connection.connection_lost(None)
        desk.wholes[0].answer(b"HTTP/1.1 202 Accepted\r\n", b"hello")
    assert set(transport.written) == {b"closed"}


async def test_a_fault_in_taking_costs_nothing_but_time(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong before a request is taken, it goes on as ASGI has it; its bytes are in no log."""
    desk = Desk()
    desk.error = ValueError("anna@example.com")
    async with connected(desk) as (connection, _):
        connection.data_received(post())
        await asyncio.wait(connection.tasks)
    assert desk.asked == 1
    assert "not taken whole: ValueError" in caplog.text
    assert "anna" not in caplog.text


@pytest.mark.parametrize(
    ("wrap", "options", "is_short"),
    [
        (lambda app: app, {}, True),
        (lambda app: app, {"proxy_headers": False}, True),
        (lambda app: app, {"access_log": True}, False),
        (lambda app: app, {"limit_concurrency": 9}, False),
        (lambda app: Longer.__call__, {"interface": "asgi3"}, False),
    ],
    ids=["as it is", "no proxy", "access log", "a limit", "wrapped"],
)
async def test_uvicorn_has_nothing_to_do_with_what_is_taken(
    wrap: Callable[[object], object], options: dict[str, Any], is_short: bool
) -> None:
    """Where uvicorn writes a line for each request, or counts them, or another app stands between, nothing is taken."""
    async with connected(wrap(Desk()), **options) as (connection, _):
        assert (type(connection) is ShortWay) is is_short

"""AudiencePoint's calls: the bytes that leave, and what each recorded answer is read as."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as Incoming
from starlette.responses import JSONResponse
from starlette.routing import Route

from workers.clients import audiencepoint
from workers.clients.audiencepoint import (
    AudiencePoint,
    Paths,
    Receipt,
    Subscription,
    events_request,
    read_events,
    read_subscription,
    subscription_request,
)
from workers.clients.errors import CallFailed, Misconfigured, Unavailable
from workers.clients.http import VendorHttp
from workers.clients.messages import Answer

pytestmark = pytest.mark.anyio

SEQUENCE = "49" + "0" * 53 + "7"
ADDRESSES = [f"reader{number}@example.com" for number in range(31)]


def answer(status: int, body: str) -> Answer:
    """Return an answer without headers."""
    return Answer(status, {}, body.encode())


def test_events_leave_byte_for_byte() -> None:
    """A sealed batch is posted as it was sealed, so that a retry is the same request."""
    sealed = b'{"events": [ {"email":"x"} ]}'
    sent = events_request(sealed, "/ingest")
    assert (sent.method, sent.path, sent.body) == ("POST", "/ingest", sealed)


def test_a_receipt_keeps_all_digits() -> None:
    """56 digits fit no number, so the receipt is text."""
    body = f'{{"SequenceNumber":"{SEQUENCE}","ShardId":"shardId-000000000001"}}'
    assert read_events(answer(200, body)) == Receipt(SEQUENCE, "shardId-000000000001")


def test_a_receipt_without_shard_is_still_a_receipt() -> None:
    """The number proves that the batch is queued; sending it again would make duplicates."""
    assert read_events(answer(200, '{"SequenceNumber":"7"}')) == Receipt("7", "")


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[]",
        "null",
        "",
        "<html></html>",
        '{"SequenceNumber":null}',
        '{"SequenceNumber":""}',
        '{"SequenceNumber":["7"]}',
        '{"sequence":"7"}',
        '{"__type":"InternalFailure","message":"no"}',
    ],
)
def test_a_success_without_the_number_is_a_failure_that_may_be_stored(body: str) -> None:
    """200 alone proves nothing: without the receipt the batch is kept and sent again."""
    with pytest.raises(Unavailable) as caught:
        read_events(answer(200, body))
    assert caught.value.maybe_stored


def test_a_number_in_an_error_is_no_receipt() -> None:
    """Keys count only in a 2xx."""
    with pytest.raises(CallFailed):
        read_events(answer(500, '{"SequenceNumber":"7"}'))


def test_a_wrong_path_names_the_setting_of_its_own_call() -> None:
    """Each call points at its own path setting."""
    said = '{"message":"Missing Authentication Token"}'
    with pytest.raises(Misconfigured, match="AUDIENCEPOINT_EVENTS_PATH"):
        read_events(answer(403, said))
    with pytest.raises(Misconfigured, match=r"/subs .*AUDIENCEPOINT_SUBSCRIPTION_PATH"):
        read_subscription(answer(403, said), "/subs")


@pytest.mark.parametrize("count", [1, 30])
def test_a_subscription_carries_its_addresses_in_order(count: int) -> None:
    """The form is `{"emailAddresses": […]}`."""
    sent = subscription_request(ADDRESSES[:count])
    assert (sent.method, sent.path) == ("POST", "/list-subscription")
    assert orjson.loads(sent.body) == {"emailAddresses": ADDRESSES[:count]}


@pytest.mark.parametrize("addresses", [[], ADDRESSES, ["a@example.com"] * 2, ["a@example.com", ""]])
def test_no_empty_oversized_or_repeating_subscription_leaves(addresses: list[str]) -> None:
    """What would make the counts meaningless is our own mistake and never reaches the vendor."""
    with pytest.raises(ValueError, match="addresses"):
        subscription_request(addresses)


@pytest.mark.parametrize(
    "body", ['{"new":2,"existing":1,"invalid":0}', '{"new":"2","existing":"1","invalid":"0"}']
)
def test_three_counts_make_a_subscription(body: str) -> None:
    """Numbers are read, and digits in a string, which is how this vendor writes its scores."""
    assert read_subscription(answer(200, body)) == Subscription(2, 1, 0)


@pytest.mark.parametrize(
    "body",
    [
        '{"new":2,"existing":1}',
        '{"new":-1,"existing":1,"invalid":0}',
        '{"new":true,"existing":1,"invalid":0}',
        '{"new":"two","existing":1,"invalid":0}',
        '{"new":1.5,"existing":1,"invalid":0}',
        "[]",
        "",
    ],
)
def test_anything_but_three_counts_is_a_failure(body: str) -> None:
    """Without the counts nobody knows whether the addresses are subscribed."""
    with pytest.raises(Unavailable):
        read_subscription(answer(200, body))


class Recorder:
    """A vendor that keeps what it was sent and answers what it was told to."""

    def __init__(self) -> None:
        self.answer: object = {}
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.bodies: list[bytes] = []

    async def __call__(self, request: Incoming) -> JSONResponse:
        self.paths.append(request.url.path)
        self.keys.append(request.headers.get("x-api-key"))
        self.bodies.append(await request.body())
        return JSONResponse(self.answer)


@pytest.fixture
def vendor() -> Recorder:
    """Return a fresh recorder."""
    return Recorder()


@pytest.fixture
async def client(vendor: Recorder) -> AsyncIterator[AudiencePoint]:
    """Give the client, its calls answered by the recorder."""

    async def endpoint(request: Incoming) -> JSONResponse:
        return await vendor(request)

    app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as over:
        headers = audiencepoint.headers("349:key")
        http = VendorHttp(audiencepoint.VENDOR, "http://vendor.example/v1/", headers, over)
        yield AudiencePoint(http, Paths(events="/events", subscription="/subs"))


async def test_a_batch_is_posted_with_the_key(client: AudiencePoint, vendor: Recorder) -> None:
    """The key, the configured path and the sealed bytes arrive; the receipt comes back."""
    vendor.answer = {"SequenceNumber": SEQUENCE, "ShardId": "shardId-000000000001"}
    receipt = await client.post_events(b'{"events":[]}')
    assert receipt.sequence_number == SEQUENCE
    assert vendor.paths == ["/v1/events"]
    assert vendor.keys == ["349:key"]
    assert vendor.bodies == [b'{"events":[]}']


async def test_addresses_are_subscribed(client: AudiencePoint, vendor: Recorder) -> None:
    """One call tells how many were new."""
    vendor.answer = {"new": 1, "existing": 1, "invalid": 0}
    assert await client.subscribe(ADDRESSES[:2]) == Subscription(1, 1, 0)
    assert vendor.paths == ["/v1/subs"]


async def test_counts_that_do_not_add_up_are_only_logged(
    client: AudiencePoint, vendor: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A vendor's arithmetic stops nothing, and the line about it names nobody."""
    vendor.answer = {"new": 1, "existing": 0, "invalid": 0}
    with caplog.at_level(logging.WARNING):
        assert await client.subscribe(ADDRESSES[:2]) == Subscription(1, 0, 0)
    assert "sent=2 told=1" in caplog.text
    assert "@" not in caplog.text

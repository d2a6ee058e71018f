"""Every call of AudiencePoint's client against the vendor's stand-in, over real connections."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import orjson
import pytest

from sandbox.faults import fault_from
from tests.vendors import KEY, Sandbox, sandbox_in_thread
from workers.clients.audiencepoint import (
    RESULTS,
    VENDOR,
    AudiencePoint,
    Paths,
    Receipt,
    Subscription,
    digest,
    headers,
)
from workers.clients.errors import (
    CallFailed,
    Misconfigured,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unavailable,
)
from workers.clients.http import VendorHttp, new_client

pytestmark = pytest.mark.anyio

KNOWN, UNKNOWN, WRONG = "mara.quill@example.com", "nobody@example.com", "no address"
EVENT = {
    "email": KNOWN,
    "type": "Open",
    "occurred_at_utc": "2026-01-31T12:00:00",
    "send_id": "newsletter-7",
}
START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=7)
CALLS: dict[str, tuple[str, Callable[[AudiencePoint], Awaitable[object]]]] = {
    "post_events": ("events", lambda point: point.post_events(batch(1))),
    "post_all_events": ("events", lambda point: point.post_all_events([EVENT])),
    "subscribe": ("list-subscription", lambda point: point.subscribe([KNOWN])),
    "subscribe_all": ("list-subscription", lambda point: point.subscribe_all([KNOWN])),
    "scores": ("scores", lambda point: point.scores([KNOWN])),
    "verify": ("email-verification", lambda point: point.verify(KNOWN)),
    "send_times": ("sto", lambda point: point.send_times([KNOWN], START, END)),
}
MANY = [f"reader{number}@example.com" for number in range(64)]


def batch(count: int) -> bytes:
    """Return a batch of events."""
    return orjson.dumps({"events": [EVENT] * count})


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    """Run the stand-in once for all tests of this file."""
    with sandbox_in_thread() as started:
        yield started


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """Return the stand-in, which has forgotten what was before."""
    running.memory.forget()
    running.faults.clear()
    return running


@pytest.fixture
async def point(sandbox: Sandbox) -> AsyncIterator[AudiencePoint]:
    """Give the client with the right key and the default paths."""
    async with new_client() as over:
        yield AudiencePoint(VendorHttp(VENDOR, sandbox.audiencepoint_url, headers(KEY), over))


def test_every_public_call_is_tried_here() -> None:
    """A call that is added to the client must be added to this file."""
    calls = {name: each for name, each in vars(AudiencePoint).items() if callable(each)}
    public = [name for name in calls if not name.startswith("_")]
    assert public == list(CALLS)
    assert all(inspect.iscoroutinefunction(getattr(AudiencePoint, name)) for name in public)


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_is_understood_by_the_stand_in(call: str, point: AudiencePoint) -> None:
    """With the default paths and the right key no call fails."""
    await CALLS[call][1](point)


@pytest.mark.parametrize("call", CALLS)
async def test_a_wrong_key_is_told_from_a_wrong_path(call: str, sandbox: Sandbox) -> None:
    """Both are a 403: one names the key's setting, the other the setting of the call's path."""
    async with new_client() as over:
        http = VendorHttp(VENDOR, sandbox.audiencepoint_url, headers("349:wrong"), over)
        with pytest.raises(Misconfigured, match="AUDIENCEPOINT_API_KEY"):
            await CALLS[call][1](AudiencePoint(http))
        http = VendorHttp(VENDOR, sandbox.audiencepoint_url, headers(KEY), over)
        with pytest.raises(Misconfigured, match=r"AUDIENCEPOINT_\w+_PATH"):
            await CALLS[call][1](AudiencePoint(http, Paths(*["/nowhere"] * 5)))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 429, "body": {"message": "Too Many Requests"}}, Throttled),
        ({"status": 429, "body": {"message": "Limit Exceeded"}}, QuotaExceeded),
        ({"status": 400, "body": {"message": "Invalid request body"}}, Rejected),
        ({"status": 503, "body": "<html>upstream</html>"}, Unavailable),
        ({"status": 200, "body": "<html>Please sign in</html>"}, Unavailable),
        ({"status": 200, "body": {"errorMessage": "Task timed out"}}, Unavailable),
        ({"reset": "before"}, Unavailable),
        ({"reset": "after"}, Unavailable),
        ({"cut": "body"}, Unavailable),
        ({"cut": "connection"}, Unavailable),
    ],
    ids=[
        "rate",
        "quota",
        "body",
        "proxy",
        "sign-in",
        "lambda",
        "reset",
        "reset-after",
        "half",
        "cut",
    ],
)
async def test_a_failing_call_fails_once_and_in_its_kind(
    call: str,
    fault: dict[str, object],
    kind: type[CallFailed],
    point: AudiencePoint,
    sandbox: Sandbox,
) -> None:
    """A fault is told as what it is, and the next call on the same connections succeeds."""
    sandbox.faults.add(fault_from({"endpoint": CALLS[call][0], "times": 1, **fault}))
    with pytest.raises(CallFailed) as caught:
        await CALLS[call][1](point)
    assert type(caught.value) is kind
    await CALLS[call][1](point)


async def test_events_are_queued(point: AudiencePoint, sandbox: Sandbox) -> None:
    """Thirty events come to one receipt of 56 digits; thirty-one are refused."""
    receipt = await point.post_events(batch(30))
    assert receipt == Receipt(receipt.sequence_number, "shardId-000000000001")
    assert len(receipt.sequence_number) == 56
    with pytest.raises(Rejected):
        await point.post_events(batch(31))


async def test_many_events_are_queued_in_thirties(point: AudiencePoint, sandbox: Sandbox) -> None:
    """In their order, no call with both kinds of addresses, a receipt for each."""
    events = [{**EVENT, "email": email, "send_id": f"s-{n}"} for n, email in enumerate(MANY)]
    events.insert(3, {**EVENT, "email": digest(KNOWN)})
    receipts = await point.post_all_events(events)
    plain = [each for each in events if each["email"] != digest(KNOWN)]
    assert [orjson.loads(raw)["events"] for raw in sandbox.memory.batches] == [
        *(plain[:30], plain[30:60], plain[60:]),
        [events[3]],
    ]
    assert len({receipt.sequence_number for receipt in receipts}) == 4
    assert await point.post_all_events([]) == []


async def test_subscribing_again_changes_nothing(point: AudiencePoint) -> None:
    """A plain address and its hash are the same subscription; wrong addresses are counted."""
    assert await point.subscribe_all([*MANY, WRONG]) == Subscription(64, 0, 1)
    assert await point.subscribe_all(MANY, hashed=True) == Subscription(0, 64, 0)


@pytest.mark.parametrize("hashed", [False, True])
async def test_scores_of_many_come_back_in_order(point: AudiencePoint, *, hashed: bool) -> None:
    """Each of 66 addresses has its own scores, the same in a call of its own."""
    found = await point.scores([*MANY, KNOWN, UNKNOWN], hashed=hashed)
    assert [score.address for score in found] == [*MANY, KNOWN, UNKNOWN]
    assert [score.matched for score in found[-2:]] == ["yes", "no"]
    assert found[-2:-1] == await point.scores([KNOWN], hashed=hashed)


@asynccontextmanager
async def behaving(sandbox: Sandbox, **settings: object) -> AsyncIterator[None]:
    """Have the stand-in behave otherwise until the block ends."""
    url = f"{sandbox.url}/settings"
    async with httpx.AsyncClient() as client:
        (await client.post(url, json=settings)).raise_for_status()
        yield
        await client.delete(url)


async def test_another_order_and_other_types_are_read_the_same(
    point: AudiencePoint, sandbox: Sandbox
) -> None:
    """Reversed answers, and numbers in place of texts, come to the same scores."""
    asked = [*MANY, KNOWN]
    as_text = await point.scores(asked)
    async with behaving(sandbox, scores_reversed=True, scores_typed=True):
        as_numbers = await point.scores(asked)
    assert [replace(score, raw={}) for score in as_numbers] == [
        replace(score, raw={}) for score in as_text
    ]


async def test_an_address_that_is_left_out_could_not_be_told(
    point: AudiencePoint, sandbox: Sandbox
) -> None:
    """The answer's silence about one address moves no score to its neighbour."""
    async with behaving(sandbox, scores={KNOWN: None}):
        found = await point.scores([MANY[0], KNOWN, MANY[1]])
    assert [score.matched for score in found] == ["no", "err", "no"]


async def test_scores_have_their_types(point: AudiencePoint) -> None:
    """Every value of the model is read: numbers, times, lists, truths; none is left in `other`."""
    (score,) = await point.scores([KNOWN])
    assert score.score is not None
    assert score.send_time is not None
    assert score.last_seen == "2026-01-12T09:04:00Z"
    assert score.devices == ("Desktop", "Mobile")
    assert score.last_seen_auto_open is False
    assert score.other == {}


async def test_only_selected_scores_come(point: AudiencePoint) -> None:
    """`scoreSelection` is obeyed: nothing else is told."""
    (score,) = await point.scores([digest(KNOWN)], ["score", "devices"])
    assert sorted(score.raw) == ["devices", "matched", "score"]
    assert score.matched == "yes"


async def test_an_address_without_form_is_invalid(point: AudiencePoint) -> None:
    """The vendor's word about what is no address comes through."""
    assert [score.matched for score in await point.scores([WRONG])] == ["invalid"]


@pytest.mark.parametrize("by_get", [False, True])
async def test_addresses_are_verified(point: AudiencePoint, *, by_get: bool) -> None:
    """Both ways give the same: a result, and a corrected address for a misspelt domain."""
    assert (await point.verify(KNOWN, by_get)).result == "Verified"
    misspelt = await point.verify("testemail@gnail.com", by_get)
    assert (misspelt.email, misspelt.result) == ("testemail@gnail.com", "Invalid")
    assert misspelt.corrected_address == "testemail@gmail.com"
    senseless = await point.verify("nonsense", by_get)
    assert senseless.result == "Invalid"
    assert senseless.suggestion
    assert senseless.corrected_address is None


@pytest.mark.parametrize("result", RESULTS)
async def test_every_result_of_a_verification_is_read(point: AudiencePoint, result: str) -> None:
    """The stand-in's addresses say what becomes of them."""
    assert (await point.verify(f"{result.lower()}.2@example.com")).result == result


async def test_send_times_of_many_are_joined(point: AudiencePoint) -> None:
    """64 addresses come to 64 entries, and a default that is asked for is told again."""
    times = await point.send_times(MANY, START, END)
    assert (times.start, times.end) == ("2026-03-01T00:00:00", "2026-03-08T00:00:00")
    assert times.default == "2026-03-08T00:20:00"
    assert len(times.entries) == 64
    times = await point.send_times(MANY[:1], START, END, START + timedelta(days=1), hashed=True)
    assert times.default == "2026-03-02T00:00:00"

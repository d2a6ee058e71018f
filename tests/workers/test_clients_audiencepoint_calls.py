"""AudiencePoint's calls over HTTP: what leaves, how long lists are split and joined, what is refused here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as Incoming
from starlette.responses import JSONResponse
from starlette.routing import Route

from workers.clients.audiencepoint import (
    VENDOR,
    AudiencePoint,
    Campaign,
    Paths,
    Subscription,
    digest,
    headers,
    scores_request,
    send_times_request,
    verification_request,
)
from workers.clients.errors import Unavailable
from workers.clients.http import VendorHttp

pytestmark = pytest.mark.anyio

PEOPLE = [f"reader{number}@example.com" for number in range(64)]
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 10, 20, tzinfo=UTC)
#: differ from the defaults, so that no call gets by with those
PATHS = Paths("/in", "/watch", "/rank", "/probe", "/when")


class Vendor:
    """A vendor that keeps what it was sent, and answers by a function of it."""

    def __init__(self) -> None:
        self.say: Callable[[dict[str, Any]], object] = lambda body: {}
        self.lines: list[str] = []
        self.keys: set[str | None] = set()
        self.bodies: list[dict[str, Any]] = []
        self.fails_after = 1000
        self.fails_with = 503

    async def __call__(self, request: Incoming) -> JSONResponse:
        query = f"?{request.url.query}" if request.url.query else ""
        self.lines.append(f"{request.method} {request.url.path}{query}")
        self.keys.add(request.headers.get("x-api-key"))
        if len(self.lines) > self.fails_after:
            return JSONResponse({"message": "Service Unavailable"}, self.fails_with)
        self.bodies.append(orjson.loads(await request.body() or b"{}"))
        return JSONResponse(self.say(self.bodies[-1]))

    @property
    def asked(self) -> list[list[str]]:
        """The addresses of each call."""
        return [body["emailAddresses"] for body in self.bodies]


def scored(body: dict[str, Any]) -> object:
    """Answer scores backwards, each telling under which address it was asked for."""
    return [
        {"emailAddress": each, "matched": "yes", "asked": each}
        for each in reversed(body["emailAddresses"])
    ]


def counted(body: dict[str, Any]) -> object:
    """Answer a subscription: all are new but the first."""
    return {"new": len(body["emailAddresses"]) - 1, "existing": 1, "invalid": 0}


def timed(body: dict[str, Any]) -> object:
    """Answer send times."""
    return [{**body, "emailAddresses": [{"email": each} for each in body["emailAddresses"]]}]


@pytest.fixture
def vendor() -> Vendor:
    """Return a fresh vendor."""
    return Vendor()


@pytest.fixture
async def client(vendor: Vendor) -> AsyncIterator[AudiencePoint]:
    """Give the client, its calls answered by the vendor."""

    async def endpoint(request: Incoming) -> JSONResponse:
        return await vendor(request)

    app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as over:
        http = VendorHttp(VENDOR, "http://vendor.example/v1/", headers("349:key"), over)
        yield AudiencePoint(http, PATHS)


async def test_every_call_goes_to_its_own_path_with_the_key(
    client: AudiencePoint, vendor: Vendor
) -> None:
    """Each path is a setting of its own; the key is in the header of every call."""
    vendor.say = scored
    await client.scores(PEOPLE[:1])
    vendor.say = timed
    await client.send_times(PEOPLE[:1], START, END)
    vendor.say = lambda body: {"Email": "x", "Result": "Verified"}
    await client.verify("mara+news@example.com")
    await client.verify("mara+news@example.com", by_get=True)
    assert vendor.lines == [
        "POST /v1/rank",
        "POST /v1/when",
        "POST /v1/probe",
        "GET /v1/probe?email=mara%2Bnews%40example.com",
    ]
    assert vendor.keys == {"349:key"}


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (30, [30]), (31, [30, 1]), (64, [30, 30, 4])]
)
async def test_scores_are_asked_for_in_thirties_and_joined(
    client: AudiencePoint, vendor: Vendor, count: int, sizes: list[int]
) -> None:
    """Each address gets its own scores, in the order asked, whatever the order of the answers."""
    vendor.say = scored
    found = await client.scores(PEOPLE[:count])
    assert [len(asked) for asked in vendor.asked] == sizes
    assert [score.address for score in found] == PEOPLE[:count]
    assert [score.other["asked"] for score in found] == PEOPLE[:count]


async def test_an_address_is_asked_for_once_and_answered_each_time(
    client: AudiencePoint, vendor: Vendor
) -> None:
    """The same address in other letters or with blanks leaves once, trimmed; all get the answer."""
    vendor.say = scored
    given = [" Mara@example.com", "mara@EXAMPLE.com ", "teo@example.net", " Mara@example.com"]
    found = await client.scores(given)
    assert vendor.asked == [["Mara@example.com", "teo@example.net"]]
    assert [(score.address, score.matched) for score in found] == [(each, "yes") for each in given]


async def test_plain_addresses_and_hashes_are_not_mixed(
    client: AudiencePoint, vendor: Vendor
) -> None:
    """One call holds one kind; hashes leave in lower case; the order asked is kept."""
    vendor.say = scored
    one, other = digest("mara@example.com").upper(), digest("uma@example.org")
    found = await client.scores([one, "teo@example.net", other])
    assert vendor.asked == [["teo@example.net"], [one.lower(), other]]
    assert [score.address for score in found] == [one, "teo@example.net", other]
    assert {score.matched for score in found} == {"yes"}


async def test_hashed_addresses_come_back_under_their_names(
    client: AudiencePoint, vendor: Vendor
) -> None:
    """With `hashed` no plain address leaves, and the caller needs no map from hashes to addresses."""
    vendor.say = scored
    found = await client.scores(["Mara@example.com", "teo@example.net"], hashed=True)
    assert vendor.asked == [[digest("mara@example.com"), digest("teo@example.net")]]
    assert [(s.address, s.matched) for s in found] == [
        ("Mara@example.com", "yes"),
        ("teo@example.net", "yes"),
    ]


async def test_a_selection_leaves_with_every_call(client: AudiencePoint, vendor: Vendor) -> None:
    """Chosen scores are named in each call of a split list; without any the key is left out."""
    vendor.say = scored
    await client.scores(PEOPLE[:31], ["score", "send_time"])
    await client.scores(PEOPLE[:1], [])
    assert [body.get("scoreSelection") for body in vendor.bodies] == [
        ["score", "send_time"],
        ["score", "send_time"],
        None,
    ]


async def test_subscriptions_are_split_and_summed(client: AudiencePoint, vendor: Vendor) -> None:
    """Any number of addresses is subscribed in thirties, each once, and counted together."""
    vendor.say = counted
    counts = await client.subscribe_all([*PEOPLE[:31], PEOPLE[0].upper()])
    assert counts == Subscription(new=29, existing=2, invalid=0)
    assert vendor.asked == [PEOPLE[:30], PEOPLE[30:31]]


async def test_subscriptions_can_leave_as_hashes(client: AudiencePoint, vendor: Vendor) -> None:
    """With `hashed` an address and its hash are the same one."""
    vendor.say = counted
    await client.subscribe_all(["mara@example.com", digest("mara@example.com")], hashed=True)
    assert vendor.asked == [[digest("mara@example.com")]]


async def test_send_times_are_split_and_joined(client: AudiencePoint, vendor: Vendor) -> None:
    """Every call carries the same times, in UTC without zone and fraction; entries are put together."""
    vendor.say = timed
    default = datetime(2024, 2, 17, 13, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    found = await client.send_times(PEOPLE[:31], START, END.replace(tzinfo=None), default)
    assert [{**body, "emailAddresses": len(body["emailAddresses"])} for body in vendor.bodies] == [
        {
            "emailAddresses": size,
            "startTimeUtc": "2024-01-01T00:00:00",
            "endTimeUtc": "2024-03-10T20:00:00",
            "defaultSendTime": "2024-02-17T11:00:00",
        }
        for size in (30, 1)
    ]
    assert found.entries == tuple({"email": each} for each in PEOPLE[:31])
    assert found.default == "2024-02-17T11:00:00"


async def test_no_addresses_make_no_call(client: AudiencePoint, vendor: Vendor) -> None:
    """An empty list is never sent: there is nothing to tell, and no send times for nobody."""
    assert await client.scores([]) == []
    assert await client.subscribe_all([]) == Subscription(0, 0, 0)
    with pytest.raises(ValueError, match="at least one"):
        await client.send_times([], START, END)
    assert vendor.lines == []


async def test_the_failure_of_one_call_is_raised(client: AudiencePoint, vendor: Vendor) -> None:
    """Half of a long list is no answer: no address is taken for unknown because its call failed."""
    vendor.say, vendor.fails_after = scored, 1
    with pytest.raises(Unavailable, match="503"):
        await client.scores(PEOPLE[:31])
    assert len(vendor.lines) == 2


EVENTS = [
    {"email": digest(each) if n in (1, 40) else each, "send_id": f"{n}"}
    for n, each in enumerate(PEOPLE)
]


@pytest.mark.parametrize(("status", "is_unclear"), [(503, False), (504, True)])
async def test_a_failure_tells_which_events_were_taken(
    client: AudiencePoint, vendor: Vendor, status: int, *, is_unclear: bool
) -> None:
    """Who sends the rest again sends none twice: what is queued, and what may be, is named by its place."""
    vendor.say = lambda body: {"SequenceNumber": "49", "ShardId": "shardId-000000000001"}
    vendor.fails_after, vendor.fails_with = 1, status
    with pytest.raises(Unavailable, match=rf"{status}.*; 30 of 64 events were taken") as caught:
        await client.post_all_events(EVENTS)
    assert [EVENTS[n] for n in caught.value.taken] == vendor.bodies[0]["events"]
    next_thirty = [n for n in range(64) if n not in (1, 40, *caught.value.taken)][:30]
    assert list(caught.value.unclear) == (next_thirty if is_unclear else [])
    assert len(vendor.lines) == 2


@pytest.mark.parametrize("wrong", [{"email": " "}, {"email": None}, {"type": "Open"}, "Open"])
async def test_an_event_without_an_address_holds_all_back(
    client: AudiencePoint, vendor: Vendor, wrong: Any
) -> None:
    """As does a text that is no Unicode: none of a list leaves before all of it can."""
    for each in (wrong, {"email": "a@example.com", "send_id": "\ud800"}):
        with pytest.raises(ValueError, match=r"event 64|JSON"):
            await client.post_all_events([*EVENTS, each])
    assert vendor.lines == []


@pytest.mark.parametrize("given", [["mara@example.com", " "], [""], "mara@example.com"])
async def test_empty_addresses_and_bare_text_never_leave(
    client: AudiencePoint, vendor: Vendor, given: Any
) -> None:
    """A wrong list is the caller's mistake: told as one before anything is sent."""
    with pytest.raises(ValueError, match="address"):
        await client.scores(given)
    with pytest.raises(ValueError, match="address"):
        await client.subscribe_all(given)
    with pytest.raises(ValueError, match="address"):
        await client.send_times(given, START, END)
    assert vendor.lines == []


@pytest.mark.parametrize("selection", [["score", "luck"], "luck"])
def test_an_unknown_score_is_not_asked_for(selection: Any) -> None:
    """A name that the model does not have is a mistake of the caller's, and named."""
    with pytest.raises(ValueError, match="luck"):
        scores_request(PEOPLE[:1], selection)


@pytest.mark.parametrize("count", [0, 31])
def test_one_request_holds_one_to_thirty(count: int) -> None:
    """The pure functions make one call each and refuse what it cannot carry."""
    with pytest.raises(ValueError, match="1 to 30"):
        scores_request(PEOPLE[:count])
    with pytest.raises(ValueError, match="1 to 30"):
        send_times_request(PEOPLE[:count], Campaign(START, END))


def test_a_campaign_does_not_end_before_it_begins() -> None:
    """Times of different zones are compared as the moments they are."""
    east = timezone(timedelta(hours=2))
    with pytest.raises(ValueError, match="before it begins"):
        Campaign(START, START.replace(tzinfo=east))
    Campaign(START.replace(tzinfo=east), START)


@pytest.mark.parametrize("email", ["", "  ", digest("mara@example.com"), f" {'A' * 64} "])
def test_only_a_plain_address_can_be_verified(email: str) -> None:
    """The vendor verifies no hash, so none is sent."""
    with pytest.raises(ValueError, match="plain address"):
        verification_request(email)

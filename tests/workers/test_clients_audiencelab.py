"""AudienceLab's enrichment: the form that is asked, and what each recorded answer is read as."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as Incoming
from starlette.responses import JSONResponse
from starlette.routing import Route

from workers.clients import audiencelab
from workers.clients.audiencelab import AudienceLab, enrich_request, read_enrich
from workers.clients.errors import CallFailed, Misconfigured, Rejected, Unavailable
from workers.clients.http import VendorHttp
from workers.clients.messages import Answer

pytestmark = pytest.mark.anyio

HASH = "ab" * 32


def answer(status: int, body: str) -> Answer:
    """Return an answer without headers."""
    return Answer(status, {}, body.encode())


def test_the_form_holds_nothing_that_was_not_asked_for() -> None:
    """Unknown keys are refused, so only the two required ones leave by default."""
    sent = enrich_request({"email": "ana@example.com"})
    assert (sent.method, sent.path) == ("POST", "/enrich")
    assert orjson.loads(sent.body) == {"filter": {"email": "ana@example.com"}, "is_or_match": True}


def test_the_form_may_name_itself() -> None:
    """A request id and a match of all facts are sent when wanted."""
    sent = enrich_request({"phone": "5555550100"}, is_or_match=False, request_id="visitor-7")
    assert orjson.loads(sent.body) == {
        "filter": {"phone": "5555550100"},
        "is_or_match": False,
        "request_id": "visitor-7",
    }


@pytest.mark.parametrize(
    "row",
    [
        '{"first_name":"Ana","email":"ana@example.com"}',
        '{"FIRST_NAME":"Ana","Email":"ana@example.com"}',
    ],
)
def test_columns_are_read_in_either_case(row: str) -> None:
    """The vendor's pages and its live answers differ in case; here columns are UPPER_CASE."""
    body = f'{{"request_id":"r","timestamp":1750000000000,"found":1,"result":[{row}]}}'
    assert read_enrich(answer(200, body)) == [{"FIRST_NAME": "Ana", "EMAIL": "ana@example.com"}]


@pytest.mark.parametrize("row", ['{"email":"","EMAIL":"a"}', '{"EMAIL":"a","email":"b"}'])
def test_of_two_spellings_the_first_that_says_something_wins(row: str) -> None:
    """A column given in both cases is one column, and an empty spelling hides nothing."""
    assert read_enrich(answer(200, f'{{"result":[{row}]}}')) == [{"EMAIL": "a"}]


def test_values_stay_as_they_came() -> None:
    """Lists and nulls are left to the parser of AudienceLab's columns."""
    body = '{"Found":2,"Result":[{"emails":["a","b"]},{"age":null},7]}'
    assert read_enrich(answer(200, body)) == [{"EMAILS": ["a", "b"]}, {"AGE": None}]


def test_a_single_person_may_come_without_a_list() -> None:
    """One object in place of the list is one person."""
    assert read_enrich(answer(200, '{"found":1,"result":{"city":"Bergen"}}')) == [
        {"CITY": "Bergen"}
    ]


@pytest.mark.parametrize(
    "body",
    [
        '{"found":0,"result":[]}',
        '{"found":0,"result":null}',
        '{"found":0}',
        '{"found":3,"result":[]}',
        '{"result":[]}',
        '{"status":"NOT_FOUND"}',
        '{"status":"no data"}',
        '{"status":"NO_DATA"}',
    ],
)
def test_nobody_found_is_an_empty_list(body: str) -> None:
    """All the ways to say "nobody" are an answer, not a failure."""
    assert read_enrich(answer(200, body)) == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html></html>",
        "[]",
        "{}",
        '{"found":2}',
        '{"found":1,"result":["x"]}',
        '{"result":null}',
        '{"error":{"code":"INTERNAL","message":"no"},"result":[]}',
        '{"status":"FAILED"}',
    ],
)
def test_a_success_without_a_result_is_the_vendors_failure(body: str) -> None:
    """ "Not found" is remembered for a month, so nothing unclear is taken for it."""
    with pytest.raises(Unavailable):
        read_enrich(answer(200, body))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, '{"error":"invalid filter field: COMPANY"}', Rejected),
        (401, '{"message":"no key"}', Misconfigured),
        (404, '{"error":{"code":"NOT_FOUND","message":"no"}}', Misconfigured),
        (404, '{"status":"NOT_FOUND"}', Misconfigured),
        (429, '{"error":"Too many requests"}', Unavailable),
        (500, '{"found":0,"result":[]}', Unavailable),
    ],
)
def test_refusals_are_told_apart(status: int, body: str, kind: type[CallFailed]) -> None:
    """Statuses decide before bodies: only a 2xx can say "nobody"."""
    with pytest.raises(kind):
        read_enrich(answer(status, body))


def test_a_wrong_address_names_the_base_url() -> None:
    """There is no path setting for AudienceLab: the base URL is what can be wrong."""
    with pytest.raises(Misconfigured, match="AUDIENCELAB_BASE_URL"):
        read_enrich(answer(404, ""))


class Seen:
    """What the vendor was sent."""

    def __init__(self) -> None:
        self.forms: list[object] = []
        self.headers: list[tuple[str | None, str | None]] = []


@pytest.fixture
def seen() -> Seen:
    """Return an empty record."""
    return Seen()


@pytest.fixture
async def http(seen: Seen) -> AsyncIterator[VendorHttp]:
    """Give the HTTP layer in front of a vendor that knows one person."""

    async def enrich(request: Incoming) -> JSONResponse:
        seen.forms.append(await request.json())
        seen.headers.append(
            (request.headers.get("x-api-key"), request.headers.get("authorization"))
        )
        return JSONResponse({"found": 1, "result": [{"FIRST_NAME": "Ana"}]})

    app = Starlette(routes=[Route("/enrich", enrich, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as over:
        headers = audiencelab.headers("sk_key")
        yield VendorHttp(audiencelab.VENDOR, "http://vendor.example", headers, over)


async def test_a_person_is_asked_for_by_one_fact(http: VendorHttp, seen: Seen) -> None:
    """Address, hash and telephone each have their own filter; the key goes in both headers."""
    client = AudienceLab(http)
    assert await client.enrich(email="ana@example.com") == [{"FIRST_NAME": "Ana"}]
    await client.enrich(hem_sha256=HASH)
    await client.enrich(phone="+15555550142")
    assert seen.forms == [
        {"filter": {"email": "ana@example.com"}, "is_or_match": True},
        {"filter": {"sha256_personal_email": HASH}, "is_or_match": True},
        {"filter": {"phone": "+15555550142"}, "is_or_match": True},
    ]
    assert set(seen.headers) == {("sk_key", "Bearer sk_key")}


async def test_the_filter_of_a_hash_can_be_renamed(http: VendorHttp, seen: Seen) -> None:
    """Its name is not documented, so it is a setting."""
    await AudienceLab(http, hash_filter="hem").enrich(hem_sha256=HASH)
    assert seen.forms == [{"filter": {"hem": HASH}, "is_or_match": True}]


async def test_exactly_one_fact_is_given(http: VendorHttp, seen: Seen) -> None:
    """None, empty ones and two at once are our own mistake and never reach the vendor."""
    client = AudienceLab(http)
    for facts in ({}, {"email": ""}, {"email": "ana@example.com", "phone": "5555550100"}):
        with pytest.raises(ValueError, match="exactly one"):
            await client.enrich(**facts)
    assert seen.forms == []

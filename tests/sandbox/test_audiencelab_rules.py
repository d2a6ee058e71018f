"""The stand-in for AudienceLab accepts, finds and refuses what the vendor would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from sandbox.addresses import hash_of
from sandbox.app import create

pytestmark = pytest.mark.anyio

QUESTION: dict[str, Any] = {"filter": {"email": "mara.quill@example.com"}, "is_or_match": True}


@pytest.fixture
def app() -> Starlette:
    """A sandbox of its own for each test."""
    return create()


@pytest.fixture
async def vendor(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://sandbox/audiencelab"
    ) as client:
        yield client


async def _ask(vendor: httpx.AsyncClient, body: object) -> httpx.Response:
    return await vendor.post("/enrich", json=body, headers={"X-Api-Key": "sandbox"})


@pytest.mark.parametrize(
    ("chosen", "first_name"),
    [
        ({"email": " Mara.Quill@example.com"}, "Mara"),
        ({"email": "m.quill@harbour.example.org"}, "Mara"),
        ({"sha256_personal_email": hash_of("leonie.marsh@example.org")}, "Leonie"),
        ({"phone": "(602) 555-0106"}, "Ravi"),
        ({"phone": "12185550102"}, "Mara"),
    ],
)
async def test_a_person_is_found_by_address_hash_or_phone(
    vendor: httpx.AsyncClient, chosen: object, first_name: str
) -> None:
    """Each way to ask finds its person, and the answer's keys are in upper case."""
    answer = (await _ask(vendor, {"filter": chosen, "is_or_match": True})).json()
    assert answer["found"] == 1
    [person] = answer["result"]
    assert person["FIRST_NAME"] == first_name
    assert all(name.isupper() for name in person)


async def test_nobody_found_is_no_error(app: Starlette, vendor: httpx.AsyncClient) -> None:
    """A question that finds nobody is answered 200 with nothing in it; a hash is no address."""
    for wanted in ("nobody@example.com", hash_of("mara.quill@example.com")):
        answer = await _ask(vendor, {"filter": {"email": wanted}, "is_or_match": False})
        assert answer.status_code == 200
        assert (answer.json()["found"], answer.json()["result"]) == (0, [])
    assert app.state.memory.counters()["enrich_calls"] == 2
    assert app.state.memory.counters()["enrich_found"] == 0


async def test_or_widens_and_and_narrows(vendor: httpx.AsyncClient) -> None:
    """`is_or_match` decides whether any filter or every filter must be met."""
    chosen = {"first_name": "Tobias", "email": "mara.quill@example.com"}
    founds = [
        (await _ask(vendor, {"filter": chosen, "is_or_match": wide})).json()["found"]
        for wide in (True, False)
    ]
    assert founds == [2, 0]


async def test_the_request_id_is_echoed_and_fields_are_chosen(vendor: httpx.AsyncClient) -> None:
    """The caller's id comes back, and only the columns asked for."""
    answer = (await _ask(vendor, QUESTION | {"request_id": "r-1", "fields": ["last_name"]})).json()
    assert answer["request_id"] == "r-1"
    assert answer["result"] == [{"LAST_NAME": "Quill"}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (QUESTION | {"email": "x"}, "Malformed JSON/Unknown Field detected: <nil>"),
        ([QUESTION], "Malformed JSON/Unknown Field detected: <nil>"),
        ({"filter": QUESTION["filter"]}, "is_or_match is required"),
        (QUESTION | {"is_or_match": "true"}, "is_or_match is required"),
        ({"is_or_match": True}, "filter is required"),
        (QUESTION | {"filter": {}}, "filter is required"),
        (QUESTION | {"filter": {"company": "x"}}, "invalid filter field: COMPANY"),
        (QUESTION | {"filter": {"email": ""}}, "invalid filter value: EMAIL"),
        (QUESTION | {"filter": {"email": ["x"]}}, "invalid filter value: EMAIL"),
        (QUESTION | {"fields": "EMAIL"}, "fields is an array of strings"),
        (QUESTION | {"request_id": 5}, "request_id is a string"),
    ],
)
async def test_what_the_vendor_does_not_know_is_refused(
    app: Starlette, vendor: httpx.AsyncClient, body: object, words: str
) -> None:
    """Unknown keys and missing ones are refused in the vendor's words, and nothing is kept."""
    answer = await _ask(vendor, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == words
    assert app.state.memory.enrich_requests == []


async def test_a_body_that_is_not_json_is_refused(vendor: httpx.AsyncClient) -> None:
    """Half a body is refused like an unknown field."""
    answer = await vendor.post("/enrich", content=b"{", headers={"X-Api-Key": "sandbox"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Api-Key": "sandbox"}, 200),
        ({"Authorization": "Bearer sandbox"}, 200),
        ({"X-Api-Key": "wrong", "Authorization": "Bearer sandbox"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({}, 401),
    ],
)
async def test_either_header_may_hold_the_key(
    vendor: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    """The observed header and the older bearer form both work; a wrong or no key does not."""
    answer = await vendor.post("/enrich", json=QUESTION, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(("method", "path"), [("POST", "/enrich/contact"), ("GET", "/enrich")])
async def test_an_unknown_path_is_not_found(
    vendor: httpx.AsyncClient, method: str, path: str
) -> None:
    """What is not there is answered 404 in the vendor's error shape."""
    answer = await vendor.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"

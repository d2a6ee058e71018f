"""Audiences of AudienceLab's stand-in: made from filters, filled in time, tried out before."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sandbox.memory import Memory
from sandbox.people import COLUMNS
from sandbox.settings import Settings

pytestmark = pytest.mark.anyio

REFUSED = "audience enqueue failed: <nil>"
UNKNOWN_KEY = "Malformed JSON/Unknown Field detected: <nil>"
ASKED: dict[str, Any] = {"name": "Buyers", "filters": {"city": ["Duluth"]}}
RULE = {"field": "JOB_TITLE", "operator": "contains", "value": "Engineer"}


def _id_of(memory: Memory, name: str) -> str:
    [found] = [each.id for each in memory.account.audiences.values() if each.name == name]
    return found


@pytest.mark.parametrize(
    ("dialect", "rest"),
    [
        ("observed", {"total_records": 2, "page_size": 1, "page": 1, "total_pages": 2}),
        ("documented", {"total": 2}),
    ],
)
async def test_the_list(
    lab: httpx.AsyncClient, settings: Settings, dialect: Any, rest: object
) -> None:
    """Items have six keys; the page around them is the dialect's."""
    settings.dialect = dialect
    page = (await lab.get("/audiences?page_size=1")).json()
    [item] = page.pop("data")
    assert page == rest
    assert item == {
        "id": item["id"],
        "name": "Buyers of lamps",
        "next_scheduled_refresh": "2026-02-06T00:00:00Z",
        "refresh_interval": 30,
        "scheduled_refresh": True,
        "webhook_url": None,
    }


@pytest.mark.parametrize(("dialect", "most"), [("observed", 1000), ("documented", 100)])
async def test_a_page_of_the_list_has_a_limit(
    lab: httpx.AsyncClient, settings: Settings, dialect: Any, most: int
) -> None:
    """The limit itself is accepted, one more is refused."""
    settings.dialect = dialect
    statuses = [
        (await lab.get(f"/audiences?page_size={size}")).status_code for size in (most, most + 1)
    ]
    assert statuses == [200, 400]


async def test_an_audience_is_pages_of_people_as_observed(
    lab: httpx.AsyncClient, memory: Memory
) -> None:
    """Rows of 74 columns in an envelope of four numbers."""
    path = f"/audiences/{_id_of(memory, 'Buyers of lamps')}"
    page = (await lab.get(path, params={"page": 2})).json()
    rows = page.pop("data")
    assert page == {"total_records": 120, "page_size": 100, "page": 2, "total_pages": 2}
    assert len(rows) == 20
    assert all(tuple(row) == COLUMNS for row in rows)


async def test_an_unknown_audience_is_told_with_200(lab: httpx.AsyncClient) -> None:
    """As observed an id that nothing has is no HTTP error, neither asked for nor deleted."""
    for method in ("GET", "DELETE"):
        answer = await lab.request(method, "/audiences/nobody")
        assert (answer.status_code, answer.json()) == (200, {"status": "NOT_FOUND"})


async def test_an_empty_audience_has_no_data(lab: httpx.AsyncClient, memory: Memory) -> None:
    """In place of an empty page there is a word."""
    answer = await lab.get(f"/audiences/{_id_of(memory, 'Nobody yet')}")
    assert (answer.status_code, answer.json()) == (200, {"status": "no data"})


async def test_a_new_audience_fills_by_being_looked_at(
    lab: httpx.AsyncClient, settings: Settings
) -> None:
    """It is empty until the look that `polls` counts."""
    settings.polls = 3
    made = (await lab.post("/audiences", json=ASKED | {"days_back": 7})).json()
    assert set(made) == {"audienceId"}
    looks = [(await lab.get(f"/audiences/{made['audienceId']}")).json() for _ in range(3)]
    assert looks[:2] == [{"status": "no data"}] * 2
    assert looks[2]["total_records"] == 120


async def test_an_audience_as_documented(lab: httpx.AsyncClient, settings: Settings) -> None:
    """It is made from a list of filters, shown as itself, deleted with a word, then unknown."""
    settings.dialect = "documented"
    body = {"name": "Engineers", "filters": [RULE], "webhook_url": "https://relay.example.com"}
    made = await lab.post("/audiences", json=body)
    assert made.status_code == 201
    path = f"/audiences/{made.json()['id']}"
    assert (await lab.get(path)).json() == made.json()
    assert (await lab.delete(path)).json() == {"success": True}
    assert [(await lab.request(method, path)).status_code for method in ("GET", "DELETE")] == [
        *(404, 404)
    ]


async def test_an_audience_is_deleted_without_a_body_as_observed(
    lab: httpx.AsyncClient, memory: Memory
) -> None:
    """204, as for a pixel."""
    answer = await lab.delete(f"/audiences/{_id_of(memory, 'Nobody yet')}")
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"filters": ASKED["filters"]}, "name is required"),
        ({"name": "a"}, REFUSED),
        ({"name": "a", "filters": {}}, REFUSED),
        ({"name": "a", "filters": [RULE]}, REFUSED),
        ({"name": "a", "filters": {"towns": ["b"]}}, UNKNOWN_KEY),
        ({"name": "a", "filters": {"age": {"min": 5}}}, UNKNOWN_KEY),
        ({"name": "a", "filters": {"age": 5}}, "age is an object"),
        ({"name": "a", "filters": {"city": "b"}}, "city is an array of strings"),
        (ASKED | {"segment": "b"}, "segment is an array of strings"),
        (ASKED | {"days_back": 0}, "days_back is a number from 1 to any"),
        (ASKED | {"webhook_url": "https://relay.example.com"}, UNKNOWN_KEY),
    ],
)
async def test_what_makes_no_audience_as_observed(
    lab: httpx.AsyncClient, memory: Memory, body: object, words: str
) -> None:
    """Filters are an object with known names and something in it; nothing is made otherwise."""
    answer = await lab.post("/audiences", json=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, words)
    assert len(memory.account.audiences) == 2


@pytest.mark.parametrize(
    "filters",
    [
        None,
        [],
        {"city": ["Duluth"]},
        ["city"],
        [RULE | {"operator": "like"}],
        [RULE | {"value": None}],
        [RULE | {"field": 5}],
        [RULE | {"more": 5}],
        [{"field": "JOB_TITLE"}],
    ],
)
async def test_what_makes_no_audience_as_documented(
    lab: httpx.AsyncClient, settings: Settings, filters: object
) -> None:
    """Filters are a list of field, operator and value, none empty."""
    settings.dialect = "documented"
    answer = await lab.post("/audiences", json={"name": "a", "filters": filters})
    assert answer.status_code == 400


async def test_a_preview_is_a_sample(lab: httpx.AsyncClient) -> None:
    """So many rows as asked for, how many there would be, and how full each column is."""
    asked = {"filters": ASKED["filters"], "limit": 4, "days_back": 10, "include_dnc": True}
    told = (await lab.post("/audiences/preview", json=asked)).json()
    assert set(told) == {"job_id", "count", "result", "field_coverage"}
    assert (told["count"], len(told["result"])) == (120, 4)
    assert set(told["field_coverage"]) == set(COLUMNS)
    assert told["field_coverage"]["FIRST_NAME"] == 1
    assert told["field_coverage"]["COMPANY_NAME"] == 0.25
    none = (await lab.post("/audiences/preview", json=asked | {"limit": 0})).json()
    assert none["result"] == []


@pytest.mark.parametrize(
    "more",
    [{"days_back": 11}, {"days_back": 0}, {"limit": 501}, {"limit": True}, {"name": "a"}],
)
async def test_a_preview_has_limits(lab: httpx.AsyncClient, more: dict[str, Any]) -> None:
    """One to ten days, five hundred rows at most, no other keys."""
    body = {"filters": ASKED["filters"], **more}
    assert (await lab.post("/audiences/preview", json=body)).status_code == 400


async def test_a_custom_audience_is_made_elsewhere(lab: httpx.AsyncClient) -> None:
    """Topic and description are needed, and a word is all the answer."""
    body = {"topic": "sailing", "description": "people who sail"}
    assert (await lab.post("/audiences/custom", json=body)).json() == {"status": "processing"}
    assert (await lab.post("/audiences/custom", json={"topic": "sailing"})).status_code == 400
    assert (await lab.post("/audiences/custom", json=body | {"name": "a"})).status_code == 400


async def test_attributes_as_observed(lab: httpx.AsyncClient) -> None:
    """Five kinds, each asked for alone or with the others; another kind is not found."""
    every = (await lab.get("/audiences/attributes")).json()["attributes"]
    assert set(every) == {"segments", "industries", "departments", "seniority", "sic"}
    for kind, listed in every.items():
        alone = (await lab.get(f"/audiences/attributes/{kind}")).json()
        assert alone == {"attributes": {kind: listed}}
        assert listed["count"] == len(listed["data"])
        assert all(set(each) == {"id", "name", "b2b"} for each in listed["data"])
    assert (await lab.get("/audiences/attributes/luck")).status_code == 404


async def test_attributes_as_documented(lab: httpx.AsyncClient, settings: Settings) -> None:
    """The 84 columns, each with label, type and category."""
    settings.dialect = "documented"
    listed = (await lab.get("/audiences/attributes")).json()["attributes"]
    assert len(listed) == 84
    assert all(set(each) == {"name", "label", "type", "category"} for each in listed)

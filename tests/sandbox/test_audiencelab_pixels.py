"""Pixels of AudienceLab's stand-in: made, shown, deleted, and what they have seen."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from sandbox.addresses import hash_of
from sandbox.invented import V3_COLUMNS, V4_COLUMNS
from sandbox.memory import Memory
from sandbox.settings import Settings

pytestmark = pytest.mark.anyio

SITE = {"websiteName": "Inn", "websiteUrl": "https://inn.example.com"}
ITEM = {"id", "install_url", "last_sync", "webhook_url", "website_name", "website_url"}


async def test_the_list_is_a_page_as_observed(
    lab: httpx.AsyncClient, settings: Settings, memory: Memory
) -> None:
    """The page tells its place; its total goes by the name that is set, for both were seen."""
    page = (await lab.get("/pixels", params={"page_size": 1, "page": 2})).json()
    [item] = page.pop("data")
    assert set(item) == ITEM
    assert page == {"total_records": 2, "page_size": 1, "page": 2, "total_pages": 2}
    settings.total_name = "total"
    assert (await lab.get("/pixels")).json()["total"] == 2
    memory.account.clear()
    empty = (await lab.get("/pixels")).json()
    assert (empty["data"], empty["total"], empty["total_pages"]) == ([], 0, 0)


async def test_the_list_is_all_of_them_as_documented(
    lab: httpx.AsyncClient, settings: Settings
) -> None:
    """Nothing but the items and their number, and one pixel by its id is such an item."""
    settings.dialect = "documented"
    listed = (await lab.get("/pixels", params={"page_size": 1})).json()
    assert set(listed) == {"data", "total"}
    assert listed["total"] == len(listed["data"]) == 2
    [first, _] = listed["data"]
    assert (await lab.get(f"/pixels/{first['id']}")).json() == first


@pytest.mark.parametrize(
    ("version", "script"),
    [
        ({}, r"https://cdn\.v3\.identitypxl\.app/pixels/[0-9a-f-]{36}/p\.js"),
        ({"version": "v4"}, r"https://cdn\.idpixel\.app/v1/idp-analytics-[0-9a-f]{24}\.min\.js"),
    ],
)
async def test_a_pixel_is_made_as_observed(
    lab: httpx.AsyncClient, version: dict[str, str], script: str
) -> None:
    """Id and script are answered; the id in the script is the provider's, another one."""
    body = {**SITE, **version, "webhookUrl": "https://relay.example.com/hooks"}
    made = (await lab.post("/pixels", json=body)).json()
    assert set(made) == {"pixel_id", "install_url"}
    assert re.fullmatch(script, made["install_url"])
    assert made["pixel_id"] not in made["install_url"]
    last = (await lab.get("/pixels")).json()["data"][-1]
    assert (last["id"], last["webhook_url"], last["last_sync"]) == (
        made["pixel_id"],
        body["webhookUrl"],
        None,
    )


async def test_a_pixel_is_made_as_documented(lab: httpx.AsyncClient, settings: Settings) -> None:
    """The whole pixel is answered, never synced yet."""
    settings.dialect = "documented"
    body = {"name": "Inn", "domain": "inn.example.com", "integrations": {}}
    answer = await lab.post("/pixels", json=body)
    assert answer.status_code == 201
    assert set(answer.json()) == ITEM
    assert answer.json()["website_url"] == "https://inn.example.com"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"websiteName": "Inn"},
        SITE | {"websiteName": " "},
        SITE | {"webhookUrl": 5},
        SITE | {"version": "v5"},
        [SITE],
    ],
)
async def test_a_pixel_without_what_it_needs_is_refused(
    lab: httpx.AsyncClient, memory: Memory, body: object
) -> None:
    """Name and address of the site are needed, and none is made without."""
    assert (await lab.post("/pixels", json=body)).status_code == 400
    assert len(memory.account.pixels) == 2


@pytest.mark.parametrize(
    ("dialect", "status", "body"),
    [("observed", 204, b""), ("documented", 200, b'{"success":true}')],
)
async def test_a_pixel_is_deleted_once(
    lab: httpx.AsyncClient,
    settings: Settings,
    memory: Memory,
    dialect: Any,
    status: int,
    body: bytes,
) -> None:
    """Each dialect says so in its way; the second time nothing of that id is found."""
    settings.dialect = dialect
    path = f"/pixels/{next(iter(memory.account.pixels))}"
    answer = await lab.delete(path)
    assert (answer.status_code, answer.content) == (status, body)
    assert (await lab.delete(path)).status_code == 404
    assert len(memory.account.pixels) == 1


async def test_events_of_both_generations(lab: httpx.AsyncClient, memory: Memory) -> None:
    """V3 events have a type and 70 columns, V4 events neither type nor UUID and 51 columns."""
    pixel = next(iter(memory.account.pixels.values()))
    old = (await lab.get(f"/pixels/{pixel.id}")).json()
    new = (await lab.get(f"/pixels/{pixel.id}/v4")).json()
    assert old["total_records"] == new["total_records"] == 250
    assert len(old["events"]) == len(new["events"]) == 100
    v3, v4 = old["events"][0], new["events"][0]
    assert set(v4) == {
        *("pixel_id", "hem_sha256", "event_timestamp", "referrer_url", "full_url", "edid"),
        "resolution",
    }
    assert (len(V3_COLUMNS), len(V4_COLUMNS)) == (70, 51)
    assert (set(v3["resolution"]), set(v4["resolution"])) == (set(V3_COLUMNS), set(V4_COLUMNS))
    assert v3["pixel_id"] == v4["pixel_id"] == pixel.provider_id != pixel.id
    assert isinstance(v3["event_data"], dict)
    # The newest is last in number, and the only one without a name here.
    assert v3["resolution"]["UUID"] == ""
    assert old["events"][1]["hem_sha256"] == hash_of("person248@example.com")


@pytest.mark.parametrize("path", ["/pixels/nobody", "/pixels/nobody/v4", "/pixels/segment-5/v4"])
async def test_an_unknown_pixel_is_not_found(lab: httpx.AsyncClient, path: str) -> None:
    """An id that no pixel has is a 404 that says so."""
    answer = await lab.get(path)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Pixel not found")


async def test_an_invented_pixel_has_as_many_events_as_its_name_says(
    lab: httpx.AsyncClient,
) -> None:
    """A pixel of any size is there to be walked; a page holds a thousand at most."""
    page = (await lab.get("/pixels/pixel-5000/v4", params={"page": 5, "page_size": 1000})).json()
    assert (page["total_records"], page["total_pages"], len(page["events"])) == (5000, 5, 1000)
    assert (await lab.get("/pixels/pixel-5000/v4?page_size=1001")).status_code == 400

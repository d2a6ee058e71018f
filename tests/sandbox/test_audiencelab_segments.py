"""Segments of AudienceLab's stand-in: pages of rows of any number, also ones that do not hold."""

from __future__ import annotations

import tracemalloc
from json import JSONDecodeError
from typing import Any

import httpx
import orjson
import pytest

from sandbox import faults
from sandbox.addresses import hash_of
from sandbox.desk import Answer
from sandbox.faults import Fault
from sandbox.invented import EVENT_COLUMNS, SEGMENT_COLUMNS, visits
from sandbox.people import COLUMNS
from sandbox.settings import Settings

pytestmark = pytest.mark.anyio

Row = dict[str, str]


async def _page(lab: httpx.AsyncClient, name: str, **query: int) -> dict[str, Any]:
    answer = await lab.get(f"/segments/{name}", params=query)
    assert answer.status_code == 200
    page: dict[str, Any] = answer.json()
    return page


async def _all_rows(lab: httpx.AsyncClient, name: str, page_size: int) -> list[Row]:
    """Return all rows, asked for page by page by somebody who looks at nothing else."""
    rows: list[Row] = []
    for number in range(1, 100):
        page = await _page(lab, name, page=number, page_size=page_size)
        rows += page["data"]
        if not page["has_more"]:
            break
    return rows


def _key(row: Row) -> tuple[str, ...]:
    return (row["EVENT_TYPE"], row["EVENT_DATA"], row["HEM_SHA256"], row["UUID"])


async def test_a_page_tells_its_place(lab: httpx.AsyncClient) -> None:
    """The envelope is the one of live answers, fifty rows unless told."""
    page = await _page(lab, "segment-120", page=3)
    assert len(page.pop("data")) == 20
    assert page == {
        "segment_id": "segment-120",
        "segment_name": "The segment segment-120",
        "total_records": 120,
        "page_size": 50,
        "page": 3,
        "total_pages": 3,
        "has_more": False,
    }
    beyond = await _page(lab, "segment-120", page=4)
    assert (beyond["data"], beyond["total_records"]) == ([], 120)


async def test_a_page_as_documented(lab: httpx.AsyncClient, settings: Settings) -> None:
    """Rows, their total and the place, and no more than a hundred."""
    settings.dialect = "documented"
    page = await _page(lab, "segment-120", page=2, page_size=100)
    assert len(page.pop("data")) == 20
    assert page == {"total": 120, "page": 2, "page_size": 100}
    assert (await lab.get("/segments/segment-120?page_size=101")).status_code == 400


@pytest.mark.parametrize(
    "query", ["page_size=10001", "page_size=0", "page=0", "page=-1", "page=x", "page_size="]
)
async def test_a_page_that_cannot_be_is_refused(lab: httpx.AsyncClient, query: str) -> None:
    """Pages count from 1 and hold one to ten thousand rows."""
    assert (await lab.get(f"/segments/segment-5?{query}")).status_code == 400


@pytest.mark.parametrize(
    "name", ["nobody", "pixel-5", "segment-", "segment-5x", "segment-123456789"]
)
async def test_an_unknown_segment_is_not_found(lab: httpx.AsyncClient, name: str) -> None:
    """An id that no segment has is a 404, and there is no list of segments."""
    assert (await lab.get(f"/segments/{name}")).status_code == 404
    assert (await lab.get("/segments")).status_code == 404


async def test_an_empty_segment_is_an_empty_page(lab: httpx.AsyncClient) -> None:
    """Nothing in it is no error."""
    page = await _page(lab, "segment-0")
    assert (page["data"], page["total_records"], page["total_pages"]) == ([], 0, 0)
    assert page["has_more"] is False


async def test_rows_have_the_columns_of_real_ones(lab: httpx.AsyncClient) -> None:
    """84 columns in their order, all texts; hashes belong to the addresses beside them."""
    assert len(SEGMENT_COLUMNS) == len(COLUMNS) + len(EVENT_COLUMNS) == 84
    for row in (await _page(lab, "segment-200", page_size=200))["data"]:
        assert tuple(row) == SEGMENT_COLUMNS
        assert all(isinstance(value, str) for value in row.values())
        for hashes, addresses in (
            ("SHA256_PERSONAL_EMAIL", "PERSONAL_EMAILS"),
            ("SHA256_BUSINESS_EMAIL", "BUSINESS_EMAIL"),
        ):
            plain = [each for each in row[addresses].split(", ") if each]
            assert row[hashes] == ", ".join(map(hash_of, plain))
        assert row["HEM_SHA256"] in row["SHA256_PERSONAL_EMAIL"] or not row["UUID"]
        assert orjson.loads(row["EVENT_DATA"])["url"] == row["URL"]
        assert "&" not in row["EVENT_DATA"]


async def test_rows_have_the_traps_of_real_ones(lab: httpx.AsyncClient) -> None:
    """Two people share an action, some are known by a hash only, some addresses are none."""
    rows = (await _page(lab, "segment-200", page_size=200))["data"]
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one["EVENT_DATA"] == other["EVENT_DATA"]
        assert one["HEM_SHA256"] != other["HEM_SHA256"]
    unresolved = [row for row in rows if not row["UUID"]]
    assert len(unresolved) == 20
    assert all(not row["PERSONAL_EMAILS"] and row["HEM_SHA256"] for row in unresolved)
    assert any("/&" in row["URL"] or "&piwik" in row["URL"] for row in rows)
    assert {row["EVENT_TYPE"] for row in rows} == {"page_view", "click", "exit_intent", "user_idle"}


async def test_a_walk_sees_every_row_once_the_newest_first(lab: httpx.AsyncClient) -> None:
    """A segment that holds still is seen whole, and always the same."""
    rows = await _all_rows(lab, "segment-500", 150)
    assert len({_key(row) for row in rows}) == len(rows) == 500
    times = [row["EVENT_TIMESTAMP"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert rows == await _all_rows(lab, "segment-500", 1000)


async def test_a_segment_that_shrinks_skips_rows(
    lab: httpx.AsyncClient, settings: Settings
) -> None:
    """Newest rows leave after a page was answered: the next page skips that many, and tells less."""
    whole = {_key(row) for row in await _all_rows(lab, "segment-300", 300)}
    settings.drift, settings.drift_times = -30, 2
    # A page that is refused moves nothing.
    await lab.get("/segments/segment-500", params={"page_size": 10_001})
    seen = await _all_rows(lab, "segment-300", 100)
    assert whole > {_key(row) for row in seen}
    assert len(seen) == 240
    assert (await _page(lab, "segment-300"))["total_records"] == 240
    assert (await _page(lab, "segment-500"))["total_records"] == 500


async def test_a_segment_that_grows_repeats_rows(
    lab: httpx.AsyncClient, settings: Settings
) -> None:
    """Newer rows come while it is walked: what was on a page comes again on the next."""
    settings.drift = 10
    first, second = [await _page(lab, "segment-300", page=n, page_size=100) for n in (1, 2)]
    assert second["total_records"] == 310
    assert first["data"][-10:] == second["data"][:10]


async def test_a_segment_that_ignores_the_page(lab: httpx.AsyncClient, settings: Settings) -> None:
    """Whichever page is asked for, the first is answered, to the byte."""
    settings.pages = "stuck"
    first, ninth = [await lab.get(f"/segments/segment-300?page={n}") for n in (1, 9)]
    assert first.content == ninth.content
    assert first.json()["page"] == 1


@pytest.mark.parametrize("fault", [faults.cut_off("segment"), faults.proxied("segment")])
async def test_a_page_that_is_no_page(lab: httpx.AsyncClient, app: Any, fault: Fault) -> None:
    """Half an answer or a proxy's page comes with 200 and cannot be read."""
    app.state.faults.add(fault)
    answer = await lab.get("/segments/segment-300")
    assert answer.status_code == 200
    with pytest.raises(JSONDecodeError):
        answer.json()


async def test_a_page_of_a_large_segment_costs_a_page(lab: httpx.AsyncClient) -> None:
    """The last page of ninety-nine million rows takes no more memory than that of a hundred."""
    await lab.get("/segments/segment-100?page_size=100")
    peaks = []
    for name, page in (("segment-100", 1), ("segment-99000000", 990_000)):
        tracemalloc.start()
        answer = await lab.get(f"/segments/{name}", params={"page": page, "page_size": 100})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(answer.json()["data"]) == 100
    assert peaks[1] < peaks[0] * 1.5


def test_ten_thousand_rows_are_made_as_one_text() -> None:
    """Rows go into an answer as JSON that is not read and written again: that keeps them cheap."""
    answer = Answer(200, {"data": visits(range(10_000), "a")}).response()
    assert len(orjson.loads(bytes(answer.body))["data"]) == 10_000
    assert isinstance(visits([], "a"), orjson.Fragment)

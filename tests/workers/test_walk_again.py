"""Imports that are walked again: by another size, by another process, over people and pixels that were there before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline import imports, keys
from pipeline.clock import DAY_MS, iso
from pipeline.imports import Import, Kind
from pipeline.outcomes import Stage
from pipeline.visitors import Visitor
from sandbox.account import Pixel
from sandbox.invented import visit
from tests.workbench import Workbench
from tests.workers.test_bulk import everybody
from tests.workers.test_walk import ME, PIXEL_ID, Stroll, answering, pages_of, segment
from workers import walk
from workers.clients.errors import NotFound

pytestmark = pytest.mark.anyio

PROVIDER_ID = "0123456789abcdef01234567"


@pytest.fixture
def stroll(make_bench: Callable[..., Workbench]) -> Stroll:
    """Give a walker; AudienceLab is asked about nobody, so that only the walk calls it."""
    return Stroll(make_bench(email_format="plain", enrich="off", subscribe="off"))


# another page size ---------------------------------------------------------------------------------


def capped(rows: list[dict[str, Any]], most: int) -> Callable[[int], dict[str, Any]]:
    """Return a service that gives at most so many rows a page, whatever it is asked for."""

    def answer(page: int) -> dict[str, Any]:
        pages = -(-len(rows) // most)
        told = {"page": page, "page_size": most, "total_records": len(rows), "total_pages": pages}
        return told | {"data": rows[(page - 1) * most : page * most], "has_more": page < pages}

    return answer


async def test_another_page_size_goes_by_the_rows_that_came(stroll: Stroll) -> None:
    """A service that gives fewer rows a page than it is asked for: the place is that of the rows it gave."""
    rows = [visit(n, PIXEL_ID) for n in range(60)]
    stroll.on_page = lambda one: stroll.stopping.set() if one.pages == 2 else None
    with answering(capped(rows, 10)) as url:
        stroll.url = url
        one = await stroll.walk(Import(Kind.SEGMENT, "s", 50))
        assert one.rows == 20
        resized = one.with_page_size(10)
        assert resized.next_page == 3
        stroll.stopping.clear()
        stroll.on_page = lambda one: None
        one, _ = await imports.take(stroll.bench.redis, one, ME)
        changed = {"page_size": 10, "next_page": resized.next_page, "digest": None}
        await imports.note(stroll.bench.redis, one, ME, **changed)
        assert (await stroll.walk(one)).rows == 60
    told = [row["UUID"] for page in await pages_of(stroll.bench) for row in page]
    assert sorted(told) == sorted(row["UUID"] for row in rows)


async def test_small_pages_of_a_long_list_are_no_growth(
    stroll: Stroll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many pages a list may have goes by the rows a page really has."""
    # ten pages more than it tells of, instead of ten times as many: by the rows asked for these 60 would be 10
    monkeypatch.setattr(walk, "MOST_GROWTH", 1)
    rows = [visit(n, PIXEL_ID) for n in range(60)]
    with answering(capped(rows, 2)) as url:
        stroll.url = url
        async with stroll.bench.at_work():
            one = await stroll.walk(Import(Kind.SEGMENT, "s", 400))
    assert (one.is_finished, one.rows) == (True, 60)


# people who are told of again ----------------------------------------------------------------------


def people_told(**changed: str) -> Callable[[int], dict[str, Any]]:
    """Return a segment of one person, of whom nothing is told that happened."""
    row = {"UUID": "P", "FIRST_NAME": "Ada", "PERSONAL_EMAILS": "a@example.com, b@example.com"}
    return lambda page: {"segment_id": "s", "total_records": 1, "data": [row | changed]}


async def tell_of_person(stroll: Stroll, **changed: str) -> Visitor:
    """Walk the segment again, as if its seen marks were gone, and return the person as kept."""
    bench = stroll.bench
    for key in await bench.redis.keys(f"{keys.SEEN}*"):
        await bench.redis.delete(key)
    with answering(people_told(**changed)) as url:
        stroll.url = url
        await stroll.walk(Import(Kind.SEGMENT, "people", 10), anew=True)
    await bench.work_until(bench.is_idle)
    return (await everybody(bench))["P"]


async def make_old(bench: Workbench, visitor: Visitor) -> Visitor:
    """Let *visitor* have been seen and written a day ago, and be kept for another minute."""
    seconds, _ = await bench.redis.time()
    visitor.first_seen_at = visitor.last_seen_at = iso(seconds * 1000 - DAY_MS)
    key = keys.visitor(visitor.id)
    await bench.redis.hset(key, "document", visitor.document())
    await bench.redis.pexpire(key, 60_000)
    await bench.redis.zadd(keys.VISITORS, {visitor.id: seconds * 1000 - DAY_MS})
    return visitor


@pytest.mark.parametrize(
    "changed",
    [{}, {"PERSONAL_EMAILS": "b@example.com, a@example.com"}],
    ids=["the same", "in another order"],
)
async def test_a_person_of_whom_nothing_is_new_is_not_kept_for_longer(
    stroll: Stroll, changed: dict[str, str]
) -> None:
    """A row that tells of no event is no sighting: told again, it writes nothing and renews nothing."""
    bench = stroll.bench
    first = await tell_of_person(stroll)
    assert first.last_seen_at is not None
    before = await make_old(bench, first)
    written = await bench.redis.zscore(keys.VISITORS, "P")
    again = await tell_of_person(stroll, **changed)
    assert again == before
    assert await bench.redis.zscore(keys.VISITORS, "P") == written
    assert await bench.redis.pttl(keys.visitor("P")) <= 60_000
    assert await bench.row(Stage.ENRICH) == {"in": 2, "done": 2}
    await bench.assert_balanced()


async def test_a_person_of_whom_something_is_new_is_seen_with_it(stroll: Stroll) -> None:
    """Facts that differ are merged, win over the known ones, and count as a sign of life."""
    before = await make_old(stroll.bench, await tell_of_person(stroll))
    again = await tell_of_person(stroll, FIRST_NAME="Eda")
    assert again.fields["FIRST_NAME"] == "Eda"
    assert again.first_seen_at == before.first_seen_at
    assert str(again.last_seen_at) > str(before.last_seen_at)
    assert await stroll.bench.redis.pttl(keys.visitor("P")) > 60_000


# pixels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anew", [False, True])
async def test_a_pixel_that_is_listed_later_is_found_later(stroll: Stroll, *, anew: bool) -> None:
    """An id that was not there yet is looked for again at the next try, by whoever tries."""
    wanted = Import(Kind.PIXEL, PROVIDER_ID, 10)
    with pytest.raises(NotFound):
        await stroll.walk(wanted)
    pixels = stroll.bench.box.memory.account.pixels
    pixels["own"] = Pixel("own", PROVIDER_ID, "n", "https://x.example", version="v4", events=5)
    one = await stroll.walk(wanted, anew=anew)
    assert (one.own_id, one.rows, one.is_finished) == ("own", 5, True)


async def test_a_pixel_that_was_made_anew_is_found_again(stroll: Stroll) -> None:
    """An id of AudienceLab's own that is gone is forgotten: the next try looks for the new one."""
    pixels = stroll.bench.box.memory.account.pixels
    pixels["one"] = Pixel("one", PROVIDER_ID, "n", "https://x.example", version="v4", events=5)
    wanted = Import(Kind.PIXEL, PROVIDER_ID, 10)
    assert (await stroll.walk(wanted)).own_id == "one"
    pixels["two"] = Pixel("two", PROVIDER_ID, "n", "https://x.example", version="v4", events=5)
    del pixels["one"]
    with pytest.raises(NotFound):
        await stroll.walk(Import(Kind.PIXEL, PROVIDER_ID, 10, own_id="one"), anew=True)
    assert (await stroll.walk(wanted)).own_id == "two"


# leaving -------------------------------------------------------------------------------------------


async def test_who_lost_an_import_finishes_nothing(stroll: Stroll) -> None:
    """What somebody else has begun anew meanwhile is not returned as finished, and stays as it is."""
    redis = stroll.bench.redis
    one, _ = await imports.take(redis, segment(25), ME)
    await redis.hset(keys.import_of("segment", "segment-25"), "held_until_ms", 1)
    other, is_ours = await imports.take(redis, segment(25), "other", anew=True)
    assert is_ours
    with pytest.raises(imports.Lost):
        await imports.leave(redis, one, ME, finished_at_ms=7)
    known = await imports.read(redis, Kind.SEGMENT, "segment-25")
    assert known == other


async def test_leaving_what_somebody_has_finished_since_is_no_success(stroll: Stroll) -> None:
    """Who left an import cannot leave it a second time after another had it."""
    redis = stroll.bench.redis
    one, _ = await imports.take(redis, segment(25), ME)
    await imports.leave(redis, one, ME)
    other, _ = await imports.take(redis, segment(25), "other")
    await imports.leave(redis, other, "other", finished_at_ms=5)
    with pytest.raises(imports.Lost):
        await imports.leave(redis, one, ME, finished_at_ms=7)
    known = await imports.read(redis, Kind.SEGMENT, "segment-25")
    assert known
    assert known.finished_at_ms == 5

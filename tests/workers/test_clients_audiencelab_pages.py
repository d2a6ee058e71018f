"""Walking over pages: every row is read, and every walk ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.clients.audiencelab import Course, Page, pages, walk
from workers.clients.errors import BreaksOff, Unavailable

pytestmark = pytest.mark.anyio


class Listing:
    """A list that is served in pages, and may change between two of them."""

    def __init__(
        self, count: int, size: int = 3, tells: str = "total total_pages has_more"
    ) -> None:
        self.rows = list(range(count))
        self.size = size
        self.tells = tells.split()
        self.asked: list[int] = []
        self.before: Callable[[int], None] = lambda number: None

    async def fetch(self, number: int) -> Page[int]:
        """Return a page, after what *before* does to the list."""
        self.before(number)
        self.asked.append(number)
        start = (number - 1) * self.size
        count = -(-len(self.rows) // self.size)
        return Page(
            self.rows[start : start + self.size],
            number,
            self.size,
            len(self.rows) if "total" in self.tells else None,
            count if "total_pages" in self.tells else None,
            number < count if "has_more" in self.tells else None,
        )


async def read(listing: Listing, start: int = 1) -> list[int]:
    """Return the rows of a walk over *listing*."""
    return [row async for page in walk(listing.fetch, start) for row in page.items]


@pytest.mark.parametrize("tells", ["total", "total_pages", "has_more", "total has_more", ""])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
async def test_every_row_comes_once_whatever_is_told(count: int, tells: str) -> None:
    """The end is found by whichever of the three is told, or by a page that is not full."""
    listing = Listing(count, tells=tells)
    assert await read(listing) == list(range(count))
    needed = max(1, -(-count // 3))
    is_blind = not tells and count and count % 3 == 0
    assert listing.asked == list(range(1, needed + 1 + bool(is_blind)))


async def test_a_walk_may_begin_later() -> None:
    """A walk that was stopped is gone on with where it stood."""
    for tells in ("total", "total_pages", "has_more", ""):
        assert await read(Listing(7, tells=tells), start=2) == [3, 4, 5, 6]


@pytest.mark.parametrize("gone", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("when", [2, 3, 4])
async def test_rows_that_slip_to_an_earlier_page_are_read(when: int, gone: int) -> None:
    """When rows vanish at the front, the later ones move left: none of them is skipped."""
    listing = Listing(12)

    def shrink(number: int) -> None:
        if number == when and len(listing.rows) == 12:
            del listing.rows[:gone]

    listing.before = shrink
    found = await read(listing)
    assert set(listing.rows) <= set(found)
    assert len(listing.asked) < 12


async def test_a_list_that_is_emptied_meanwhile_ends() -> None:
    """Nothing left is an end, not an error."""
    listing = Listing(9)
    listing.before = lambda number: listing.rows.clear() if number == 3 else None
    assert await read(listing) == [0, 1, 2, 3, 4, 5]


@given(st.lists(st.integers(0, 20), max_size=20), st.sampled_from(["total", "total has_more"]))
async def test_no_shrinking_skips_a_row(losses: list[int], tells: str) -> None:
    """However a list shrinks while it is walked, what stays in it is read."""
    listing = Listing(40, tells=tells)
    waiting = iter(losses)

    def shrink(_number: int) -> None:
        del listing.rows[: next(waiting, 0)]

    listing.before = shrink
    found = await read(listing)
    assert set(listing.rows) <= set(found)


async def test_a_list_that_grows_is_read_to_its_end() -> None:
    """New rows at the front push others right: these come twice, and none is missed."""
    listing = Listing(6)

    def grow(number: int) -> None:
        if number == 2:
            listing.rows[:0] = [-3, -2, -1]

    listing.before = grow
    found = await read(listing)
    assert found == [0, 1, 2, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("tells", ["total", "total_pages", "has_more", ""])
async def test_a_service_that_ignores_the_page_is_found_out(tells: str) -> None:
    """The same page for another number would never end: it is an error that says so."""
    listing = Listing(9, tells=tells)

    async def first_only(number: int) -> Page[int]:
        page = await listing.fetch(1)
        return Page(page.items, number, 3, page.total, page.total_pages, page.has_more)

    with pytest.raises(Unavailable, match="ignores the number of the page"):
        async for _ in walk(first_only):
            pass
    assert len(listing.asked) == 2


async def test_a_service_that_tells_another_page_is_found_out() -> None:
    """Also when its rows differ: page one of a list that grows is not page two."""
    rows = iter(range(100))

    async def fetch(_number: int) -> Page[int]:
        return Page([next(rows)], 1, 1, has_more=True)

    with pytest.raises(Unavailable, match="page 2 with page 1"):
        async for _ in walk(fetch):
            pass


async def test_a_list_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that always has more does not keep a process for ever."""
    monkeypatch.setattr(pages, "MOST_PAGES", 50)

    async def fetch(number: int) -> Page[int]:
        return Page([number], number, 1, has_more=True)

    with pytest.raises(Unavailable, match="no end"):
        async for _ in walk(fetch):
            pass


@pytest.mark.parametrize("tells", ["total", "total has_more", "total total_pages has_more"])
@pytest.mark.parametrize("copies", [2, 3])
async def test_copies_that_answer_in_turns_are_read(copies: int, tells: str) -> None:
    """A total that swings with every call costs calls, no row, and does not end the walk."""
    listing = Listing(60, tells=tells)
    kept = [listing.rows[gone:] for gone in range(copies)]

    def turn(_number: int) -> None:
        listing.rows = kept[len(listing.asked) % copies]

    listing.before = turn
    assert set(kept[-1]) <= set(await read(listing))
    assert len(listing.asked) <= 20 * copies + 10


@pytest.mark.parametrize("tells", ["", "has_more", "total_pages has_more"])
async def test_a_total_that_is_no_count_is_not_heeded(tells: str) -> None:
    """An estimate that is another one each time: the walk goes on until a page is empty."""
    listing, chance = Listing(60, tells=tells), Random(3)

    async def estimated(number: int) -> Page[int]:
        page = await listing.fetch(number)
        guess = chance.randrange(30, 90)
        return replace(page, total=guess, total_pages=page.total_pages and -(-guess // 3))

    found = [row async for page in walk(estimated) for row in page.items]
    assert set(found) == set(range(60))
    assert listing.asked[-1] == 21
    assert len(listing.asked) < 250


async def test_a_total_that_is_no_count_ends_no_list_early() -> None:
    """Once the total is not heeded, neither is an end that it tells of."""
    course = Course(pages=4, number=5, total=9, stepped_back=pages.MOST_STEPS_BACK + 2)
    listing = Listing(30)

    async def short(number: int) -> Page[int]:
        return replace(await listing.fetch(number), total=8, total_pages=5, has_more=False)

    found = [row async for page in walk(short, course=course) for row in page.items]
    assert found == list(range(12, 30))


async def test_a_list_that_shrinks_with_every_call_is_read() -> None:
    """A total that only falls is a count: however often the walk steps back, no row is skipped."""
    listing = Listing(90)

    def shrink(_number: int) -> None:
        del listing.rows[: int(len(listing.rows) > 12)]

    listing.before = shrink
    assert set(listing.rows[-12:]) <= set(await read(listing))
    assert len(listing.rows) == 12


async def test_a_long_list_that_lives_is_read() -> None:
    """Many steps back are few beside many pages: a row may leave every few pages for a whole walk."""
    listing = Listing(3000)

    def shrink(_number: int) -> None:
        if len(listing.asked) % 5 == 4:
            del listing.rows[0]

    listing.before = shrink
    found = await read(listing)
    assert set(listing.rows) <= set(found)
    assert len(listing.asked) > 1000


async def test_copies_that_differ_by_a_row_are_read() -> None:
    """Whichever of two copies answers: what both have is read."""
    listing, chance = Listing(300), Random(1)
    copies = (listing.rows, listing.rows[1:])

    def choose(_number: int) -> None:
        listing.rows = chance.choice(copies)

    listing.before = choose
    assert set(copies[1]) <= set(await read(listing))


@pytest.mark.parametrize("tells", ["total", "total_pages", "total total_pages has_more"])
async def test_an_empty_page_before_the_told_end_is_no_end(tells: str) -> None:
    """Rows that come to nothing are an error: who takes it for the end loses the others."""
    listing = Listing(9, tells=tells)

    async def torn(number: int) -> Page[int]:
        page = await listing.fetch(number)
        return replace(page, items=[]) if number == 2 else page

    with pytest.raises(Unavailable, match="breaks off at page 2"):
        _ = [page async for page in walk(torn)]
    assert listing.asked == [1, 2]


@pytest.mark.parametrize(("settled", "is_read"), [(2, True), (3, False)])
async def test_a_walk_may_settle_for_what_comes_at_one_page(settled: int, is_read: bool) -> None:
    """There the end is taken as it comes, and noted as short; at any other page it is an error all the same."""
    listing, course = Listing(9), Course()
    course.settle(settled)

    async def torn(number: int) -> Page[int]:
        page = await listing.fetch(number)
        return replace(page, items=[]) if number == 2 else page

    rows: list[int] = []
    with nullcontext() if is_read else pytest.raises(BreaksOff):
        async for page in walk(torn, course=course):
            rows += page.items
    assert (rows, course.ends_short) == ([0, 1, 2], is_read)


async def test_an_empty_page_is_the_end_where_nothing_is_told() -> None:
    """Without a count there is no other end, whatever is said of more."""

    async def fetch(number: int) -> Page[int]:
        return Page([number] if number < 3 else [], number, 1, has_more=True)

    assert [page.page async for page in walk(fetch)] == [1, 2]


async def test_a_walk_that_goes_on_steps_back_to_before_its_start() -> None:
    """Rows that left while nobody walked are not skipped."""
    listing = Listing(9)
    course = Course(3, total=12, pages=2)
    found = [row async for page in walk(listing.fetch, course=course) for row in page.items]
    assert found == [3, 4, 5, 6, 7, 8]
    assert (course.stepped_back, course.pages) == (1, 4)


async def test_a_page_smaller_than_asked_for_does_not_end_a_list_of_known_length() -> None:
    """A service that gives fewer rows a page than it was asked for is read to its total."""
    listing = Listing(9, size=2, tells="total")

    async def clamped(number: int) -> Page[int]:
        page = await listing.fetch(number)
        return Page(page.items, number, 500, page.total)

    found = [row async for page in walk(clamped) for row in page.items]
    assert found == list(range(9))

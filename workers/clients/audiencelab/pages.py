"""Lists in pages: reading one, and walking over all of them without skipping a row.

Pages count from 1. Observed: `{total_records, page_size, page, total_pages, has_more?, data}`;
documented: `{data, total}`; both are read. What may go wrong: the list shrinks while it is walked,
so that rows slip to a page that was read before; the service ignores `page` and answers the first
one for ever; it tells no end, or a wrong one; a page is empty that should have rows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from workers.clients.audiencelab.answers import (
    VENDOR,
    folded,
    has_nothing,
    is_failure,
    number,
    refused,
)
from workers.clients.errors import BreaksOff, CallFailed, Unavailable
from workers.clients.messages import Answer, Request

T = TypeVar("T")
U = TypeVar("U")

#: Twenty million rows at a hundred a page; the largest audiences known have five million.
MOST_PAGES = 200_000

#: Steps back by which a walk may come to nothing, and in all, beside one for every two pages: a long
#: list that lives takes many, each of them with rows to show; a total that goes on falling is no count.
MOST_STEPS_IN_VAIN = 10
MOST_STEPS_BACK = 100

#: Times that a page is asked for again, of a service whose total swings, before the walk steps back:
#: of two or three copies that answer in turns, one more answers as the page before was answered.
MOST_ASKED_AGAIN = 2


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. What the answer did not tell is None, except page and page size."""

    items: list[T]
    page: int
    page_size: int
    total: int | None = None
    total_pages: int | None = None
    has_more: bool | None = None

    def of(self, read: Callable[[T], U]) -> Page[U]:
        """Return the same page with each item read by *read*."""
        items = [read(item) for item in self.items]
        return Page(items, self.page, self.page_size, self.total, self.total_pages, self.has_more)


def page_request(path: str, page: int, page_size: int, most: int) -> Request:
    """Return the request for one page; `ValueError` outside 1 to *most* rows, or below page 1."""
    if page < 1 or not 1 <= page_size <= most:
        raise ValueError(f"pages count from 1 and have 1 to {most} rows")
    return Request("GET", f"{path}?page={page}&page_size={page_size}")


def read_page(
    answer: Answer,
    path: str,
    page: int,
    page_size: int,
    *,
    rows: str = "data",
    what: str | None = None,
) -> Page[dict[str, object]]:
    """Return the page of objects under the name *rows*, or raise the `CallFailed` of *answer*.

    *page* and *page_size* are what was asked for; *path* and *what* are as `refused` takes them.
    """
    members = answer.members()
    items = _rows(members, rows) if answer.is_success else None
    if items is None:
        raise refused(answer, path, what)
    told = folded(members)
    totals = [number(told.get(name)) for name in ("totalrecords", "total")]
    total = next((each for each in totals if each is not None), None)
    has_more = told.get("hasmore")
    return Page(
        items,
        number(told.get("page")) or page,
        number(told.get("pagesize")) or page_size,
        # a zero beside rows is not a count
        total if total or not items else None,
        number(told.get("totalpages")) or (None if items else 0),
        has_more if isinstance(has_more, bool) else None,
    )


def read_items(
    answer: Answer,
    path: str,
    page: int,
    page_size: int,
    read: Callable[[dict[str, object]], T | None],
) -> Page[T]:
    """Return the page of what *read* makes of each row; one that is None is no such thing: refused."""

    def whole(row: dict[str, object]) -> T:
        thing = read(row)
        if thing is None:
            raise refused(answer, path)
        return thing

    return read_page(answer, path, page, page_size).of(whole)


def _rows(members: dict[str, object], name: str) -> list[dict[str, object]] | None:
    """Return the rows; None when there are none to be read, which is not the same as no rows."""
    if is_failure(members):
        return None
    told = folded(members)
    found = told.get(name)
    if found is None:
        has_total = number(told.get("totalrecords")) or number(told.get("total"))
        # an empty list of Go's is null
        return [] if has_nothing(members) or (name in told and not has_total) else None
    if not isinstance(found, list):
        return None
    items = [item for item in found if isinstance(item, dict)]
    return items if len(items) == len(found) else None


async def walk(
    fetch: Callable[[int], Awaitable[Page[T]]], start: int = 1, *, course: Course | None = None
) -> AsyncGenerator[Page[T]]:
    """Yield the pages that *fetch* answers, from page *start* to the last.

    When the told total shrinks between two pages, rows have slipped to the left: the walk steps back
    as many pages as they fill, and the rows of these come a second time. Where the total has grown
    again since, two copies of the list may answer in turns: the page is first asked for again. No row
    is skipped; rows may come twice. A total that leads nowhere, because it changes with every answer,
    is no count: from then on it is not heeded, and the list ends where a page is empty.

    Raises `BreaksOff` when the service has no rows, or no more pages, before the end that it tells of,
    `Unavailable` when it answers the same page for another number, and when the walk has no end. *course*,
    in place of *start*, is for who goes on with a walk of before.
    """
    course = course or Course(start)
    for _ in range(MOST_PAGES):
        page = await fetch(course.number)
        if course.leaves(page):
            continue
        course.check(page)
        if page.items:
            course.pages += 1
            yield page
        if not course.moves_on(page):
            return
    raise Unavailable(f"{VENDOR} tells no end of its list after {MOST_PAGES} pages")


class Course:
    """Where a walk is: the page to ask for next, and what is known of those before it.

    A walk that goes on is given the *total* that was told last, if any, how many times it has
    *stepped back* and how many *pages* it has read.
    """

    def __init__(
        self, number: int = 1, *, total: int | None = None, stepped_back: int = 0, pages: int = 0
    ) -> None:
        self.number = number
        self.stepped_back = stepped_back
        self.pages = pages
        # who knows of no earlier page steps back to none
        self._first = number if total is None else 1
        self._total = total
        self._before: Page[object] | None = None
        self._ends: dict[int, int] = {}
        #: the total has grown since it made the walk step back
        self._swings = False
        self._asked_again = 0
        #: the least total, and the page, by which the walk has stepped back, and how often in vain since
        self._least = total
        self._turned_at = 0
        self._in_vain = 0
        self._is_counted = True
        #: the page at which an end is taken as it comes
        self._settles_at: int | None = None
        #: whether it ended there, before the end that was told
        self.ends_short = False

    def settle(self, number: int) -> None:
        """From now on take the end of the list as it comes at page *number*, whatever it tells of."""
        self._settles_at = number

    def leaves(self, page: Page[T]) -> bool:
        """Note the told total; when it has shrunk, choose the page to ask for in place of *page*.

        That is the same one, or one so far before it that no row is skipped.
        """
        before, total = self._total, page.total
        if total is None or not self._is_counted:
            return False
        if before is None or total >= before or self.number == self._first:
            self._swings = self._swings or (before is not None and total > before)
            self._total, self._asked_again = total, 0
            return False
        if self._swings and self._asked_again < MOST_ASKED_AGAIN:
            self._asked_again += 1
            return True
        return self._steps_back(page, before, total)

    def _steps_back(self, page: Page[T], before: int, total: int) -> bool:
        """Go back by what the total has shrunk; False, once and for all, when that has led nowhere."""
        is_new = self._least is None or total < self._least
        if is_new or self.number > self._turned_at:
            self._in_vain = 0
        self._least = total if self._least is None else min(self._least, total)
        self._turned_at = max(self._turned_at, self.number)
        self._in_vain += 1
        self.stepped_back += 1
        most = MOST_STEPS_BACK + self.pages // 2
        if self._in_vain > MOST_STEPS_IN_VAIN or self.stepped_back > most:
            self._is_counted, self._total = False, None
            return False
        self._total, self._swings, self._asked_again = total, False, 0
        size = min(page.page_size, self._rows_a_page(page))
        self.number = max(self._first, self.number - -(-(before - total) // size))
        self._before = None
        return True

    def _rows_a_page(self, page: Page[T]) -> int:
        """Return the rows of the page before: a service may give fewer than it says."""
        known = self._before.items if self._before else page.items
        return len(known) or page.page_size

    def check(self, page: Page[T]) -> None:
        """Raise `Unavailable` when the service does not heed the number, or ends before its end."""
        before = self._before
        is_same = bool(page.items) and before is not None and page.items == before.items
        grown = before is not None and (page.total or 0) > (before.total or 0)
        if is_same and not grown:
            raise self._ignored(f"page {self.number} with the rows of the page before")
        if page.items and page.page != self.number:
            raise self._ignored(f"page {self.number} with page {page.page}")
        self.check_end(page)

    def _ignored(self, how: str) -> CallFailed:
        return Unavailable(f"{VENDOR} answers {how}: it ignores the number of the page")

    def check_end(self, page: Page[T]) -> None:
        """Raise `BreaksOff` when *page* ends the list although it, or a page before, tells of more.

        An outage behind the service can look like that, and asking again may help; at the page where
        the walk has settled for what comes, it is only noted.
        """
        if not self._is_counted:
            return
        total = self._total if page.total is None else page.total
        pages = page.total_pages
        if total is not None:
            is_short = self._behind(page) + len(page.items) < total
        else:
            is_short = pages is not None and self.number <= pages and not page.items
        if page.items:  # it may be a page of a service that gives fewer rows than it says
            is_short = is_short and page.has_more is False and (pages or 0) > self.number
        if self.number == self._settles_at:
            self.ends_short = is_short
        elif is_short:
            rows = f"{total} rows" if total is not None else f"{pages} pages"
            raise BreaksOff(f"{VENDOR}'s list of {rows} breaks off at page {self.number}")

    def moves_on(self, page: Page[T]) -> bool:
        """Go to the next page; tell whether there is one."""
        end = self._ends[self.number] = self._behind(page) + len(page.items)
        is_last = not page.items or (self._is_counted and _is_last(page, self.number, end))
        self._before = Page(list(page.items), page.page, page.page_size, page.total)
        self.number += 1
        return not is_last

    def _behind(self, page: Page[T]) -> int:
        """Return how many rows of the list stand before *page*."""
        return self._ends.get(self.number - 1, (self.number - 1) * page.page_size)


def _is_last(page: Page[T], number: int, end: int) -> bool:
    """Whether *page*, which ends with row *end* of the list, is said to be the last."""
    if page.has_more is not None:
        return not page.has_more
    if page.total_pages is not None:
        return number >= page.total_pages
    if page.total is not None:
        return end >= page.total
    return len(page.items) < page.page_size

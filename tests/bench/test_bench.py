"""The measurements measure what they say: in a tiny size, everything that went in came out.

Each checks its own counts and raises `WrongCount`. How fast anything was is never asserted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from math import isfinite

import pytest

from bench import console, drain, flow, imports, large, memory, receive, seen
from bench.processes import Place, place
from bench.results import Figure, WrongCount, expect
from bench.sizes import TINY

pytestmark = pytest.mark.anyio


@pytest.fixture
def at() -> Iterator[Place]:
    """Run a Redis for one measurement; the measurements empty it and change its configuration."""
    with place("no") as found:
        yield found


def names(figures: list[Figure]) -> set[str]:
    """Return what was measured, after seeing that there is a number behind each name.

    It may be 0: processor time is told in ticks, of which a tiny measurement may have none.
    """
    assert all(figure.value >= 0 and isfinite(figure.value) for figure in figures)
    return {figure.name for figure in figures}


async def test_receiving_stores_exactly_what_it_answered(at: Place) -> None:
    """After each round the books hold as many deliveries as were answered 2xx; a busy machine is told of."""
    found = names(await receive.measure(at, TINY, "no"))
    assert {
        "receiver / no-op handler, appendfsync no",
        "put off by the receiver, appendfsync no",
    } <= found


async def test_the_whole_way_delivers_each_event_once(at: Place) -> None:
    """Every preloaded event arrives at the sink exactly once, and the books balance."""
    found = names(await flow.measure(at, TINY))
    assert {f"relay / arq, {shape.name}" for shape in flow.SHAPES} <= found


async def test_waiting_work_is_weighed_when_all_of_it_waits(at: Place) -> None:
    """The queues are weighed only when they hold every event that was stored."""
    found = names(await memory.measure(at, TINY))
    assert {name for name in found if name.startswith("inbox / bodies")}


async def test_each_mark_is_remembered(at: Place) -> None:
    """The window holds as many marks as events went by, and knows them when they come again."""
    found = names(await seen.measure(at, TINY))
    assert f"bytes an event at {TINY.marks[0]:,}" in found


async def test_every_row_of_a_segment_is_imported(at: Place) -> None:
    """Each row is a sighting once, by webhook and by import, and both are taken apart to the last one."""
    found = names(await imports.measure(at, TINY))
    assert "import / webhooks" in found


@pytest.mark.parametrize(
    ("stored", "is_right"), [(89, False), (90, True), (95, True), (100, True), (101, False)]
)
def test_what_was_put_off_may_be_stored_or_not(stored: int, is_right: bool) -> None:
    """Of 90 answered 2xx all must be stored; whether the ten answered 503 are is nobody's promise."""
    one = receive.Round(answered=90, put_off=10, per_s=1.0, p99_ms=None)
    with nullcontext() if is_right else pytest.raises(WrongCount, match=f"stored: {stored} with"):
        receive.check_stored(stored, one)


def test_a_wrong_count_ends_the_run() -> None:
    """A figure is worth nothing when what came out is not what went in."""
    with pytest.raises(WrongCount, match="events arrived: 9 instead of 10"):
        expect("events arrived", 9, 10)


async def test_draining_a_backlog_is_held_against_a_small_one(at: Place) -> None:
    """All of both has left exactly once, and the large one's rate is a ratio of the small one's; tenths are told."""
    found = await drain.measure(at, TINY)
    assert names(found) >= {"the first tenth", "the last tenth", "all of a large one / a small one"}
    assert len(found[0].rounds) == drain.TENTHS


async def test_a_large_delivery_is_taken_apart_in_a_few_times_its_size(at: Place) -> None:
    """A worker of its own hands every sighting over, and holds at most ten times the body for it."""
    body = large.large_body(2_000, 5 * 1024**2)
    assert len(body) >= 5 * 1024**2
    told = await large.one_round(at, body, 2_000)
    assert 0 < told.longest_pause_s < told.seconds
    assert told.more_bytes <= 10 * len(body)


async def test_every_page_is_read_from_a_full_and_from_an_empty_redis(at: Place) -> None:
    """What fills Redis is checked against what a worker wrote, and each page has a figure of either."""
    found = names(await console.measure(at, TINY))
    assert {f"{page}, {side}" for page in console.PAGES for side in ("filled", "empty")} <= found
    assert "Flow, filled / empty" in found

"""Width: how many calls at a time, by how soon the answers come. No clock, no vendor: arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.outcomes import Stage
from workers.width import IN_TIME_S, Width, narrowed

MOST = 8
#: seconds until an answer; None for none in time, or one that asks for fewer calls
ANSWERS = st.lists(st.none() | st.floats(min_value=0.001, max_value=45), max_size=200)


def call(width: Width, seconds: float | None, began: int | None = None) -> None:
    """Make one call, or let one come back that began earlier."""
    began = width.begin() if began is None else began
    if seconds is None:
        width.failed(began, "no answer")
    else:
        width.answered(began, seconds)


@settings(deadline=None)
@given(answers=ANSWERS, most=st.integers(min_value=1, max_value=64))
def test_it_is_never_below_one_nor_above_the_most(answers: list[float | None], most: int) -> None:
    """Whatever comes back, one call may be made, and no more than were allowed from the beginning."""
    width = Width(most)
    for seconds in answers:
        call(width, seconds)
        assert 1 <= width.calls <= most
        assert (width.why is None) == (width._now == most)


@settings(deadline=None)
@given(answers=ANSWERS)
def test_answers_in_good_time_make_it_whole_again(answers: list[float | None]) -> None:
    """However narrow it became, a few dozen quick answers end it, and the reason with it."""
    width = Width(MOST)
    for seconds in answers:
        call(width, seconds)
    for _ in range(40):
        call(width, IN_TIME_S)
    assert (width.calls, width.why) == (MOST, None)


@settings(deadline=None)
@given(answers=st.lists(st.floats(min_value=0.0001, max_value=IN_TIME_S)))
def test_quick_answers_never_narrow_it(answers: list[float]) -> None:
    """What comes in a quarter of a second is in time, were the best a hundred times as quick."""
    width = Width(MOST)
    for seconds in answers:
        call(width, seconds)
    assert width.calls == MOST


def test_a_late_answer_narrows_it_in_proportion() -> None:
    """Three times the best of late is half as late again as allowed; ten times halves it and no more."""
    width = Width(MOST)
    call(width, 1.0)
    call(width, 3.0)
    assert width.calls == 5
    assert width.why == "an answer took 3.0 s, the best of late 1.0 s"
    call(width, 10.0)
    assert width.calls == 2


@pytest.mark.parametrize("seconds", [None, 20.0])
def test_calls_that_were_on_their_way_together_narrow_it_once(seconds: float | None) -> None:
    """Eight time-outs of one moment are one signal; a call that began after it is another one."""
    width = Width(MOST)
    call(width, 1.0)
    began = [width.begin() for _ in range(MOST)]
    for each in began:
        call(width, seconds, each)
    assert width.calls == 4
    call(width, seconds)
    assert width.calls == 2


@settings(deadline=None)
@given(base=st.floats(min_value=0.3, max_value=5), takes=st.integers(min_value=1, max_value=6))
def test_it_settles_near_what_the_vendor_does_at_a_time(base: float, takes: int) -> None:
    """A vendor that works on few calls at a time lets the others wait: soon no more than twice as many are sent."""
    width = Width(MOST)
    for _ in range(3):
        call(width, base)
    widths = []
    for _ in range(200):
        call(width, base * max(1.0, width.calls / takes))
        widths.append(width.calls)
    assert max(widths[50:]) <= min(MOST, 2 * takes + 1)
    assert min(widths[50:]) >= min(takes, MOST) / 2


def test_a_vendor_that_became_slower_is_not_late_for_ever() -> None:
    """After some two hundred answers what is usual now is the measure, and the width is whole."""
    width = Width(MOST)
    call(width, 0.5)
    for _ in range(20):
        call(width, 3.0)
    assert width.calls == 1
    for _ in range(250):
        call(width, 3.0)
    assert (width.calls, width.why) == (MOST, None)


def test_only_what_is_narrow_is_told() -> None:
    """While all is well nothing is written down."""
    narrow = Width(MOST)
    call(narrow, None)
    told = narrowed({Stage.FORWARD: Width(MOST), Stage.ENRICH: narrow})
    assert told == {Stage.ENRICH: (4, "no answer")}

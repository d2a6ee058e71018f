"""Width: how many calls at a time, by how soon the answers come. No clock, no vendor: arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import exp
from random import Random

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
        width.answered(seconds)


@settings(deadline=None)
@given(
    answers=ANSWERS, most=st.integers(min_value=1, max_value=64), rate=st.sampled_from([0, 0.5, 5])
)
def test_it_is_never_below_one_nor_above_the_most(
    answers: list[float | None], most: int, rate: float
) -> None:
    """Whatever comes back, one call may be made, and no more than were allowed from the beginning."""
    width = Width(most, rate)
    for seconds in answers:
        call(width, seconds)
        assert 1 <= width.calls <= most
        assert width.calls == most or width.why is not None


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


def test_only_sustained_lateness_narrows_it_and_gently() -> None:
    """Seven late answers are a spread; the eighth in a row takes a tenth. One in time between begins the count anew."""
    width = Width(MOST, calls_per_s=0.5)
    call(width, 1.0)
    for seconds in [9.0] * 7 + [1.0] + [20.0] * 7:
        call(width, seconds)
    assert (width.calls, width.why) == (MOST, None)
    call(width, 30.0)
    width = Width(MOST, calls_per_s=0.1)
    for seconds in [1.0] * 50 + [4.0] * 8:
        call(width, seconds)
    assert width.calls == 7
    assert width.why == "answers take 3.0 s, 1.4 s is usual"


@settings(deadline=None)
@given(
    answers=st.lists(st.floats(min_value=0.001, max_value=45), max_size=300),
    rate=st.floats(min_value=0.1, max_value=20),
)
def test_answers_alone_never_take_what_the_rate_needs(answers: list[float], rate: float) -> None:
    """However late answers are: none makes the width narrower than the rate needs, nor at all where there is none."""
    width, free = Width(MOST, rate), Width(MOST)
    for seconds in answers:
        before = width.calls
        call(width, seconds)
        call(free, seconds)
        assert width.calls >= min(before, width.needed)
        assert (free.calls, free.why) == (MOST, None)


def calls_per_s(
    width: Width | None, rate: float, answer_s: Callable[[Random], float], refused: float = 0
) -> float:
    """Return how many calls a vendor gets that answers after *answer_s*, in 500 s that never pass.

    *refused* is the part of calls that is refused after 20 ms; without a *width* eight are made at a time.
    """
    random, now, next_call, calls = Random(1), 0.0, 0.0, 0
    under_way: list[tuple[float, float]] = []
    while now < 500:
        if len(under_way) < (width.calls if width else MOST):
            if next_call <= now:
                next_call, calls = now + 1 / rate, calls + 1
                is_refused = random.random() < refused
                seconds = answer_s(random)
                heappush(
                    under_way,
                    (now + (0.02 if is_refused else seconds), 0 if is_refused else seconds),
                )
                continue
            now = min(next_call, under_way[0][0]) if under_way else next_call
        else:
            now = under_way[0][0]
        while under_way and under_way[0][0] <= now:
            seconds = heappop(under_way)[1]
            if width and seconds:
                call(width, seconds)
    return calls / 500


@pytest.mark.parametrize("refused", [0, 0.005, 0.02])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("median", [0.2, 0.4, 0.6, 1.0])
def test_a_healthy_vendor_gets_the_configured_rate(
    median: float, sigma: float, refused: float
) -> None:
    """The usual spread of times, and refusals that come at once, cost no call: as many as with eight at a time."""

    def answer_s(random: Random) -> float:
        return median * exp(random.gauss(0, sigma))

    fixed = calls_per_s(None, 5, answer_s, refused)
    assert calls_per_s(Width(MOST, 5), 5, answer_s, refused) >= 0.99 * fixed


def test_calls_that_were_on_their_way_together_halve_it_once() -> None:
    """Eight time-outs of one moment are one signal; a call that began after it is another one."""
    width = Width(MOST)
    call(width, 1.0)
    began = [width.begin() for _ in range(MOST)]
    for each in began:
        call(width, None, each)
    assert width.calls == 4
    call(width, None)
    assert width.calls == 2


def test_a_vendor_that_became_slower_is_not_late_for_ever() -> None:
    """It is narrowed to what the rate needs; after some hundred answers that is usual, and the width whole."""
    width = Width(MOST, calls_per_s=0.5)
    widths = []
    for seconds in [0.5] * 200 + [3.0] * 200:
        call(width, seconds)
        widths.append(width.calls)
    assert 2 <= min(widths) < MOST
    assert (width.calls, width.why) == (MOST, None)


def test_only_what_is_narrow_is_told() -> None:
    """While all is well nothing is written down."""
    narrow = Width(MOST)
    call(narrow, None)
    told = narrowed({Stage.FORWARD: Width(MOST), Stage.ENRICH: narrow})
    assert told == {Stage.ENRICH: (4, "no answer")}

"""What is broken when depends on the seed alone, and leaves nothing out."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter

import pytest

from chaos.points import ACKNOWLEDGING, SPILLING, WORKING, Point
from chaos.schedule import FAULTS, PARTS, VENDORS, Kind, draw

POINTS = (*ACKNOWLEDGING, *SPILLING, *WORKING)


def test_a_seed_is_a_schedule() -> None:
    """The same seed draws the same acts at the same times; another seed draws others."""
    assert draw(7, 120) == draw(7, 120)
    assert draw(7, 120) != draw(8, 120)


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    """Repeating a run for longer repeats what was broken until then."""
    short = draw(7, 60)
    assert draw(7, 600)[: len(short)] == short


def test_the_acts_are_in_order_and_end_with_the_run() -> None:
    """Acts come in the order of their times, none before everything works, none at the very end."""
    times = [act.at_s for act in draw(3, 120)]
    assert times == sorted(times)
    assert times[0] >= 1
    assert times[-1] < 118


def test_a_long_run_leaves_nothing_out() -> None:
    """Every part is killed, every kind of fault comes, and every chosen point, whatever the seed."""
    acts = draw(1, 400)
    assert {act.part for act in acts if act.kind is Kind.KILL} == set(PARTS)
    assert {act.part for act in acts if act.kind is Kind.TERM} == set(PARTS) - {VENDORS}
    assert {act.kind for act in acts} == set(Kind)
    assert {act.detail for act in acts if act.kind is Kind.FAULT} == set(FAULTS)
    assert {act.point for act in acts if act.point} == set(POINTS)


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_point_is_a_function_of_the_product(point: Point) -> None:
    """No point is left over from a function that was renamed."""
    module, _, path = point.place.partition(":")
    assert callable(attrgetter(path)(import_module(module)))
    assert point.side in ("before", "after")

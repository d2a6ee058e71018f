"""The verdict of a run finds what is lost, doubled without a reason, or wrong in the books."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from chaos import report
from chaos.judge import Arrival, Evidence, judge, read_journal
from chaos.parts import Incident
from chaos.sender import EVENT, VISITOR, WRONG, Ledger
from chaos.vendors import CUT_OFF

FATES = ("in", "waiting", "done", "duplicate", "ignored", "dead", "dropped")


def row(**numbers: int) -> dict[str, int]:
    """Return a stage's row of the books."""
    return dict.fromkeys(FATES, 0) | numbers


def evidence(**changed: object) -> Evidence:
    """Return the evidence of a good run: two events and a visitor arrived, one wrong is dead, one not promised."""
    ledger = Ledger()
    for kind in (EVENT, EVENT, VISITOR, WRONG, EVENT):
        ledger.new_id(kind)
    ledger.promise([0, 1], "stored")
    ledger.promise([2], "fsynced")
    ledger.promise([3], "spilled")
    good = {
        "ledger": ledger,
        "arrivals": [Arrival(0, 10.0, 200), Arrival(1, 10.0, 200), Arrival(2, 11.0, 200)],
        "dead": {3},
        "waiting": set[int](),
        "incidents": [],
        "books": {
            "forward": row(**{"in": 3}, done=2, dead=1),
            "subscribe": row(**{"in": 1}, done=1),
        },
        "recount": {"forward": {"waiting": 0, "dead": 1}, "subscribe": {"waiting": 0, "dead": 0}},
        "maybe_duplicate": 0,
        "marked": {},
    }
    return Evidence(**(good | changed))  # type: ignore[arg-type] # each test names its own


def again(at: float, status: int | None = 200) -> list[Arrival]:
    """Return the arrivals of a good run, and one of them again; *status* answered it the first time."""
    return [
        *(Arrival(0, 10.0, status), Arrival(1, 10.0, 200), Arrival(2, 11.0, 200)),
        Arrival(0, at, 200),
    ]


def test_a_good_run_has_no_problem() -> None:
    """Where everything promised is somewhere, once, and the books say so, nothing is wrong."""
    verdict = judge(evidence())
    assert verdict.problems == []
    assert (verdict.arrived, verdict.dead, verdict.waiting, verdict.lost) == (3, 1, 0, [])
    assert verdict.acknowledged == {"stored": 2, "fsynced": 1, "spilled": 1}


def test_what_was_promised_and_is_nowhere_is_lost() -> None:
    """An acknowledged id that neither arrived nor is dead nor waits is lost, and named."""
    verdict = judge(evidence(arrivals=[Arrival(1, 10.0, 200), Arrival(2, 11.0, 200)]))
    assert verdict.lost == [0]
    assert "lost: chaos-0-" in verdict.problems


def test_what_was_never_promised_is_not_lost() -> None:
    """An id whose delivery was never answered 2xx may be anywhere, also nowhere."""
    assert 4 not in judge(evidence()).lost


def test_what_waits_is_not_lost() -> None:
    """An id that lies in a queue or in the spill waits."""
    waits = evidence(arrivals=[Arrival(1, 10.0, 200), Arrival(2, 11.0, 200)], waiting={0})
    verdict = judge(waits)
    assert (verdict.waiting, verdict.lost) == (1, [])


def test_a_repetition_that_nothing_explains_is_a_problem() -> None:
    """What came again although the first call was answered well, and nothing happened, is named."""
    verdict = judge(evidence(arrivals=again(20.0), maybe_duplicate=1, marked={0: 1}))
    assert verdict.duplicates == {"unexplained": 1}
    assert "arrived twice, and nothing explains it: chaos-0-" in verdict.problems


@pytest.mark.parametrize("status", [504, 0, CUT_OFF, None])
def test_a_call_without_a_good_answer_explains_a_repetition(status: int | None) -> None:
    """A 504, a reset, half an answer and vendors that died in the call are reasons to call again."""
    verdict = judge(evidence(arrivals=again(20.0, status), maybe_duplicate=1, marked={0: 1}))
    assert verdict.duplicates.total() == 1
    assert verdict.problems == []


@pytest.mark.parametrize("part", ["worker 1", "redis"])
def test_a_mishap_in_between_explains_a_repetition(part: str) -> None:
    """Whoever had to note the answer was killed between the two arrivals."""
    killed = Incident("kill -9", part, began=12.0, ended=14.0)
    verdict = judge(
        evidence(arrivals=again(20.0), maybe_duplicate=1, marked={0: 1}, incidents=[killed])
    )
    assert verdict.duplicates == {f"{part.split()[0]}: kill -9": 1}
    assert verdict.problems == []


@pytest.mark.parametrize(
    ("part", "began", "ended"),
    [("receiver 1", 12.0, 14.0), ("worker 1", 2.0, 4.0), ("worker 1", 22.0, 24.0)],
)
def test_other_mishaps_explain_nothing(part: str, began: float, ended: float) -> None:
    """A receiver notes no answers, and what was over before or came after is no reason."""
    other = Incident("kill -9", part, began=began, ended=ended)
    verdict = judge(
        evidence(arrivals=again(20.0), maybe_duplicate=1, marked={0: 1}, incidents=[other])
    )
    assert verdict.duplicates == {"unexplained": 1}


def test_a_repetition_has_to_be_marked() -> None:
    """An id that came again is one that its worker marked, as often as it came again, however well explained."""
    twice = [*again(20.0, 504), Arrival(1, 21.0, 200)]
    (problem, *_) = judge(evidence(arrivals=twice, maybe_duplicate=5, marked={0: 1})).problems[1:]
    assert problem == "arrived twice, and was not marked: chaos-1-"
    three = [*again(20.0, 504), *again(30.0, 504)[-1:]]
    (problem, *_) = judge(evidence(arrivals=three, maybe_duplicate=5, marked={0: 1})).problems[1:]
    assert problem == "arrived twice, and was not marked: chaos-0-"


def test_what_is_marked_has_to_be_counted() -> None:
    """Fewer in `maybe_duplicate` than the workers have marked are a problem; more are none."""
    marked = {0: 1, 1: 2}
    (problem,) = judge(evidence(maybe_duplicate=2, marked=marked)).problems
    assert problem == "3 were marked, and only 2 are counted in maybe_duplicate"
    assert judge(evidence(maybe_duplicate=4, marked=marked)).problems == []


def test_books_that_do_not_balance_are_a_problem() -> None:
    """A stage whose fates do not add up to what came in is named."""
    books = {"forward": row(**{"in": 4}, done=2, dead=1), "subscribe": row(**{"in": 1}, done=1)}
    (problem,) = judge(evidence(books=books)).problems
    assert problem.startswith("the books of forward do not balance")


def test_books_are_held_against_the_data() -> None:
    """Balanced books that say something else than the queues and the dead letters are a problem."""
    recount = {"forward": {"waiting": 0, "dead": 0}, "subscribe": {"waiting": 0, "dead": 0}}
    (problem,) = judge(evidence(recount=recount)).problems
    assert problem.startswith("the books of forward say")


def test_books_are_held_against_the_vendors() -> None:
    """Balanced books that count as done what never arrived are a problem."""
    books = {"forward": row(**{"in": 4}, done=3, dead=1), "subscribe": row(**{"in": 1}, done=1)}
    assert judge(evidence(books=books)).problems == ["forward has done 3, and 2 ids have arrived"]


def test_an_innocent_dead_letter_is_a_problem() -> None:
    """Only what was wrong, or what the vendor refuses, may be dead."""
    dead = evidence(
        dead={1, 3},
        arrivals=[Arrival(0, 10.0, 200), Arrival(2, 11.0, 200)],
        books={
            "forward": row(**{"in": 3}, done=1, dead=2),
            "subscribe": row(**{"in": 1}, done=1),
        },
        recount={"forward": {"waiting": 0, "dead": 2}, "subscribe": {"waiting": 0, "dead": 0}},
    )
    assert judge(dead).problems == ["dead without a fault of its own: chaos-1-"]


def test_what_went_wrong_while_it_ran_stays_a_problem() -> None:
    """What the run itself has noted, such as books out of balance for a moment, is in the verdict."""
    assert judge(evidence(problems=["it did not drain"])).problems == ["it did not drain"]


def test_a_journal_joins_calls_and_answers() -> None:
    """What was accepted is joined with how its call was answered; a call that was cut short has no answer."""
    lines = [
        {"c": "1.0", "t": 5.0, "e": "events", "i": [3, 4]},
        {"c": "1.1", "t": 6.0, "e": "list-subscription", "i": [5]},
        {"c": "1.0", "s": 504},
    ]
    expected = [Arrival(3, 5.0, 504), Arrival(4, 5.0, 504), Arrival(5, 6.0, None)]
    assert read_journal(map(orjson.dumps, lines)) == expected


def test_the_longest_pause_is_between_neighbours() -> None:
    """Of times in order the largest step is told; of fewer than two there is none."""
    assert report.longest([1.0, 2.0, 5.5, 6.0]) == 3.5
    assert report.longest([1.0]) == 0.0


def test_a_report_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    """What stands between the markers is replaced, and nothing else."""
    page = tmp_path / "reliability.md"
    page.write_text(f"before\n{report.BEGIN}\n- old\n{report.END}\nafter\n")
    report.write(page, ["one", "two"])
    assert page.read_text() == f"before\n{report.BEGIN}\n- one\n- two\n{report.END}\nafter\n"


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    """A page that has no place for the report is not written."""
    page = tmp_path / "reliability.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no"):
        report.write(page, ["one"])
    assert page.read_text() == "nothing"

"""The report: what was done and what came out, as text, and between the markers of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from bench import machine
from chaos.judge import Verdict
from chaos.points import ACKNOWLEDGING, SPILLING, WORKING
from chaos.run import Run

BEGIN, END = "<!-- chaos -->", "<!-- /chaos -->"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for."""

    seed: int
    seconds: float
    date: str

    @property
    def command(self) -> str:
        """Return how to do the same again."""
        return f"scripts/chaos --minutes {self.seconds / 60:g} --seed {self.seed}"


def lines(asked: Asked, run: Run, verdict: Verdict) -> Iterator[str]:
    """Yield the report, one fact a line."""
    ledger = run.sender.ledger
    yield f"`{asked.command}` on {asked.date}, version {version('audience-relay')}"
    yield machine.describe()
    yield f"broken for {run.broken_s:.0f} s, drained in {run.drained_s:.0f} s"
    yield f"faults: {_counted(run.done)}; not met: {_counted(run.unmet) or 'none'}"
    points = {str(point) for point in (*ACKNOWLEDGING, *SPILLING, *WORKING)}
    yield f"ended or paused at {len(run.points)} of {len(points)} chosen points"
    by_itself = _counted(run.relay.ended_by_itself)
    yield f"ended by themselves, and were started again: {by_itself or 'none'}"
    yield f"deliveries acknowledged: {_counted(ledger.deliveries)}; answers: {_counted(ledger.answers)}"
    yield f"events acknowledged: {_counted(verdict.acknowledged)}"
    yield (
        f"events arrived {verdict.arrived} + dead {verdict.dead} + waiting {verdict.waiting}"
        f" of {verdict.acknowledged.total()} acknowledged; **lost {len(verdict.lost)}**"
    )
    yield (
        f"arrived twice: {verdict.duplicates.total()} ({_counted(verdict.duplicates) or 'none'});"
        f" marked by their ids when they were sent again: {verdict.marked},"
        f" counted in `maybe_duplicate`: {verdict.maybe_duplicate}"
    )
    yield (
        f"longest pause between two acknowledgements {longest(ledger.acked_at):.1f} s,"
        f" between two arrivals {longest(sorted(each.at for each in run.arrivals)):.1f} s"
    )
    yield f"problems: {'; '.join(verdict.problems) or 'none; the books balanced at every look'}"


def longest(times: Sequence[float]) -> float:
    """Return the longest time between two of *times*, which are in order."""
    return max((late - early for early, late in pairwise(times)), default=0.0)


def write(path: Path, report: Sequence[str]) -> None:
    """Put *report* between the markers of the file; raises `ValueError` when it has none."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no {BEGIN} … {END}")
    body = "".join(f"- {line}\n" for line in report)
    path.write_text(f"{before}{BEGIN}\n{body}{END}{after}", encoding="utf-8")


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(numbers.items()) if n)

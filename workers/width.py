"""Width: how many calls a worker has on their way to one destination at a time, by what came of them.

A call without an answer, or one that asked for fewer, halves the width: calls that were on their way together halve it
once. Eight answers in a row that each took twice the usual time (a mean of the last hundred or so) take a tenth of it,
but never more than the configured rate can spare: rate times the time that answers take now, rounded up. Without a
rate nobody says how few would do, and late answers take nothing. Every answer else widens it by one call for as many
answers as it is wide. Only answers of success count: a refusal is quick or slow for reasons of its own.
It stands beside back-off and pauses, which stop calls; this one only makes them fewer, and leaves one. What is
measured is this worker's own: each finds its width by itself.

Arithmetic only, without a clock: whoever calls measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from pipeline import paces
from pipeline.outcomes import Stage

#: the most of them
WIDTH = paces.WIDTH
#: an answer that comes sooner is in good time whatever is usual: our own machine being busy costs as much
IN_TIME_S = 0.25
#: as many times the usual is late
LATE = 2.0
#: so many late answers in a row are more than the spread of a healthy vendor
LATE_IN_A_ROW = 8
#: what lateness leaves of the width
GENTLY = 0.9
#: answers that the usual time is a mean of: it follows a vendor that became slower
USUAL = 100
#: answers that the time they take now is a mean of
LATELY = 8


@dataclass(slots=True)
class Width:
    """How many calls at a time, from one to *most*; *why* it is not *most*.

    *calls_per_s* is the configured rate, 0 for none.
    """

    most: int
    calls_per_s: float = 0.0
    why: str | None = None
    #: of answers of success; 0 before the first
    usual_s: float = 0.0
    _now: float = field(init=False)
    _lately_s: float = 0.0
    _round: int = 0
    _answers: int = 0
    _late: int = 0

    def __post_init__(self) -> None:
        """Begin with all of them."""
        self._now = float(self.most)

    @property
    def calls(self) -> int:
        """Return how many calls may be on their way."""
        return int(self._now)

    @property
    def needed(self) -> int:
        """Return how many calls at a time the configured rate needs now."""
        if not self.calls_per_s:
            return self.most
        return min(self.most, max(1, ceil(self.calls_per_s * self._lately_s)))

    def begin(self) -> int:
        """Return what a call that begins now brings back: calls of one round halve the width once."""
        return self._round

    def answered(self, seconds: float) -> None:
        """Note an answer of success that took *seconds*."""
        is_late = self._answers > 0 and seconds > max(IN_TIME_S, LATE * self.usual_s)
        self._late = self._late + 1 if is_late else 0
        self._remember(seconds)
        if self._now <= self.needed or not is_late:
            self._widen()
        elif self._late >= LATE_IN_A_ROW:
            self._late = 0
            self._now = max(float(self.needed), self._now * GENTLY)
            self.why = f"answers take {self._lately_s:.1f} s, {self.usual_s:.1f} s is usual"

    def failed(self, began: int, why: str) -> None:
        """Note a call that had no answer in time, or one that asked for fewer calls."""
        if began == self._round:
            self._round += 1
            self._now = max(1.0, self._now / 2)
            self.why = why if self._now < self.most else None

    def _remember(self, seconds: float) -> None:
        self._answers += 1
        self.usual_s += (seconds - self.usual_s) / min(self._answers, USUAL)
        self._lately_s += (seconds - self._lately_s) / min(self._answers, LATELY)

    def _widen(self) -> None:
        self._now = min(float(self.most), self._now + 1 / self._now)
        if self._now == self.most:
            self.why = None


def narrowed(widths: Mapping[Stage, Width]) -> dict[Stage, tuple[int, str]]:
    """Return how many calls a stage may make, and why, where they are not the most."""
    return {
        stage: (width.calls, width.why) for stage, width in widths.items() if width.why is not None
    }

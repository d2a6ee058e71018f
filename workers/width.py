"""Width: how many calls a worker has on their way to one destination at a time, by how soon the answers come.

A vendor that is near its limit answers late before it refuses. So a late answer, one that takes twice as long as the
best of late, narrows the width in proportion (a gradient, as TCP Vegas has it); no answer at all, or a 429, halves it;
each answer in good time widens it by one call for as many answers as it is wide. Calls that were on their way together
narrow it once. It stands beside back-off and pauses, which stop calls; this one only makes them fewer, and leaves one.
What is measured is this worker's own: each finds its width by itself.

Arithmetic only, without a clock: whoever calls measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.outcomes import Stage

#: calls of one stage by one worker at a time, when all is well
WIDTH = 8
#: an answer that comes sooner is in good time whatever is usual: our own machine being busy costs as much
IN_TIME_S = 0.25
#: as many times the best of late is late
LATE = 2.0
#: what is best is forgotten after one to two times as many answers: a vendor that became slower is no slow one then
OF_LATE = 100


@dataclass(slots=True)
class Width:
    """How many calls at a time, from one to *most*; *why* it is not *most*."""

    most: int
    why: str | None = None
    _now: float = field(init=False)
    _round: int = 0
    _answers: int = 0
    _best_s: tuple[float, float] = (float("inf"), float("inf"))

    def __post_init__(self) -> None:
        """Begin with all of them."""
        self._now = float(self.most)

    @property
    def calls(self) -> int:
        """Return how many calls may be on their way."""
        return int(self._now)

    def begin(self) -> int:
        """Return what a call that begins now brings back: calls of one round narrow the width once."""
        return self._round

    def answered(self, began: int, seconds: float) -> None:
        """Note an answer that took *seconds*, whatever it said."""
        best = min(*self._best_s, seconds)
        self._remember(seconds)
        limit = max(IN_TIME_S, LATE * best)
        if seconds > limit:
            why = f"an answer took {seconds:.1f} s, the best of late {best:.1f} s"
            self._narrow(began, max(0.5, limit / seconds), why)
        else:
            self._widen()

    def failed(self, began: int, why: str) -> None:
        """Note a call that had no answer in time, or one that asked for fewer calls."""
        self._narrow(began, 0.5, why)

    def _remember(self, seconds: float) -> None:
        older, newer = self._best_s
        self._answers += 1
        if self._answers >= OF_LATE:
            self._answers, older, newer = 0, newer, float("inf")
        self._best_s = (older, min(newer, seconds))

    def _narrow(self, began: int, factor: float, why: str) -> None:
        if began == self._round:
            self._round += 1
            self._now = max(1.0, self._now * factor)
            self.why = why if self._now < self.most else None

    def _widen(self) -> None:
        self._now = min(float(self.most), self._now + 1 / self._now)
        if self._now == self.most:
            self.why = None


def narrowed(widths: Mapping[Stage, Width]) -> dict[Stage, tuple[int, str]]:
    """Return how many calls a stage may make, and why, where they are not the most."""
    return {
        stage: (width.calls, width.why) for stage, width in widths.items() if width.why is not None
    }

"""Charts: how fast something went, or how high it stood, by its time, as inline SVG; whole without a script or a style.

Colours and lines come from the style sheet by class; what a picture shows is told in words for who cannot see it. Times
stand below it as text, so that a script can tell them in the reader's zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.history import Span

_WIDTH, _HEIGHT = 480, 96
# so that the line's full width is seen at the top
_MARGIN = 4
#: times below a chart are so many parts of it apart
PARTS = 3
#: of the usual distance between two moments; nobody wrote down what happened in a longer one
_GAP = 2.5


@dataclass(frozen=True, slots=True)
class Axis:
    """The time that charts show, and how far apart its moments are as a rule."""

    since_ms: int
    until_ms: int
    step_ms: int

    @property
    def ticks_ms(self) -> list[int]:
        """Return the times that are told, equally far apart, the ends among them."""
        length = self.until_ms - self.since_ms
        return [self.since_ms + n * length // PARTS for n in range(PARTS + 1)]

    def is_gap(self, span: Span) -> bool:
        """Tell whether nothing was written down for so long that nobody knows how it went meanwhile."""
        return span.at_ms - span.since_ms > _GAP * self.step_ms

    def place(self, at_ms: int) -> float:
        """Return where *at_ms* lies, from left to right; what is earlier lies at the left end."""
        return max(0.0, (at_ms - self.since_ms) / (self.until_ms - self.since_ms)) * _WIDTH


def known(spans: Sequence[Span], axis: Axis) -> list[Span]:
    """Return *spans* without the gaps."""
    return [span for span in spans if not axis.is_gap(span)]


def line(spans: Sequence[Span], axis: Axis, what: str) -> Markup:
    """Return *spans*, from old to new, as a chart up to the highest; *what* says in words what it shows."""
    runs = _runs(spans, axis)
    if not runs:
        return Markup('<p class="faint">Not enough is known yet.</p>')
    most = max(span.value for run in runs for span in run) or 1.0
    drawn = Markup("").join(_run(run, axis, most) for run in runs)
    ticks = Markup("").join(
        Markup(
            '<path class="chart-tick" d="M{x:.1f} 0V{h}" vector-effect="non-scaling-stroke"/>'
        ).format(x=_WIDTH * n / PARTS, h=_HEIGHT)
        for n in range(PARTS + 1)
    )
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{what}">'
        "{ticks}{drawn}</svg>"
    ).format(w=_WIDTH, h=_HEIGHT, what=what, ticks=ticks, drawn=drawn)


def _runs(spans: Sequence[Span], axis: Axis) -> list[list[Span]]:
    """Return what follows each other without a gap."""
    runs: list[list[Span]] = []
    for span in known(spans, axis):
        if not runs or runs[-1][-1].at_ms != span.since_ms:
            runs.append([])
        runs[-1].append(span)
    return runs


def _run(run: Sequence[Span], axis: Axis, most: float) -> Markup:
    begin = axis.place(run[0].since_ms)
    # the first value is that of the time before its moment, too
    places = [
        (begin, run[0].value),
        *((axis.place(span.at_ms), span.value) for span in run),
    ]
    points = " ".join(
        f"{x:.1f},{_HEIGHT - value / most * (_HEIGHT - _MARGIN):.1f}" for x, value in places
    )
    area = f"{begin:.1f},{_HEIGHT} {points} {places[-1][0]:.1f},{_HEIGHT}"
    return Markup(
        '<polygon class="chart-area" points="{area}"/>'
        '<polyline class="chart-line" points="{points}" vector-effect="non-scaling-stroke"/>'
    ).format(area=area, points=points)

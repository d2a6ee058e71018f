"""Charts: a line of numbers as inline SVG, whole without a script and without a style of its own.

Colours and lines come from the style sheet by class; what a picture shows is told in words for who cannot see it.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

_WIDTH, _HEIGHT = 480, 96
# so that the line's full width is seen at the top
_MARGIN = 4


def line(values: Sequence[float], what: str) -> Markup:
    """Return *values*, from old to new, as a chart; *what* says in words what it shows."""
    if len(values) < 2:
        return Markup('<p class="faint">Not enough is known yet.</p>')
    most = max(values) or 1.0
    step = _WIDTH / (len(values) - 1)
    points = [
        f"{n * step:.1f},{_HEIGHT - value / most * (_HEIGHT - _MARGIN):.1f}"
        for n, value in enumerate(values)
    ]
    area = f"0,{_HEIGHT} {' '.join(points)} {_WIDTH},{_HEIGHT}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{what}">'
        '<polygon class="chart-area" points="{area}"/>'
        '<polyline class="chart-line" points="{points}" vector-effect="non-scaling-stroke"/></svg>'
    ).format(w=_WIDTH, h=_HEIGHT, what=what, area=area, points=" ".join(points))

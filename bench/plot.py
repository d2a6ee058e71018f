"""`python -m bench.plot FIGURES.json PLOT.svg`: draws what `scripts/bench --json` has written.

Bars only, each with its number: the file is small, needs no fonts and no script, and is read in light and in dark
(the colours follow the reader's setting; the ground is drawn, so that no page shows through).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import orjson

WIDTH = 760
_LABEL_TO, _BAR_FROM, _BAR_MOST = 270, 280, 370
_ROW, _TITLE, _GAP = 24, 40, 14
_WORDS = {
    "receiver": "relay's receiver",
    "noop": "no-op handler (stores nothing)",
    "arq, empty jobs": "arq, jobs that do nothing",
}
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 } .small { font-size: 11px; fill: #57606a }
  .ground { fill: #ffffff; stroke: #d0d7de } .ours { fill: #0969da } .theirs { fill: #afb8c1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 }
    .ground { fill: #0d1117; stroke: #3d444d } .ours { fill: #4493f8 } .theirs { fill: #656c76 }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure."""

    label: str
    value: float
    unit: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that are compared."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """How high it is drawn."""
        return _TITLE + _ROW * len(self.bars) + _GAP


def drawn(about: Mapping[str, Any]) -> str:
    """Return the figures of *about* as SVG; what was not measured is left out."""
    panels = list(_panels(about["figures"]))
    height = sum(panel.height for panel in panels) + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Measured speed of the relay">',
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
    ]
    top = 0
    for panel in panels:
        lines += _lines(panel, top)
        top += panel.height
    lines += [
        f'<text class="small" x="16" y="{height - 16}">{escape(about["machine"])}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _panels(figures: Sequence[Mapping[str, Any]]) -> Iterator[Panel]:
    for fsync in ("everysec", "always"):
        end = f", appendfsync {fsync}"
        title = f"Receiving, requests a second (one process, Redis with appendfsync {fsync})"
        yield from _panel(title, figures, "peers", "requests/s", end)
    title = "The whole way, events a second (one worker, from the stored delivery to the vendor)"
    yield from _panel(title, figures, "flow", "events/s", "", "jobs/s")
    for fsync in ("everysec", "always"):
        end = f" p99, appendfsync {fsync}"
        title = f"99 of 100 answers within, at 80 % of the most (appendfsync {fsync})"
        yield from _panel(title, figures, "latency", "ms", end)


def _panel(
    title: str, figures: Sequence[Mapping[str, Any]], bench: str, unit: str, end: str, *units: str
) -> Iterator[Panel]:
    bars = []
    for one in figures:
        name: str = one["name"]
        if one["bench"] == bench and one["unit"] in (unit, *units) and name.endswith(end):
            name = name.removesuffix(end)
            is_ours = name.startswith(("receiver", "relay"))
            bars.append(Bar(_WORDS.get(name, name), one["value"], unit, is_ours))
    if bars:
        yield Panel(title, bars)


def _lines(panel: Panel, top: int) -> Iterator[str]:
    most = max(bar.value for bar in panel.bars) or 1
    yield f'<text class="title" x="16" y="{top + 26}">{escape(panel.title)}</text>'
    for number, bar in enumerate(panel.bars):
        y = top + _TITLE + number * _ROW
        length = round(_BAR_MOST * bar.value / most, 1)
        kind = "ours" if bar.is_ours else "theirs"
        said = f"{bar.value:,.0f}" if bar.value >= 100 else f"{bar.value:.3g} {bar.unit}"
        yield f'<text x="{_LABEL_TO}" y="{y + 13}" text-anchor="end">{escape(bar.label)}</text>'
        yield f'<rect class="{kind}" x="{_BAR_FROM}" y="{y}" width="{length}" height="17" rx="2"/>'
        yield f'<text x="{_BAR_FROM + length + 6}" y="{y + 13}">{said}</text>'


def main() -> None:
    """Read the figures, write the plot."""
    figures, plot = map(Path, sys.argv[1:])
    plot.write_text(drawn(orjson.loads(figures.read_bytes())))


if __name__ == "__main__":
    main()

"""`relay status --watch`: the flow as a terminal shows it, every two seconds, until Ctrl-C."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from console.orders import stopping_on_signals
from console.output import safe
from console.web.gauges import Gauges
from console.web.rendering import duration, number
from console.web.sentences import verdict

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

EVERY_S = 2.0
_COLUMNS = (
    "waiting",
    "in a minute",
    "out a minute",
    "oldest",
    "entries in hand",
    "drained in",
    "dead",
)
_STYLES = {"bad": "bold red", "warn": "yellow", "good": "green"}


async def watch(redis: Redis, settings: Settings, console: Console | None = None) -> None:
    """Show the figures anew every two seconds until Ctrl-C. Raises redis-py's errors."""
    gauges = Gauges(settings, redis)
    with (
        stopping_on_signals() as stopping,
        Live(console=console, screen=False, auto_refresh=False) as live,
    ):
        while not stopping.is_set():
            live.update(picture(await gauges.read()), refresh=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await stopping.wait()


def picture(figures: dict[str, Any]) -> Group:
    """Return the figures as one picture: a table of the stages, and what is to be said of them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for stage, flow in figures["flow"].items():
        row = figures["stages"][stage]
        mark = " (paused)" if figures["paused"][stage] else ""
        table.add_row(
            stage + mark,
            number(row["waiting"]),
            _rate(flow["in_per_minute"]),
            _rate(flow["out_per_minute"]),
            duration(flow["oldest_s"]),
            number(flow["in_hands"]),
            duration(flow["drains_in_s"]),
            number(row["dead"]),
        )
    said = [Text(safe(sentence), style=_STYLES[how]) for how, sentence in verdict(figures)]
    return Group(table, *said)


def _rate(per_minute: float | None) -> str:
    return duration(None) if per_minute is None else number(round(per_minute, 1))

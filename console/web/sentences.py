"""How it goes in sentences, for the page of the flow and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from console.web.rendering import number

_HOW = ("bad", "warn", "good")


def verdict(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say in sentences how it goes, the most serious first, each with how serious: bad, warn or good."""
    said: list[tuple[str, str]] = []
    if not figures["balanced"]:
        said.append(
            ("bad", "The books do not balance: a fault of the relay. Keep the data, and report it.")
        )
    if not figures["workers"]:
        said.append(("bad", "No worker is alive: what comes in waits."))
    if figures.get("spill_unreadable"):
        said.append(("bad", "The spill cannot be read: the books may lack what lies there."))
    for name, pause in (figures["paused"] | figures.get("tasks", {})).items():
        if pause:
            how = "bad" if pause["by"] == "relay" else "warn"
            said.append((how, f"{name} is paused by the {pause['by']}: {pause['reason']}"))
    if figures.get("spilled"):
        said.append(
            ("warn", f"{number(figures['spilled'])} deliveries lie in the spill, not yet in Redis.")
        )
    for vendor, pace in figures["rates"].items():
        if pace["why"]:
            said.append(
                (
                    "warn",
                    f"{vendor} is asked {pace['now']:.2f} times a second, not {pace['configured']:g}: {pace['why']}",
                )
            )
    dead = {stage: row["dead"] for stage, row in figures["stages"].items() if row["dead"]}
    if dead:
        each = ", ".join(f"{number(count)} in {stage}" for stage, count in dead.items())
        said.append(("warn", f"Dead letters wait for somebody: {each}."))
    if figures["balanced"]:
        said.append(
            ("good", "The books balance: whatever came in waits, is done, or is accounted for.")
        )
    return sorted(said, key=lambda each: _HOW.index(each[0]))


def in_short(said: Sequence[tuple[str, str]]) -> str:
    """Return of a verdict how many sentences are how serious: a page may not show all of them at once."""
    bad, warn = (sum(how == each for how, _ in said) for each in _HOW[:2])
    if not bad and not warn:
        return "Nothing is stuck."
    # short enough for one line of a telephone, so that nothing below it moves
    return ", ".join(f"{n} {what}" for n, what in ((bad, "grave"), (warn, "to look at")) if n) + ":"

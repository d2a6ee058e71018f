"""What a vendor tells of one thing, for people a line each, and for programs as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def print_facts(facts: Mapping[str, object], *, as_json: bool) -> None:
    """Print *facts*."""
    from console.output import print_json, say

    if as_json:
        print_json(facts)
    else:
        say("\n".join(lines(facts)))


def lines(facts: Mapping[str, object]) -> list[str]:
    """Return *facts*, a line each; what is empty is left out."""
    return [f"{name:<28} {as_line(value)}" for name, value in facts.items() if value]


def as_line(value: Any) -> str:
    """Return any value of an answer as one line."""
    import orjson

    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return orjson.dumps(value).decode()

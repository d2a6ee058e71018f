"""Whom an audience is to hold, as `relay audiences create` and `preview` are told it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from console.commands import BadUsage
from console.vendors import check_text

Filters = Mapping[str, object] | list[Mapping[str, object]]

FiltersOption = Annotated[
    str | None,
    typer.Option(
        "--filters",
        metavar="FILE|JSON",
        help="The filters, as JSON or a file (`-`: stdin); usually an object.",
    ),
]
SegmentOption = Annotated[
    list[str] | None,
    typer.Option("--segment", help="A segment that its people are in; repeat for more."),
]


def wanted_people(filters: str | None, segment: Sequence[str]) -> Filters:
    """Return the filters of an audience; raises `BadUsage` where it would hold nobody."""
    for each in segment:
        check_text("--segment", each)
    if filters is None and not segment:
        raise BadUsage("Say whom the audience holds: give --filters or --segment.")
    return {} if filters is None else _filters(filters)


def _filters(text: str) -> Filters:
    """Read filters, told as JSON or as the file that holds it; raises `BadUsage` for none."""
    import orjson

    try:
        raw = text if text.lstrip()[:1] in ("{", "[") else _content(text)
        told = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadUsage(f"--filters holds no JSON (line {error.lineno}).") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BadUsage(
            f"--filters is neither JSON nor a readable file ({type(error).__name__})."
        ) from None
    is_list = isinstance(told, list) and all(isinstance(each, dict) for each in told)
    if not told or not (is_list or isinstance(told, dict)):
        raise BadUsage('--filters should hold an object such as {"city": ["Bergen"]}.')
    filters: Filters = told
    return filters


def _content(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()

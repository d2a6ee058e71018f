"""Reads `tests/samples/<source>/<case>.json` and writes outcomes the way these files expect them.

A sample is {"body": ..., "expect": [...], "rules"?: {...}}. An expected mail event lists exactly
the fields that are set, scores are {"email", "scores"}, the others {"ignored": why} and
{"invalid": error}.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.deliveries import Delivery
from pipeline.outcomes import Ignored, Invalid, MailEvent, Outcome, ScoreChange

_SAMPLES = Path(__file__).parent.parent / "samples"

#: 2023-11-14T22:13:20Z, later than every time in the samples
NOW = 1_700_000_000.0


def samples(source: str) -> list[object]:
    """Return the source's samples as parameters, named by their files."""
    return [pytest.param(orjson.loads(path.read_bytes()), id=path.stem) for path in _paths(source)]


def samples_of(sources: Iterable[str]) -> list[object]:
    """Return each of the *sources* with each of its samples as parameters, named by source and file."""
    return [
        pytest.param(source, orjson.loads(path.read_bytes()), id=f"{source}-{path.stem}")
        for source in sources
        for path in _paths(source)
    ]


def bare_samples(source: str) -> list[dict[str, Any]]:
    """Return the source's samples."""
    return [orjson.loads(path.read_bytes()) for path in _paths(source)]


def _paths(source: str) -> list[Path]:
    paths = sorted((_SAMPLES / source).glob("*.json"))
    assert paths, f"no samples of {source}"
    return paths


def delivery(source: str, body: object) -> Delivery:
    """Return a delivery of *body*: bytes as they are, anything else as JSON."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Delivery(id="0" * 24, source=source, body=raw, received_at_ms=int(NOW * 1000))


def shown(outcome: Outcome) -> dict[str, object]:
    """Return *outcome* in the words of a sample's `expect`."""
    if isinstance(outcome, MailEvent):
        values = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
        return {name: value for name, value in values.items() if value is not None}
    if isinstance(outcome, ScoreChange):
        return {"email": outcome.email, "scores": dict(outcome.scores)}
    if isinstance(outcome, Ignored):
        return {"ignored": outcome.why}
    assert isinstance(outcome, Invalid)
    return {"invalid": outcome.error}

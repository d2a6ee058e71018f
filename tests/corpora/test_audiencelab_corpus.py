"""Recorded and documented bodies of AudienceLab, from `audiencelab.jsonl` under RELAY_CORPORA.

The table says what each must give, whichever of the three hooks it arrives at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.deliveries import Delivery
from pipeline.outcomes import Ignored, Outcome, Probe, Unreadable, VisitorEvent
from pipeline.sources import Rules, Source
from pipeline.sources.audiencelab import AUDIENCE, PIXEL, WORKFLOW

SOURCES: tuple[Source, ...] = (PIXEL, AUDIENCE, WORKFLOW)
PROBE = "probe"
#: by id: "probe", the reason why it is unreadable, or how many visitors and how many anonymous
EXPECTED: dict[str, str | tuple[int, int]] = {
    "audiencelab-01": PROBE,
    "audiencelab-02": PROBE,
    "audiencelab-03": PROBE,
    "audiencelab-04": (1, 0),
    "audiencelab-05": "unknown_shape",
    "audiencelab-07": (1, 0),
    "audiencelab-08": (1, 0),
    "audiencelab-09": (1, 0),
    "audiencelab-11": (1, 0),
    "audiencelab-12": (1, 0),
    "audiencelab-14": (1, 0),
    "audiencelab-15": (1, 0),
    "audiencelab-16": (1, 0),
    "audiencelab-18": (0, 2),
    "audiencelab-20": (1, 0),
    "audiencelab-22": (0, 1),
    "audiencelab-23": (3, 0),
    "audiencelab-24": (2, 0),
    "audiencelab-26": (1, 0),
    "audiencelab-27": (1, 0),
    "audiencelab-29": PROBE,
    "audiencelab-31": (1, 0),
    "audiencelab-32": (2, 0),
    "audiencelab-34": (7, 0),
    "audiencelab-36": (0, 1),
    "audiencelab-38": (2, 0),
    "audiencelab-40": (1, 0),
    "audiencelab-41": (1, 0),
    # an answer of the enrichment API; as a body it is a {"result": [...]} like any other
    "audiencelab-42": (1, 0),
    "audiencelab-44": "unknown_shape",
    "audiencelab-45": "unknown_shape",
    "audiencelab-47": PROBE,
    "audiencelab-48": PROBE,
}


def _bodies() -> dict[str, Any]:
    path = Path(os.environ["RELAY_CORPORA"]) / "audiencelab.jsonl"
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    return {line["id"]: line["body"] for line in lines}


BODIES = _bodies()


def _parse(source: Source, body: object) -> list[Outcome]:
    raw = orjson.dumps(body)
    source.check(raw, "application/json")
    return source.parse(Delivery("0" * 24, source.name, raw, 0), Rules(), 0.0)


def _verdict(source: Source, body: object) -> str | tuple[int, int]:
    try:
        found = _parse(source, body)
    except Probe:
        return PROBE
    except Unreadable as unreadable:
        return unreadable.reason.value
    anonymous = [one for one in found if isinstance(one, Ignored) and one.why == "anonymous"]
    visitors = [one for one in found if isinstance(one, VisitorEvent)]
    assert len(anonymous) + len(visitors) == len(found)
    return len(visitors), len(anonymous)


def _fingerprints(line_id: str) -> list[str]:
    found = _parse(PIXEL, BODIES[line_id])
    return [one.fingerprint for one in found if isinstance(one, VisitorEvent)]


def test_every_recorded_body_is_in_the_table() -> None:
    """A new line needs a decision."""
    assert set(BODIES) == set(EXPECTED)


@pytest.mark.parametrize("source", SOURCES, ids=[source.name for source in SOURCES])
@pytest.mark.parametrize("line_id", EXPECTED)
def test_a_recorded_body_gives_what_the_table_says(line_id: str, source: Source) -> None:
    """So many visitors and anonymous, a probe, or unreadable; the same in all three hooks."""
    assert _verdict(source, BODIES[line_id]) == EXPECTED[line_id]


@pytest.mark.parametrize("line_id", ["audiencelab-23", "audiencelab-32", "audiencelab-34"])
def test_the_people_of_one_action_are_told_apart(line_id: str) -> None:
    """Equal milliseconds, page and type, unresolved rows among them: no two share a fingerprint."""
    found = _fingerprints(line_id)
    assert len(set(found)) == len(found)


def test_the_same_action_in_two_feeds_is_recognised() -> None:
    """A segment row repeats the webhook's event, a workflow's row that of the V4 page."""
    assert _fingerprints("audiencelab-34")[-2:] == _fingerprints("audiencelab-32")
    assert _fingerprints("audiencelab-38")[:1] == _fingerprints("audiencelab-40")

"""The source `events`: AudiencePoint's own objects, taken strictly and one by one."""

from __future__ import annotations

import orjson

from pipeline.outcomes import Invalid, Stage
from pipeline.sources import Rules
from pipeline.sources.events import EVENTS
from tests.pipeline.sample_outcomes import NOW, delivery


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """The payload of an invalid event is its own JSON, unknown keys included, and nothing else."""
    wrong = {"email": "grace@example.com", "type": "Nope", "colour": ["red", 2**60]}
    found = EVENTS.parse(delivery("events", [wrong, 5]), Rules(), NOW)
    assert [(item.stage, item.payload) for item in found if isinstance(item, Invalid)] == [
        (Stage.FORWARD, orjson.dumps(wrong)),
        (Stage.FORWARD, b"5"),
    ]


def test_an_event_nested_deeper_than_orjson_writes_is_kept_too() -> None:
    """A wrong event of 900 levels is buried with all of its levels."""
    deep = b'[{"email":' + b'[{"a":1,"b":' * 450 + b'["x",null]' + b"}]" * 450 + b"}]"
    (found,) = EVENTS.parse(delivery("events", deep), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert found.payload == deep[1:-1]


def test_errors_hold_no_personal_data() -> None:
    """The reason of an invalid event never quotes the event."""
    body = {"email": "grace example.com", "type": "grace", "send_id": "s", "occurred_at_utc": "g"}
    (found,) = EVENTS.parse(delivery("events", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert "grace" not in found.error

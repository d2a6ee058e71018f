"""The source `events`: AudiencePoint's own objects, taken strictly and one by one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.events import EVENTS
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    ["email", "type", "occurred_at_utc", "send_id", "machine_open", "ip_address", "events"]
)
_VALUES = _JSON | st.sampled_from(
    ["Open", "a@example.com", "2023-01-01T00:00:00", "9999-12-31T23:59:59", "0000-00-00T00:00:00"]
)
_OBJECTS = st.dictionaries(_NAMES, _VALUES)


@pytest.mark.parametrize("sample", samples("events"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    found = EVENTS.parse(delivery("events", sample["body"]), Rules(), NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize(
    "body", [{}, {"foo": 1}, {"events": {}}, {"events": None}, 1, 1.5, "x", True, None]
)
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON that is none of the three shapes is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        EVENTS.parse(delivery("events", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b"{", b'{"a":NaN}', b'"\xff"', b'"\\ud800"', b"[" * 5000, b"1e999", b"email=a"],
)
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    """What is no JSON is refused by the check, and is malformed if it is parsed all the same."""
    with pytest.raises(Malformed):
        EVENTS.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        EVENTS.parse(delivery("events", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_byte_order_mark_is_tolerated() -> None:
    """A UTF-8 mark before the JSON changes nothing."""
    EVENTS.check(b"\xef\xbb\xbf[]", "")
    assert EVENTS.parse(delivery("events", b"\xef\xbb\xbf[]"), Rules(), NOW) == []


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


def test_the_token_is_all_the_proof() -> None:
    """There is no signature to check, whatever the headers say."""
    EVENTS.verify({"x-signature": "?"}, b"[]", {}, NOW)


@given(st.one_of(_JSON, _OBJECTS, st.lists(_OBJECTS, max_size=3)))
def test_any_json_gives_outcomes_or_is_unreadable(body: object) -> None:
    """No JSON at all makes the parser raise anything else."""
    try:
        found = EVENTS.parse(delivery("events", body), Rules(), NOW)
    except Unreadable:
        return
    assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=64))
def test_any_bytes_give_outcomes_or_are_unreadable(body: bytes) -> None:
    """No bytes at all make the parser raise anything else."""
    with suppress(Unreadable):
        EVENTS.parse(delivery("events", body), Rules(), NOW)

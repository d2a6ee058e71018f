"""The source `iterable`: its names become AudiencePoint's, wherever in the body a field stands."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.iterable import ITERABLE
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown


@pytest.mark.parametrize("sample", samples("iterable"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    ITERABLE.check(orjson.dumps(sample["body"]), "application/json")
    found = ITERABLE.parse(delivery("iterable", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize(
    "body", [{}, {"email": "ada@example.com"}, [], [{"eventName": "emailSend"}], 1, "x", None]
)
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON that is not what Iterable posts is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        ITERABLE.parse(delivery("iterable", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"a=1"])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    """It is refused at the door, and a dead letter if it got past it."""
    with pytest.raises(Malformed):
        ITERABLE.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        ITERABLE.parse(delivery("iterable", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event that cannot be read is buried in the stage `forward` with its own JSON, long numbers too."""
    wrong = b'{"eventName":"emailSend","n":123456789012345678901234567890}'
    (found,) = ITERABLE.parse(delivery("iterable", wrong), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, wrong)


@given(st.dictionaries(st.text(), st.text()), st.binary(max_size=20))
def test_nothing_is_signed(headers: dict[str, str], body: bytes) -> None:
    """Iterable signs nothing: the token alone is judged, and that is done at the door."""
    ITERABLE.verify(headers, body, {}, NOW)


@pytest.mark.parametrize("name", ["emailSend", "emailBounce", "emailComplaint"])
def test_what_no_person_did_has_no_address_of_a_machine(name: str) -> None:
    """`ip` and `userAgent` leave only on what the person did."""
    fields = {"messageId": "m", "createdAt": "2023-06-01 12:00:00 +00:00", "ip": "192.0.2.1"}
    body = {
        "email": "ada@example.com",
        "eventName": name,
        "dataFields": {**fields, "userAgent": "x"},
    }
    (found,) = ITERABLE.parse(delivery("iterable", body), Rules(), NOW)
    assert not {"ip_address", "user_agent"} & shown(found).keys()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(
    ["emailSend", "emailOpen", "emailBounce", "smsSend", "SoftBounce", "a@example.com", "Apple"]
)
_INNER = st.dictionaries(
    st.sampled_from(
        ["createdAt", "messageId", "campaignId", "ip", "userAgent", "proxySource", "recipientState"]
    ),
    _JSON | _WORDS,
)
_OBJECTS = st.dictionaries(
    st.sampled_from(["eventName", "email", "dataFields", "createdAt", "messageId"]),
    _JSON | _WORDS | _INNER,
)


@given(
    st.one_of(_JSON, _OBJECTS, _INNER),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything but what its contract names."""
    try:
        found = ITERABLE.parse(delivery("iterable", body), rules, NOW)
    except Unreadable:
        return
    assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes at all make the door or the parser raise anything but what their contract names."""
    with contextlib.suppress(Malformed):
        ITERABLE.check(body, "")
    with contextlib.suppress(Unreadable):
        ITERABLE.parse(delivery("iterable", body), Rules(), NOW)

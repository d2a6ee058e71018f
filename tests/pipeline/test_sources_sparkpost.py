"""The source `sparkpost`: its words become AudiencePoint's, whatever a batch holds."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, MailEvent, Probe, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.sparkpost import SPARKPOST
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_CLICK = {
    "type": "click",
    "rcpt_to": "ada@example.com",
    "timestamp": "1685620800",
    "message_id": "m-1",
}


@pytest.mark.parametrize("sample", samples("sparkpost"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    found = SPARKPOST.parse(delivery("sparkpost", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"results": []}, {"track_event": _CLICK}, 1, "x", None])
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON that is neither an array nor one event is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        SPARKPOST.parse(delivery("sparkpost", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [[{"msys": {}}], [{"msys": {}}, {"msys": {}}], {"msys": {}}, []])
def test_the_ping_of_a_new_webhook_is_a_probe(body: object) -> None:
    """What is posted while a webhook is created has the form and holds nothing."""
    SPARKPOST.check(orjson.dumps(body), "application/json")
    with pytest.raises(Probe):
        SPARKPOST.parse(delivery("sparkpost", body), Rules(), NOW)


def test_an_empty_body_is_malformed() -> None:
    """Nothing is not JSON: the receiver answers 400."""
    with pytest.raises(Malformed):
        SPARKPOST.check(b"", "application/json")
    with pytest.raises(Unreadable) as caught:
        SPARKPOST.parse(delivery("sparkpost", b""), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_it_is_believed_by_the_token_alone() -> None:
    """SparkPost signs nothing, so no secret of another sender is asked of it."""
    SPARKPOST.verify({}, b"[]", {"SENDGRID_PUBLIC_KEY": "x"}, NOW)


def test_a_wrong_event_is_kept_as_it_came_and_can_be_read_again() -> None:
    """It is buried alone in `forward`, long numbers unrounded; alone it gives the same again."""
    wrong = b'{"msys":{"track_event":{"type":"click","event_id":123456789012345678901234567890}}}'
    (found,) = SPARKPOST.parse(delivery("sparkpost", b"[" + wrong + b"]"), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, wrong)
    assert SPARKPOST.parse(delivery("sparkpost", found.payload), Rules(), NOW) == [found]


def test_two_messages_of_one_transmission_stay_two() -> None:
    """Only `message_id` tells apart what one transmission sent twice to one address."""
    both = [{**_CLICK, "message_id": name, "transmission_id": "t"} for name in ("m-1", "m-2")]
    body = [{"msys": {"track_event": event}} for event in both]
    found = SPARKPOST.parse(delivery("sparkpost", body), Rules(), NOW)
    assert [event.send_id for event in found if isinstance(event, MailEvent)] == ["m-1", "m-2"]


def test_a_time_far_ahead_is_invalid() -> None:
    """A time more than a day ahead is what AudiencePoint could not make sense of."""
    body = [{"msys": {"track_event": {**_CLICK, "timestamp": 2**33}}}]
    (found,) = SPARKPOST.parse(delivery("sparkpost", body), Rules(), NOW)
    assert shown(found) == {"invalid": "occurred_at_utc is more than 24 hours ahead"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    [
        *("type", "raw_rcpt_to", "rcpt_to", "timestamp", "message_id", "transmission_id"),
        *("event_id", "bounce_class", "error_code", "fbtype", "campaign_id", "ip_address"),
        *("user_agent", "user_agent_parsed"),
    ]
)
_WORDS = st.sampled_from(
    [
        *("injection", "delivery", "bounce", "delay", "spam_complaint", "open", "click"),
        *("link_unsubscribe", "10", "90", "a@example.com", "192.0.2.1", "1685620800"),
    ]
)
_PARSED = st.dictionaries(
    st.sampled_from(["agent_family", "os_family", "is_mobile", "is_proxy", "is_prefetched"]), _JSON
)
_EVENTS = st.dictionaries(_FIELDS, _JSON | _WORDS | _PARSED)
_CLASSES = st.sampled_from(["message_event", "track_event", "relay_event", "later_event"])
_ITEMS = st.fixed_dictionaries({"msys": _JSON | st.dictionaries(_CLASSES, _JSON | _EVENTS)})


@given(
    st.one_of(_JSON, _ITEMS, st.lists(_ITEMS | _JSON, max_size=3)),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything else."""
    try:
        found = SPARKPOST.parse(delivery("sparkpost", body), rules, NOW)
    except (Unreadable, Probe):
        return
    assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_the_same_way_twice(body: bytes) -> None:
    """The receiver and the worker agree on what is JSON, and neither raises anything else."""
    try:
        SPARKPOST.check(body, "application/json")
    except Malformed:
        with pytest.raises(Unreadable) as caught:
            SPARKPOST.parse(delivery("sparkpost", body), Rules(), NOW)
        assert caught.value.reason is Reason.MALFORMED

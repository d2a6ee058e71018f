"""The source `mailjet`: its words become AudiencePoint's, its long ids stay exact."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, MailEvent, Probe, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.mailjet import MAILJET
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown


@pytest.mark.parametrize("sample", samples("mailjet"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    found = MAILJET.parse(delivery("mailjet", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"email": "a@example.com"}, {"events": []}, 1, "x", None])
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON in which no event can be found is unreadable as a whole, and has the form all the same."""
    MAILJET.check(orjson.dumps(body), "application/json")
    with pytest.raises(Unreadable) as caught:
        MAILJET.parse(delivery("mailjet", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b" \n", b"event=open", b'{"event":', b"\xff"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """The receiver answers 400, and the worker says the same of it."""
    with pytest.raises(Malformed):
        MAILJET.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        MAILJET.parse(delivery("mailjet", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_an_empty_group_is_a_probe() -> None:
    """Nothing happened: it is answered and counted, and nobody has to look at it."""
    MAILJET.check(b"[]", "application/json")
    with pytest.raises(Probe):
        MAILJET.parse(delivery("mailjet", []), Rules(), NOW)


@given(st.integers(1, 2**64 - 1))
def test_the_id_of_a_message_is_exact_to_the_last_digit(message_id: int) -> None:
    """No id of up to 64 bits is rounded as a double would be: neighbours stay two messages."""
    body = b'{"event":"sent","email":"a@example.com","time":1685620800,"MessageID":%d}' % message_id
    (found,) = MAILJET.parse(delivery("mailjet", body), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.send_id == str(message_id)


def test_a_number_that_was_rounded_is_no_id() -> None:
    """Of more than 64 bits only a rounded number is left: buried, with every digit that came."""
    body = b'{"event":"sent","email":"a@example.com","time":1685620800,"MessageID":18446744073709551617}'
    (found,) = MAILJET.parse(delivery("mailjet", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, body)
    assert found.error == "the id of the message is missing"


def test_a_time_far_ahead_is_invalid() -> None:
    """A time more than a day ahead is what AudiencePoint could not make sense of."""
    item = {"event": "click", "email": "ada@example.com", "MessageID": 5, "time": 2**33}
    (found,) = MAILJET.parse(delivery("mailjet", item), Rules(), NOW)
    assert shown(found) == {"invalid": "occurred_at_utc is more than 24 hours ahead"}


def test_mailjet_has_no_signature_to_refuse() -> None:
    """Our token alone is its proof: any headers pass, and other senders' secrets do not matter."""
    MAILJET.verify({}, b"{}", {}, NOW)
    MAILJET.verify({"authorization": "\udcff"}, b"", {"MAILTRAP_SIGNING_SECRET": "x"}, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    [
        "event",
        "email",
        "time",
        "MessageID",
        "mj_message_id",
        "Message_GUID",
        "mj_campaign_id",
        "ip",
        "agent",
        "hard_bounce",
        "error",
    ]
)
_WORDS = st.sampled_from(
    [
        "sent",
        "open",
        "bounce",
        "blocked",
        "unsub",
        "greylisted",
        "true",
        "a@example.com",
        "192.0.2.1",
    ]
)
_OBJECTS = st.dictionaries(_NAMES, _JSON | _WORDS)


@given(
    st.one_of(_JSON, _OBJECTS, st.lists(_OBJECTS, max_size=3)),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_ends_as_a_whole(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything but `Unreadable` or `Probe`."""
    try:
        found = MAILJET.parse(delivery("mailjet", body), rules, NOW)
    except (Unreadable, Probe):
        return
    assert all(shown(outcome) for outcome in found)


def _is_malformed_to_the_worker(body: bytes) -> bool:
    try:
        MAILJET.parse(delivery("mailjet", body), Rules(), NOW)
    except Unreadable as error:
        return error.reason is Reason.MALFORMED
    except Probe:
        return False
    return False


@given(st.binary(max_size=60) | st.text('{}[]":,\n 1', max_size=20).map(str.encode))
def test_receiver_and_worker_agree_on_any_bytes(body: bytes) -> None:
    """What `check` lets in, `parse` can read, and the other way round; nothing else is raised."""
    if _is_malformed_to_the_worker(body):
        with pytest.raises(Malformed):
            MAILJET.check(body, "application/json")
    else:
        MAILJET.check(body, "application/json")

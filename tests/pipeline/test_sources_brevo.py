"""The source `brevo`: its words become AudiencePoint's, of its many times the right one is read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, MailEvent, Probe, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.brevo import BREVO
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown


@pytest.mark.parametrize("sample", samples("brevo"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    found = BREVO.parse(delivery("brevo", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"email": "a@example.com"}, {"items": []}, 1, "x", None])
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON in which no event can be found is unreadable as a whole, and has the form all the same."""
    BREVO.check(orjson.dumps(body), "application/json")
    with pytest.raises(Unreadable) as caught:
        BREVO.parse(delivery("brevo", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b" \n", b"event=open", b'{"event":', b"\xff"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """The receiver answers 400, and the worker says the same of it."""
    with pytest.raises(Malformed):
        BREVO.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        BREVO.parse(delivery("brevo", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_an_empty_batch_is_a_probe() -> None:
    """Nothing happened: it is answered and counted, and nobody has to look at it."""
    BREVO.check(b"[]", "application/json")
    with pytest.raises(Probe):
        BREVO.parse(delivery("brevo", []), Rules(), NOW)


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event without its id is buried alone in the stage `forward`, with its numbers as they were sent."""
    wrong = b'{"event":"click","email":"ada@example.com","ts_epoch":1685620800000,"x":123456789012345678901234567890}'
    good = b'{"event":"click","email":"a@example.com","message-id":"m","ts":1685620800}'
    found = BREVO.parse(delivery("brevo", b"[" + good + b"," + wrong + b"]"), Rules(), NOW)
    assert isinstance(found[0], MailEvent)
    assert isinstance(found[1], Invalid)
    assert (found[1].stage, found[1].payload) == (Stage.FORWARD, wrong)


def test_a_time_far_ahead_is_invalid() -> None:
    """A time more than a day ahead is what AudiencePoint could not make sense of."""
    item = {"event": "click", "email": "ada@example.com", "message-id": "m", "ts": 2**33}
    (found,) = BREVO.parse(delivery("brevo", item), Rules(), NOW)
    assert shown(found) == {"invalid": "occurred_at_utc is more than 24 hours ahead"}


@pytest.mark.parametrize("name", ["unique_opened", "proxy_open", "click", "unsubscribed"])
def test_brevos_own_server_is_never_taken_for_the_person(name: str) -> None:
    """`sending_ip` is Brevo's: it does not leave, whatever the event."""
    item = {"event": name, "email": "ada@example.com", "message-id": "m", "ts": 1}
    (found,) = BREVO.parse(delivery("brevo", {**item, "sending_ip": "192.0.2.9"}), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.ip_address is None


def test_brevo_has_no_signature_to_refuse() -> None:
    """Our token alone is its proof: any headers pass, and other senders' secrets do not matter."""
    BREVO.verify({}, b"{}", {}, NOW)
    BREVO.verify({"authorization": "\udcff"}, b"", {"MAILTRAP_SIGNING_SECRET": "x"}, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    [
        "event",
        "email",
        "message-id",
        "ts_epoch",
        "ts_event",
        "s_epoch",
        "ts",
        "camp_id",
        "user_agent",
        "msg_status",
    ]
)
_WORDS = st.sampled_from(
    [
        "opened",
        "proxy_open",
        "click",
        "request",
        "deferred",
        "contact_updated",
        "a@example.com",
        "2023-06-01 14:00:00",
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
        found = BREVO.parse(delivery("brevo", body), rules, NOW)
    except (Unreadable, Probe):
        return
    assert all(shown(outcome) for outcome in found)


def _is_malformed_to_the_worker(body: bytes) -> bool:
    try:
        BREVO.parse(delivery("brevo", body), Rules(), NOW)
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
            BREVO.check(body, "application/json")
    else:
        BREVO.check(body, "application/json")

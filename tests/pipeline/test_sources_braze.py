"""The source `braze`: its event types become AudiencePoint's, an empty batch is a probe."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, Probe, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.braze import BRAZE
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown


@pytest.mark.parametrize("sample", samples("braze"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    BRAZE.check(orjson.dumps(sample["body"]), "application/json")
    found = BRAZE.parse(delivery("braze", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize(
    "body", [{}, {"events": {}}, {"events": None}, [], [{"event_type": "x"}], 1, "x", None]
)
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON that is not what Braze posts is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        BRAZE.parse(delivery("braze", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"a=1"])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    """It is refused at the door, and a dead letter if it got past it."""
    with pytest.raises(Malformed):
        BRAZE.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        BRAZE.parse(delivery("braze", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event that cannot be read is buried in the stage `forward` with its own JSON, long numbers too."""
    wrong = b'{"event_type":"users.messages.email.Send","n":123456789012345678901234567890}'
    (found,) = BRAZE.parse(delivery("braze", b'{"events":[' + wrong + b"]}"), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, wrong)


@given(st.dictionaries(st.text(), st.text()), st.binary(max_size=20))
def test_nothing_is_signed(headers: dict[str, str], body: bytes) -> None:
    """Braze signs nothing: the token alone is judged, and that is done at the door."""
    BRAZE.verify(headers, body, {}, NOW)


@pytest.mark.parametrize("body", [{"events": []}, {"events": [], "more": 1}])
def test_an_empty_batch_is_a_probe(body: object) -> None:
    """Braze tries with it whether its token is taken: it has the form, and nothing is done with it."""
    BRAZE.check(orjson.dumps(body), "application/json")
    with pytest.raises(Probe):
        BRAZE.parse(delivery("braze", body), Rules(), NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(
    [
        "users.messages.email.Send",
        "users.messages.email.Bounce",
        "users.messages.email.Open",
        "users.x",
        "true",
        "a@example.com",
    ]
)
_INNER = st.dictionaries(
    st.sampled_from(
        [
            "email_address",
            "dispatch_id",
            "send_id",
            "campaign_id",
            "user_agent",
            "machine_open",
            "is_drop",
        ]
    ),
    _JSON | _WORDS,
)
_OBJECTS = st.dictionaries(
    st.sampled_from(["event_type", "time", "id", "properties"]), _JSON | _WORDS | _INNER
)


@given(
    st.one_of(_JSON, _OBJECTS, st.fixed_dictionaries({"events": st.lists(_OBJECTS, max_size=3)})),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything but what its contract names."""
    try:
        found = BRAZE.parse(delivery("braze", body), rules, NOW)
    except (Probe, Unreadable):
        return
    assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes at all make the door or the parser raise anything but what their contract names."""
    with contextlib.suppress(Malformed):
        BRAZE.check(body, "")
    with contextlib.suppress(Probe, Unreadable):
        BRAZE.parse(delivery("braze", body), Rules(), NOW)

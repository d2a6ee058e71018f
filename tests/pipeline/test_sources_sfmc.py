"""The source `sfmc`: its events become AudiencePoint's, only true signatures and the set-up are let in."""

from __future__ import annotations

import contextlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, Probe, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.sfmc import SFMC
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_KEY = "V27FXfqI3DnhfQW1bhFDeJixpt8eDAY5R24UJI3cK6M="
_BODY = b'[{"eventCategoryType":"EngagementEvents.EmailOpen"}]'
_SIGNATURE = "x-sfmc-ens-signature"
_GOOD = b64encode(hmac.digest(_KEY.encode(), _BODY, "sha256")).decode()
_HEADERS = {_SIGNATURE: _GOOD}
_SET_UP = {"callbackId": "65b885ab", "verificationKey": "once"}


def _verify(
    headers: Mapping[str, str], body: bytes = _BODY, secret: str = _KEY, now: float = NOW
) -> None:
    SFMC.verify(headers, body, {"SFMC_SIGNING_KEY": secret}, now)


@pytest.mark.parametrize("sample", samples("sfmc"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    SFMC.check(orjson.dumps(sample["body"]), "application/json")
    found = SFMC.parse(delivery("sfmc", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize(
    "body", [{}, {"events": []}, {"callbackId": "c"}, {"verificationKey": "k"}, 1, "x", None]
)
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON that is not what Marketing Cloud posts is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        SFMC.parse(delivery("sfmc", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"a=1"])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    """It is refused at the door, and a dead letter if it got past it."""
    with pytest.raises(Malformed):
        SFMC.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        SFMC.parse(delivery("sfmc", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event that cannot be read is buried in the stage `forward` with its own JSON, long numbers too."""
    wrong = b'{"eventCategoryType":"TransactionalSendEvents.EmailSent","n":123456789012345678901234567890}'
    (found,) = SFMC.parse(delivery("sfmc", b"[" + wrong + b"]"), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, wrong)


def test_a_true_signature_is_accepted() -> None:
    """The key is used as text, though it looks like base64; the signature is base64."""
    _verify(_HEADERS)
    decoded = b64encode(hmac.digest(b64decode(_KEY), _BODY, "sha256")).decode()
    with pytest.raises(Unauthentic):
        _verify({_SIGNATURE: decoded})


@pytest.mark.parametrize("headers", [{}, {_SIGNATURE: "of a key that is not known yet"}])
@pytest.mark.parametrize("more", [{}, {"callbackName": "relay"}])
def test_the_set_up_is_let_in_and_is_a_probe(headers: dict[str, str], more: dict[str, str]) -> None:
    """The POST that brings the verification key passes unsigned though a key is set, and is no event."""
    body = orjson.dumps({**_SET_UP, **more})
    _verify(headers, body)
    with pytest.raises(Probe):
        SFMC.parse(delivery("sfmc", body), Rules(), NOW)


@pytest.mark.parametrize(
    "body",
    [
        {**_SET_UP, "eventCategoryType": "EngagementEvents.EmailUnsubscribe"},
        [_SET_UP],
        [{"eventCategoryType": "TransactionalSendEvents.EmailSent", **_SET_UP}],
        {"verificationKey": "once"},
        "verificationKey",
        None,
    ],
)
def test_no_event_comes_in_as_a_set_up(body: object) -> None:
    """What could hold an event needs a signature, whatever else stands in it."""
    with pytest.raises(Unauthentic):
        _verify({}, orjson.dumps(body))


def test_a_set_up_that_is_no_json_needs_a_signature() -> None:
    """Bytes that only look like the set-up are not let in by it."""
    with pytest.raises(Unauthentic):
        _verify({}, b'{"callbackId":"c","verificationKey":')


def test_an_empty_batch_is_a_probe() -> None:
    """It holds nothing to be done."""
    with pytest.raises(Probe):
        SFMC.parse(delivery("sfmc", []), Rules(), NOW)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({}, _BODY, id="missing"),
        pytest.param({_SIGNATURE: ""}, _BODY, id="empty"),
        pytest.param({_SIGNATURE: "%%%"}, _BODY, id="not base64"),
        pytest.param({_SIGNATURE: "é"}, _BODY, id="not ASCII"),
        pytest.param({_SIGNATURE: "\udcff"}, _BODY, id="no text"),
        pytest.param({_SIGNATURE: _GOOD[:-4]}, _BODY, id="cut"),
        pytest.param({_SIGNATURE: "A" * 9000}, _BODY, id="endless"),
        pytest.param(_HEADERS, _BODY + b" ", id="body longer"),
        pytest.param(_HEADERS, _BODY.replace(b"O", b"o"), id="body flipped"),
        pytest.param(_HEADERS, b"", id="body empty"),
    ],
)
def test_a_false_signature_is_refused(headers: dict[str, str], body: bytes) -> None:
    """Missing, malformed, flipped: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        _verify(headers, body)


def test_while_the_key_is_changed_either_is_believed() -> None:
    """Several keys may be set; a call that none of them signed is refused."""
    _verify(_HEADERS, secret=f"another, {_KEY}")
    _verify(_HEADERS, secret=f"{_KEY},another")
    for secret in ("another", "another,third", ","):
        with pytest.raises(Unauthentic):
            _verify(_HEADERS, secret=secret)


@pytest.mark.parametrize("age_s", [-86_400, 0, 3_600, 7 * 86_400])
def test_age_alone_does_not_make_a_signature_false(age_s: int) -> None:
    """A late or repeated call that is truly signed passes; its events are known by seen marks."""
    _verify(_HEADERS, now=NOW + age_s)


def test_without_a_key_everything_is_accepted() -> None:
    """A sender whose secret is not set is believed by its token alone."""
    SFMC.verify({}, _BODY, {}, NOW)
    SFMC.verify({}, _BODY, {"SFMC_SIGNING_KEY": ""}, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(
    [
        "TransactionalSendEvents.EmailSent",
        "TransactionalSendEvents.EmailBounced",
        "EngagementEvents.EmailOpen",
        "HARD",
        "a@example.com",
    ]
)
_INNER = st.dictionaries(
    st.sampled_from(["to", "bounceCode", "smtpReason", "ipAddress", "userAgent", "jobId"]),
    _JSON | _WORDS,
)
_OBJECTS = st.dictionaries(
    st.sampled_from(
        ["eventCategoryType", "timestampUTC", "composite", "info", "callbackId", "verificationKey"]
    ),
    _JSON | _WORDS | _INNER,
)


@given(
    st.one_of(_JSON, _OBJECTS, st.lists(_OBJECTS, max_size=3)),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything but what its contract names."""
    try:
        found = SFMC.parse(delivery("sfmc", body), rules, NOW)
    except (Probe, Unreadable):
        return
    assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes at all make the door or the parser raise anything but what their contract names."""
    with contextlib.suppress(Malformed):
        SFMC.check(body, "")
    with contextlib.suppress(Probe, Unreadable):
        SFMC.parse(delivery("sfmc", body), Rules(), NOW)

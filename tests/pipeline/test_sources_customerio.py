"""The source `customerio`: its metrics of e-mails become AudiencePoint's, only true signatures are believed."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.customerio import CUSTOMERIO
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_KEY = "key-of-nobody"
_BODY = b'{"object_type":"email","metric":"opened"}'
_STAMP = str(int(NOW))
_SIGNATURE = "x-cio-signature"
_TIMESTAMP = "x-cio-timestamp"
_GOOD = hmac.digest(_KEY.encode(), f"v0:{_STAMP}:".encode() + _BODY, "sha256").hex()
_HEADERS = {_SIGNATURE: _GOOD, _TIMESTAMP: _STAMP}


def _verify(
    headers: Mapping[str, str], body: bytes = _BODY, secret: str = _KEY, now: float = NOW
) -> None:
    CUSTOMERIO.verify(headers, body, {"CUSTOMERIO_SIGNING_KEY": secret}, now)


@pytest.mark.parametrize("sample", samples("customerio"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    CUSTOMERIO.check(orjson.dumps(sample["body"]), "application/json")
    found = CUSTOMERIO.parse(delivery("customerio", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"event_id": "x"}, [], [{"metric": "sent"}], 1, "x", None])
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON that is not what Customer.io posts is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        CUSTOMERIO.parse(delivery("customerio", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"a=1"])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    """It is refused at the door, and a dead letter if it got past it."""
    with pytest.raises(Malformed):
        CUSTOMERIO.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        CUSTOMERIO.parse(delivery("customerio", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event that cannot be read is buried in the stage `forward` with its own JSON, long numbers too."""
    wrong = b'{"object_type":"email","metric":"sent","n":123456789012345678901234567890}'
    (found,) = CUSTOMERIO.parse(delivery("customerio", wrong), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, wrong)


def test_a_true_signature_is_accepted() -> None:
    """The signature covers the timestamp and the raw body; hexadecimal in either case."""
    _verify(_HEADERS)
    _verify({**_HEADERS, _SIGNATURE: _GOOD.upper()})


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({}, _BODY, id="both headers missing"),
        pytest.param({_TIMESTAMP: _STAMP}, _BODY, id="signature missing"),
        pytest.param({_SIGNATURE: _GOOD}, _BODY, id="timestamp missing"),
        pytest.param({**_HEADERS, _SIGNATURE: ""}, _BODY, id="signature empty"),
        pytest.param({**_HEADERS, _SIGNATURE: "zz"}, _BODY, id="not hexadecimal"),
        pytest.param({**_HEADERS, _SIGNATURE: "é"}, _BODY, id="not ASCII"),
        pytest.param({**_HEADERS, _SIGNATURE: "\udcff"}, _BODY, id="signature no text"),
        pytest.param({**_HEADERS, _SIGNATURE: _GOOD[:-2]}, _BODY, id="cut"),
        pytest.param({**_HEADERS, _SIGNATURE: "a" * 9000}, _BODY, id="endless"),
        pytest.param({**_HEADERS, _TIMESTAMP: _STAMP + "0"}, _BODY, id="another timestamp"),
        pytest.param({**_HEADERS, _TIMESTAMP: "\udcff"}, _BODY, id="timestamp no text"),
        pytest.param(_HEADERS, _BODY.replace(b"o", b"0"), id="body flipped"),
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
    CUSTOMERIO.verify({}, _BODY, {}, NOW)
    CUSTOMERIO.verify({}, _BODY, {"CUSTOMERIO_SIGNING_KEY": ""}, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(
    ["email", "opened", "sent", "deferred", "bounced", "a@example.com", "<", ">"]
)
_INNER = st.dictionaries(
    st.sampled_from(["recipient", "delivery_id", "campaign_id", "identifiers"]), _JSON | _WORDS
)
_OBJECTS = st.dictionaries(
    st.sampled_from(["object_type", "metric", "timestamp", "event_id", "data"]),
    _JSON | _WORDS | _INNER,
)


@given(
    st.one_of(_JSON, _OBJECTS, _INNER),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything but what its contract names."""
    try:
        found = CUSTOMERIO.parse(delivery("customerio", body), rules, NOW)
    except Unreadable:
        return
    assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes at all make the door or the parser raise anything but what their contract names."""
    with contextlib.suppress(Malformed):
        CUSTOMERIO.check(body, "")
    with contextlib.suppress(Unreadable):
        CUSTOMERIO.parse(delivery("customerio", body), Rules(), NOW)

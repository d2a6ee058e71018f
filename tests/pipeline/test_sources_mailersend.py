"""The source `mailersend`: both versions of its events become AudiencePoint's, signed bodies only."""

from __future__ import annotations

import hmac
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.mailersend import MAILERSEND
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_KEY = "key-of-nobody"
_BODY = b'{"type":"activity.sent"}\n'
_GOOD = hmac.digest(_KEY.encode(), _BODY, "sha256").hex()


def _verify(signature: str | None, body: bytes = _BODY, secret: str = _KEY) -> None:
    headers = {} if signature is None else {"signature": signature}
    MAILERSEND.verify(headers, body, {"MAILERSEND_SIGNING_SECRET": secret}, NOW)


@pytest.mark.parametrize("sample", samples("mailersend"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body, of version 1 or 2, gives exactly the outcome beside it."""
    rules = Rules(**sample.get("rules", {}))
    found = MAILERSEND.parse(delivery("mailersend", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"data": {}}, [], [{"type": "activity.sent"}], 1, "x", None])
def test_a_body_that_is_no_event_is_of_unknown_shape(body: object) -> None:
    """JSON that is not one object with a type is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        MAILERSEND.parse(delivery("mailersend", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"type=activity.sent"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """The receiver answers 400, and `unpack` finds the same reason."""
    with pytest.raises(Malformed):
        MAILERSEND.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        MAILERSEND.parse(delivery("mailersend", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event without what it needs is buried in the stage `forward`, numbers as they were sent."""
    body = b'{"type":"activity.opened","data":{"big":12345678901234567890123}}'
    (found,) = MAILERSEND.parse(delivery("mailersend", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, body)


def test_the_servers_ip_is_never_taken_for_the_persons() -> None:
    """An address in a bounce is not of the person who was written to."""
    data = {"recipient": "ada@example.com", "message_id": "m", "meta": {"ip": "192.0.2.1"}}
    body = {"type": "activity.hard_bounced", "created_at": "2023-06-01T12:00:00Z", "data": data}
    (found,) = MAILERSEND.parse(delivery("mailersend", orjson.dumps(body)), Rules(), NOW)
    assert "ip_address" not in shown(found)


def test_without_a_secret_everything_is_accepted() -> None:
    """A sender whose secret is not set is believed by its token alone."""
    MAILERSEND.verify({}, _BODY, {}, NOW)
    _verify(None, secret="")


@pytest.mark.parametrize("secret", [_KEY, f" {_KEY} ", f"the-key-before,{_KEY}"])
@pytest.mark.parametrize("signature", [_GOOD, _GOOD.upper(), f" {_GOOD}"])
def test_a_true_signature_is_accepted(signature: str, secret: str) -> None:
    """The HMAC of the raw body passes, with the new key or the old one while they are changed."""
    _verify(signature, secret=secret)


def test_a_late_call_is_accepted() -> None:
    """MailerSend signs no time, so there is no age that could be judged."""
    secrets = {"MAILERSEND_SIGNING_SECRET": _KEY}
    MAILERSEND.verify({"signature": _GOOD}, _BODY, secrets, NOW + 86_400)


@pytest.mark.parametrize(
    ("signature", "body", "secret"),
    [
        pytest.param(None, _BODY, _KEY, id="missing"),
        pytest.param("", _BODY, _KEY, id="empty"),
        pytest.param("zz" + _GOOD[2:], _BODY, _KEY, id="not hexadecimal"),
        pytest.param(_GOOD[:-2], _BODY, _KEY, id="cut"),
        pytest.param(_GOOD + "00", _BODY, _KEY, id="longer"),
        pytest.param("sha256=" + _GOOD, _BODY, _KEY, id="prefixed"),
        pytest.param(_GOOD[:-1] + "é", _BODY, _KEY, id="not ASCII"),
        pytest.param("\udcff", _BODY, _KEY, id="no text"),
        pytest.param("a" * 9000, _BODY, _KEY, id="endless"),
        pytest.param(_GOOD, _BODY.replace(b"s", b"S"), _KEY, id="body flipped"),
        pytest.param(_GOOD, _BODY[:-1], _KEY, id="line feed lost"),
        pytest.param(_GOOD, b"", _KEY, id="body empty"),
        pytest.param(_GOOD, _BODY, "another-key", id="another key"),
        pytest.param(_GOOD, _BODY, ",", id="no key"),
    ],
)
def test_a_false_signature_is_refused(signature: str | None, body: bytes, secret: str) -> None:
    """Missing, malformed, flipped: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        _verify(signature, body, secret)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(["a@example.com", "m-1", "2023-06-01T12:00:00Z", "192.0.2.1"])
_NAMES = st.sampled_from(
    ["id", "recipient", "email", "message", "message_id", "created_at", "morph", "meta", "ip"]
)
_PARTS = st.dictionaries(_NAMES, _JSON | _WORDS | st.dictionaries(_NAMES, _JSON | _WORDS))
_TYPES = ["sent", "delivered", "deferred", "opened", "clicked_unique", "soft_bounced", "painted"]
_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from([f"activity.{name}" for name in _TYPES]) | _JSON},
    optional={"created_at": _WORDS | _JSON, "data": _PARTS | _JSON},
)


@given(_JSON | _EVENTS, st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]))
def test_any_json_gives_one_outcome_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything else."""
    try:
        (found,) = MAILERSEND.parse(delivery("mailersend", body), rules, NOW)
    except Unreadable:
        return
    assert shown(found)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes at all make `check`, `verify` or `parse` raise anything but their own."""
    with pytest.raises(Unauthentic):
        _verify(_GOOD, body)
    try:
        MAILERSEND.check(body, "")
        MAILERSEND.parse(delivery("mailersend", body), Rules(), NOW)
    except (Malformed, Unreadable):
        pass

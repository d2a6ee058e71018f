"""The source `resend`: its words become AudiencePoint's, several recipients, Svix's signature."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliveries import Delivery
from pipeline.mail_events import fingerprint
from pipeline.outcomes import Invalid, MailEvent, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.resend import RESEND
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_KEY, _OLD_KEY = b"key-of-nobody", b"the-key-before"
_BODY = b'{"type":"email.opened"}\r\n'
_STAMP = str(int(NOW))


def _secret(key: bytes) -> str:
    return "whsec_" + b64encode(key).decode()


def _sign(stamp: str = _STAMP, key: bytes = _KEY) -> str:
    digest = hmac.digest(key, f"msg_1.{stamp}.".encode() + _BODY, "sha256")
    return f"v1,{b64encode(digest).decode()}"


_HEADERS = {"svix-id": "msg_1", "svix-timestamp": _STAMP, "svix-signature": _sign()}


def _sent(*to: object, **more: object) -> dict[str, Any]:
    data = {"email_id": "m-1", "to": list(to)}
    return {"type": "email.sent", "created_at": "2023-06-01T12:00:00Z", "data": data, **more}


def _called(body: object, svix_id: str) -> Delivery:
    found = delivery("resend", body)
    found.headers = {"svix-id": svix_id}
    return found


@pytest.mark.parametrize("sample", samples("resend"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the recipients."""
    rules = Rules(**sample.get("rules", {}))
    found = RESEND.parse(delivery("resend", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"data": {}}, [], [_sent("a@example.com")], 1, "x", None])
def test_a_body_that_is_no_event_is_of_unknown_shape(body: object) -> None:
    """JSON that is not one object with a type is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        RESEND.parse(delivery("resend", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"type=email.sent"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """The receiver answers 400, and `unpack` finds the same reason."""
    with pytest.raises(Malformed):
        RESEND.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        RESEND.parse(delivery("resend", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_an_event_is_recognised_by_the_id_of_its_call() -> None:
    """Two opens in the same second are two events when Resend gave them two ids."""
    body = {**_sent("ada@example.com"), "type": "email.opened"}
    found = [RESEND.parse(_called(body, name), Rules(), NOW)[0] for name in ("a", "b", "b")]
    prints = [fingerprint("resend", event) for event in found if isinstance(event, MailEvent)]
    assert prints[0] != prints[1]
    assert prints[1] == prints[2]


def test_a_send_to_several_is_one_send_each_however_often_it_is_told() -> None:
    """A call for each recipient, all of them naming both, still gives two Sends."""
    body = _sent("ada@example.com", "bob@example.com")
    found = [*RESEND.parse(_called(body, "a"), Rules(), NOW)]
    found += RESEND.parse(_called(body, "b"), Rules(), NOW)
    prints = {fingerprint("resend", event) for event in found if isinstance(event, MailEvent)}
    assert len(found) == 4
    assert len(prints) == 2


def test_only_the_wrong_recipient_is_buried_and_its_numbers_stay() -> None:
    """What is buried names nobody else, keeps long numbers, and is read again as what it is."""
    body = b'{"type":"email.sent","created_at":"2023-06-01T12:00:00Z","n":12345678901234567890123,'
    body += b'"data":{"email_id":"m-1","to":["ada@example.com","nobody"]}}'
    good, wrong = RESEND.parse(delivery("resend", body), Rules(), NOW)
    assert isinstance(good, MailEvent)
    assert isinstance(wrong, Invalid)
    assert wrong.stage is Stage.FORWARD
    assert b"12345678901234567890123" in wrong.payload
    assert orjson.loads(wrong.payload)["data"]["to"] == ["nobody"]
    (again,) = RESEND.parse(delivery("resend", wrong.payload), Rules(), NOW)
    assert shown(again) == shown(wrong)


def test_without_a_secret_everything_is_accepted() -> None:
    """A sender whose secret is not set is believed by its token alone."""
    RESEND.verify({}, _BODY, {}, NOW)
    RESEND.verify({}, _BODY, {"RESEND_SIGNING_SECRET": ""}, NOW)


@pytest.mark.parametrize(
    ("headers", "secret", "age_s"),
    [
        pytest.param(_HEADERS, _secret(_KEY), 0, id="good"),
        pytest.param(_HEADERS, _secret(_KEY), 300, id="five minutes late"),
        pytest.param(_HEADERS, _secret(_KEY), -300, id="five minutes early"),
        pytest.param(_HEADERS, f"{_secret(_OLD_KEY)}, {_secret(_KEY)}", 0, id="we rotate"),
        pytest.param(
            _HEADERS | {"svix-signature": f"{_sign(key=_OLD_KEY)} {_sign()}"},
            _secret(_KEY),
            0,
            id="Resend rotates",
        ),
    ],
)
def test_a_true_signature_is_accepted(headers: dict[str, str], secret: str, age_s: int) -> None:
    """A call signed with one of our keys, at most five minutes ago, passes."""
    RESEND.verify(headers, _BODY, {"RESEND_SIGNING_SECRET": secret}, NOW + age_s)


@pytest.mark.parametrize(
    ("changes", "body", "age_s"),
    [
        pytest.param({"svix-id": ""}, _BODY, 0, id="id missing"),
        pytest.param({"svix-timestamp": ""}, _BODY, 0, id="timestamp missing"),
        pytest.param({"svix-signature": ""}, _BODY, 0, id="signature missing"),
        pytest.param({"svix-id": "msg_2"}, _BODY, 0, id="another id"),
        pytest.param({"svix-timestamp": "soon"}, _BODY, 0, id="timestamp malformed"),
        pytest.param({"svix-timestamp": str(int(NOW) + 1)}, _BODY, 0, id="another timestamp"),
        pytest.param({"svix-signature": "v1,%%%"}, _BODY, 0, id="not base64"),
        pytest.param({"svix-signature": "v1,é\udcff"}, _BODY, 0, id="not ASCII"),
        pytest.param({"svix-signature": _sign()[3:]}, _BODY, 0, id="no version"),
        pytest.param({"svix-signature": "v2" + _sign()[2:]}, _BODY, 0, id="another version"),
        pytest.param({"svix-signature": _sign(key=_OLD_KEY)}, _BODY, 0, id="another key"),
        pytest.param({}, _BODY.replace(b"o", b"O"), 0, id="body flipped"),
        pytest.param({}, _BODY[:-2], 0, id="trailing CRLF lost"),
        pytest.param({}, _BODY, 301, id="late"),
        pytest.param({}, _BODY, -301, id="from the future"),
    ],
)
def test_a_false_signature_is_refused(changes: dict[str, str], body: bytes, age_s: int) -> None:
    """Missing, malformed, flipped, late: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        RESEND.verify(
            _HEADERS | changes, body, {"RESEND_SIGNING_SECRET": _secret(_KEY)}, NOW + age_s
        )


@pytest.mark.parametrize("secret", ["whsec_%%%", "é", ",", " "])
def test_with_a_wrong_secret_nothing_is_believed(secret: str) -> None:
    """A setting that holds no key refuses instead of failing."""
    with pytest.raises(Unauthentic):
        RESEND.verify(_HEADERS, _BODY, {"RESEND_SIGNING_SECRET": secret}, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(
    ["Permanent", "Suppressed", "A <a@example.com>", "192.0.2.1", "hard bounce"]
)
_BOUNCES = st.dictionaries(st.sampled_from(["type", "subType", "message"]), _JSON | _WORDS)
_DATA = st.fixed_dictionaries(
    {},
    optional={
        "to": st.lists(_WORDS | _JSON, max_size=4) | _JSON,
        "email_id": _JSON | st.just("m-1"),
        "bounce": _BOUNCES | _JSON,
        "click": _JSON,
        "broadcast_id": _JSON,
    },
)
_TYPES = ["sent", "delivered", "opened", "clicked", "bounced", "delivery_delayed", "complained"]
_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from([f"email.{name}" for name in _TYPES]) | _JSON},
    optional={"created_at": st.just("2023-06-01T12:00:00Z") | _JSON, "data": _DATA | _JSON},
)


@given(_JSON | _EVENTS, st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]))
def test_any_json_gives_outcomes_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything else."""
    try:
        found = RESEND.parse(delivery("resend", body), rules, NOW)
    except Unreadable:
        return
    assert found
    assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes at all make `check`, `verify` or `parse` raise anything but their own."""
    with pytest.raises(Unauthentic):
        RESEND.verify(_HEADERS, body, {"RESEND_SIGNING_SECRET": _secret(_KEY)}, NOW)
    try:
        RESEND.check(body, "")
        RESEND.parse(delivery("resend", body), Rules(), NOW)
    except (Malformed, Unreadable):
        pass

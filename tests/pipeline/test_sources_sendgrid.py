"""The source `sendgrid`: its words become AudiencePoint's, only true signatures are believed."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, MailEvent, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.sendgrid import SENDGRID
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_KEY = ec.generate_private_key(ec.SECP256R1())
_BODY = b'[{"event":"processed"}]\r\n'
_STAMP = str(int(NOW))
_SIGNATURE = "x-twilio-email-event-webhook-signature"
_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"


def _der(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(der).decode()


_PEM = _KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
_GOOD = b64encode(_KEY.sign(_STAMP.encode() + _BODY, ec.ECDSA(SHA256()))).decode()
_HEADERS = {_SIGNATURE: _GOOD, _TIMESTAMP: _STAMP}


def _verify(
    headers: Mapping[str, str], body: bytes = _BODY, key: str | None = None, now: float = NOW
) -> None:
    SENDGRID.verify(headers, body, {"SENDGRID_PUBLIC_KEY": key or _der(_KEY)}, now)


@pytest.mark.parametrize("sample", samples("sendgrid"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    found = SENDGRID.parse(delivery("sendgrid", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"email": "a@example.com"}, {"events": []}, 1, "x", None])
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON that is neither an array nor one event is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        SENDGRID.parse(delivery("sendgrid", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


def test_an_empty_body_is_malformed() -> None:
    """Nothing is not JSON: the receiver answers 400."""
    with pytest.raises(Malformed):
        SENDGRID.check(b"", "application/json")
    with pytest.raises(Unreadable) as caught:
        SENDGRID.parse(delivery("sendgrid", b""), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_event_is_kept_as_it_came() -> None:
    """An event without its ids is buried alone in the stage `forward`, with its own JSON."""
    wrong = {"event": "click", "email": "ada@example.com", "timestamp": 1_685_620_800}
    (found,) = SENDGRID.parse(delivery("sendgrid", [wrong]), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, orjson.dumps(wrong))


def test_a_time_far_ahead_is_invalid() -> None:
    """A time more than a day ahead is what AudiencePoint could not make sense of."""
    item = {"event": "click", "email": "ada@example.com", "sg_message_id": "m", "timestamp": 2**33}
    (found,) = SENDGRID.parse(delivery("sendgrid", [item]), Rules(), NOW)
    assert shown(found) == {"invalid": "occurred_at_utc is more than 24 hours ahead"}


def test_the_servers_ip_is_never_taken_for_the_persons() -> None:
    """`ip` on events that SendGrid's own server caused does not leave."""
    item = {"email": "ada@example.com", "sg_message_id": "m", "timestamp": 1, "ip": "192.0.2.1"}
    body = [{**item, "event": name, "useragent": "x"} for name in ("delivered", "bounce")]
    found = SENDGRID.parse(delivery("sendgrid", body), Rules(send_from="delivered"), NOW)
    assert [(e.ip_address, e.user_agent) for e in found if isinstance(e, MailEvent)] == [
        (None, None),
        (None, None),
    ]


def test_without_a_key_everything_is_accepted() -> None:
    """A sender whose secret is not set is believed by its token alone."""
    SENDGRID.verify({}, _BODY, {}, NOW)
    SENDGRID.verify({}, _BODY, {"SENDGRID_PUBLIC_KEY": ""}, NOW)


@pytest.mark.parametrize(
    "key",
    [_der(_KEY), f" {_der(_KEY)}\n", _PEM, _PEM.replace("\n", "\\n")],
    ids=["der", "padded der", "pem", "pem with escaped breaks"],
)
def test_a_true_signature_is_accepted(key: str) -> None:
    """A signature over timestamp and raw body passes, in whatever form the key was pasted."""
    _verify(_HEADERS, key=key)


@pytest.mark.parametrize("age_s", [0, 3_600, 86_400, 6 * 365 * 86_400, -86_400])
def test_age_alone_does_not_make_a_signature_false(age_s: int) -> None:
    """A late or replayed call that is truly signed passes; its events are known by seen marks."""
    _verify(_HEADERS, now=NOW + age_s)
    _verify(_HEADERS, now=NOW + age_s)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({}, _BODY, id="both headers missing"),
        pytest.param({_TIMESTAMP: _STAMP}, _BODY, id="signature missing"),
        pytest.param({_SIGNATURE: _GOOD}, _BODY, id="timestamp missing"),
        pytest.param({**_HEADERS, _SIGNATURE: ""}, _BODY, id="signature empty"),
        pytest.param({**_HEADERS, _SIGNATURE: "%%%"}, _BODY, id="not base64"),
        pytest.param({**_HEADERS, _SIGNATURE: "é"}, _BODY, id="not ASCII"),
        pytest.param({**_HEADERS, _SIGNATURE: "AAAA"}, _BODY, id="not DER"),
        pytest.param({**_HEADERS, _SIGNATURE: _GOOD[:-4]}, _BODY, id="cut"),
        pytest.param({**_HEADERS, _SIGNATURE: "A" * 9000}, _BODY, id="endless"),
        pytest.param({**_HEADERS, _TIMESTAMP: _STAMP + "0"}, _BODY, id="another timestamp"),
        pytest.param({**_HEADERS, _TIMESTAMP: "\udcff"}, _BODY, id="timestamp no text"),
        pytest.param(_HEADERS, _BODY[:-2], id="trailing CRLF lost"),
        pytest.param(_HEADERS, _BODY.replace(b"p", b"P"), id="body flipped"),
        pytest.param(_HEADERS, b"", id="body empty"),
    ],
)
def test_a_false_signature_is_refused(headers: dict[str, str], body: bytes) -> None:
    """Missing, malformed, flipped: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        _verify(headers, body)


@pytest.mark.parametrize(
    "key",
    [
        "not a key",
        "AAAA",
        "é",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "\udcff",
        _der(ec.generate_private_key(ec.SECP384R1())),
        _der(rsa.generate_private_key(65537, 2048)),
        _der(ec.generate_private_key(ec.SECP256R1())),
    ],
    ids=["words", "not DER", "not ASCII", "broken PEM", "no text", "P-384", "RSA", "another key"],
)
def test_with_a_wrong_key_nothing_is_believed(key: str) -> None:
    """A key that is no P-256 key, or another's, refuses instead of failing."""
    with pytest.raises(Unauthentic):
        _verify(_HEADERS, key=key)


@given(st.text(max_size=120), st.text(max_size=20))
def test_any_headers_are_refused_and_never_crash(signature: str, timestamp: str) -> None:
    """Whatever the two headers say, only a true signature passes and nothing else is raised."""
    with pytest.raises(Unauthentic):
        _verify({_SIGNATURE: signature, _TIMESTAMP: timestamp})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    [
        "event",
        "email",
        "timestamp",
        "sg_message_id",
        "smtp-id",
        "sg_event_id",
        "ip",
        "useragent",
        "type",
        "status",
        "sg_machine_open",
        "newsletter",
        "singlesend_id",
    ]
)
_WORDS = st.sampled_from(
    ["open", "click", "bounce", "processed", "deferred", "blocked", "a@example.com", "192.0.2.1"]
)
_OBJECTS = st.dictionaries(_NAMES, _JSON | _WORDS)


@given(
    st.one_of(_JSON, _OBJECTS, st.lists(_OBJECTS, max_size=3)),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything else."""
    try:
        found = SENDGRID.parse(delivery("sendgrid", body), rules, NOW)
    except Unreadable:
        return
    assert all(shown(outcome) for outcome in found)

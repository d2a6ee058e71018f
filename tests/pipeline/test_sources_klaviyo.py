"""The source `klaviyo`: batches of events, addresses in included profiles, body and time signed."""

from __future__ import annotations

import hmac
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Invalid, MailEvent, Probe, Reason, Stage, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.klaviyo import KLAVIYO
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_KEY = "key-of-nobody-else"
_BODY = b'{"meta":{"klaviyo_webhook_id":"wh-1"},"data":[]}'
_STAMP = "Tue, 14 Nov 2023 22:13:20 GMT"


def _sign(body: bytes = _BODY, stamp: str = _STAMP, key: str = _KEY) -> str:
    return hmac.digest(key.encode(), body + stamp.encode(), "sha256").hex()


_HEADERS = {
    "klaviyo-signature": _sign(),
    "klaviyo-timestamp": _STAMP,
    "klaviyo-webhook-id": "wh-1",
}


def _verify(
    headers: dict[str, str], body: bytes = _BODY, secret: str = _KEY, now: float = NOW
) -> None:
    KLAVIYO.verify(headers, body, {"KLAVIYO_SIGNING_KEY": secret}, now)


@pytest.mark.parametrize("sample", samples("klaviyo"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    rules = Rules(**sample.get("rules", {}))
    found = KLAVIYO.parse(delivery("klaviyo", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"data": {}}, {"data": None}, {"meta": {}}, [], 1, "x", None])
def test_a_body_without_events_is_of_unknown_shape(body: object) -> None:
    """JSON that holds no array of events is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        KLAVIYO.parse(delivery("klaviyo", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


def test_an_empty_batch_is_a_probe() -> None:
    """A call that tells of nothing is answered and counted, and is nothing else."""
    with pytest.raises(Probe):
        KLAVIYO.parse(delivery("klaviyo", _BODY), Rules(), NOW)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"data=1"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """The receiver answers 400, and `unpack` finds the same reason."""
    with pytest.raises(Malformed):
        KLAVIYO.check(body, "application/json")
    with pytest.raises(Unreadable) as caught:
        KLAVIYO.parse(delivery("klaviyo", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_event_is_kept_as_it_came_and_can_be_read_again() -> None:
    """A wrong event is buried alone, with its numbers as they were sent, and comes back alone."""
    wrong = b'{"topic":"event:klaviyo.opened_email","payload":{"n":12345678901234567890123}}'
    (found,) = KLAVIYO.parse(delivery("klaviyo", b'{"data":[' + wrong + b"]}"), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.FORWARD, wrong)
    (again,) = KLAVIYO.parse(delivery("klaviyo", found.payload), Rules(), NOW)
    assert shown(again) == shown(found)


def test_a_thousand_events_are_read_from_one_call() -> None:
    """One call holds up to a thousand events; none of them is lost or moved."""
    profile = {"type": "profile", "attributes": {"email": "ada@example.com"}}
    attributes = {"timestamp": 1_685_620_800, "event_properties": {"$message": "m-1"}}
    payload = {"data": {"attributes": attributes}, "included": [profile]}
    items = [
        {"external_id": str(number), "topic": "event:klaviyo.opened_email", "payload": payload}
        for number in range(1000)
    ]
    found = KLAVIYO.parse(delivery("klaviyo", {"data": items}), Rules(), NOW)
    ids = [event.provider_id for event in found if isinstance(event, MailEvent)]
    assert ids == [str(number) for number in range(1000)]


def test_without_a_secret_everything_is_accepted() -> None:
    """A sender whose secret is not set is believed by its token alone."""
    KLAVIYO.verify({}, _BODY, {}, NOW)
    _verify({}, secret="")


@pytest.mark.parametrize("secret", [_KEY, f" {_KEY} ", f"the-key-before,{_KEY}"])
def test_a_true_signature_is_accepted(secret: str) -> None:
    """Body and timestamp signed with one of our keys pass, whoever spells the digits how."""
    _verify(_HEADERS, secret=secret)
    _verify(_HEADERS | {"klaviyo-signature": _sign().upper()}, secret=secret)


@pytest.mark.parametrize("age_s", [3_600, 5 * 86_400, -86_400])
def test_age_alone_does_not_make_a_signature_false(age_s: int) -> None:
    """A late or replayed call that is truly signed passes; its events are known by seen marks."""
    _verify(_HEADERS, now=NOW + age_s)


def test_the_timestamp_is_signed_as_it_is_written() -> None:
    """A time is no number here: whatever form the header has is what was signed."""
    for stamp in ("2023-11-14T22:13:20+00:00", "1700000000"):
        signature = _sign(stamp=stamp)
        _verify(_HEADERS | {"klaviyo-timestamp": stamp, "klaviyo-signature": signature})


def test_the_webhook_must_be_the_one_in_the_body() -> None:
    """The header that is not signed has to say what the signed body says; either may be missing."""
    with pytest.raises(Unauthentic):
        _verify(_HEADERS | {"klaviyo-webhook-id": "wh-2"})
    _verify(_HEADERS | {"klaviyo-webhook-id": ""})
    for body in (b'{"data":[]}', b"not json"):
        _verify(_HEADERS | {"klaviyo-signature": _sign(body)}, body)


@pytest.mark.parametrize(
    ("changes", "body", "secret"),
    [
        pytest.param({"klaviyo-signature": ""}, _BODY, _KEY, id="signature missing"),
        pytest.param({"klaviyo-timestamp": ""}, _BODY, _KEY, id="timestamp missing"),
        pytest.param({"klaviyo-timestamp": _STAMP + "0"}, _BODY, _KEY, id="another timestamp"),
        pytest.param({"klaviyo-timestamp": "\udcff"}, _BODY, _KEY, id="timestamp no text"),
        pytest.param({"klaviyo-signature": "zz"}, _BODY, _KEY, id="not hexadecimal"),
        pytest.param({"klaviyo-signature": _sign()[:-2]}, _BODY, _KEY, id="cut"),
        pytest.param({"klaviyo-signature": "é" * 64}, _BODY, _KEY, id="not ASCII"),
        pytest.param({"klaviyo-signature": "a" * 9000}, _BODY, _KEY, id="endless"),
        pytest.param({"klaviyo-signature": _sign(stamp="")}, _BODY, _KEY, id="time not signed"),
        pytest.param({}, _BODY.replace(b"wh-1", b"wh-2"), _KEY, id="body flipped"),
        pytest.param({}, _BODY + b"\n", _KEY, id="body longer"),
        pytest.param({}, b"", _KEY, id="body empty"),
        pytest.param({}, _BODY, "another-key", id="another key"),
        pytest.param({}, _BODY, ",", id="no key"),
    ],
)
def test_a_false_signature_is_refused(changes: dict[str, str], body: bytes, secret: str) -> None:
    """Missing, malformed, flipped: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        _verify(_HEADERS | changes, body, secret)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(["a@example.com", "m-1", "profile", "2023-06-01T12:00:00Z", "Hard"])
_LEAVES = _JSON | _WORDS
_PROPERTIES = st.dictionaries(
    st.sampled_from(["$message", "machine_open", "Bounce Type", "Client Name", "Client Type"]),
    _LEAVES,
)
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["datetime", "timestamp", "event_properties", "email"]), _LEAVES | _PROPERTIES
)
_RESOURCES = st.dictionaries(
    st.sampled_from(["type", "id", "attributes", "relationships"]), _LEAVES | _ATTRIBUTES
)
_PAYLOADS = st.fixed_dictionaries(
    {}, optional={"data": _RESOURCES | _JSON, "included": st.lists(_RESOURCES | _JSON, max_size=3)}
)
_TOPICS = st.sampled_from(["received_email", "opened_email", "bounced_email", "dropped_email"])
_EVENTS = st.fixed_dictionaries(
    {"topic": _TOPICS.map("event:klaviyo.{}".format) | _JSON, "payload": _PAYLOADS | _JSON},
    optional={"external_id": _JSON},
)


@given(_JSON | _EVENTS | st.fixed_dictionaries({"data": st.lists(_EVENTS | _JSON, max_size=3)}))
def test_any_json_gives_outcomes_or_is_unreadable(body: object) -> None:
    """No JSON at all makes the parser raise anything else."""
    try:
        found = KLAVIYO.parse(delivery("klaviyo", body), Rules(), NOW)
    except (Unreadable, Probe):
        return
    assert all(shown(outcome) for outcome in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes at all make `check`, `verify` or `parse` raise anything but their own."""
    with pytest.raises(Unauthentic):
        _verify(_HEADERS, body)
    _verify(_HEADERS | {"klaviyo-signature": _sign(body)}, body)
    try:
        KLAVIYO.check(body, "")
        KLAVIYO.parse(delivery("klaviyo", body), Rules(), NOW)
    except (Malformed, Unreadable, Probe):
        pass


def test_a_profile_is_read_by_the_relation_and_not_by_its_place() -> None:
    """Of several included profiles the event's own is taken, wherever it stands."""

    def profile(ident: str, email: str) -> dict[str, Any]:
        return {"type": "profile", "id": ident, "attributes": {"email": email}}

    data = {
        "attributes": {"timestamp": 1_685_620_800, "event_properties": {"$message": "m-1"}},
        "relationships": {"profile": {"data": {"type": "profile", "id": "P2"}}},
    }
    people = [profile("P1", "bob@example.com"), profile("P2", "ada@example.com")]
    item = {
        "topic": "event:klaviyo.clicked_email",
        "payload": {"data": data, "included": people},
    }
    (found,) = KLAVIYO.parse(delivery("klaviyo", orjson.dumps(item)), Rules(), NOW)
    assert shown(found)["email"] == "ada@example.com"

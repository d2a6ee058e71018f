"""The source `mailgun`: three forms of one event, and a proof of the call in its body."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliveries import Delivery
from pipeline.outcomes import Invalid, Outcome, Reason, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.form_body import MULTIPART, URLENCODED
from pipeline.sources.mailgun import MAILGUN
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

JSON = "application/json"
IN_PARTS = f"{MULTIPART}; boundary=b"
KEY = "the-signing-key"
STAMP = str(int(NOW))
TOKEN = "ab" * 25
EVENT = {"event": "clicked", "recipient": "ada@example.com", "timestamp": 1_685_620_800.5}
HOUR = 3_600


def proof(key: str = KEY, stamp: str = STAMP, token: str = TOKEN) -> dict[str, Any]:
    """Return what Mailgun signs a call with."""
    signature = hmac.new(key.encode(), (stamp + token).encode(), "sha256").hexdigest()
    return {"timestamp": stamp, "token": token, "signature": signature}


def signed(**changes: Any) -> bytes:
    """Return a call whose proof has *changes*; what is None is left out."""
    fields = {name: each for name, each in (proof() | changes).items() if each is not None}
    return orjson.dumps({"signature": fields, "event-data": EVENT})


def in_parts(form: list[list[str]]) -> bytes:
    """Return *form* as multipart/form-data."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form
    ]
    return ("".join(parts) + "--b--\r\n").encode()


def verify(body: bytes, content_type: str = JSON, secret: str = KEY, now: float = NOW) -> None:
    """Verify *body* as the receiver does."""
    secrets = {"MAILGUN_SIGNING_KEY": secret}
    MAILGUN.verify({"content-type": content_type}, body, secrets, now)


def read(form: list[list[str]], rules: Rules, content_type: str) -> list[Outcome]:
    """Return what a legacy *form* tells, posted as *content_type*."""
    body = urlencode([(name, value) for name, value in form]).encode()
    if content_type != URLENCODED:
        body = in_parts(form)
    MAILGUN.check(body, content_type)
    posted = replace(delivery("mailgun", body), content_type=content_type)
    return MAILGUN.parse(posted, rules, NOW)


@pytest.mark.parametrize("sample", samples("mailgun"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample gives exactly the outcome beside it; a form does so in both of its encodings."""
    rules = Rules(**sample.get("rules", {}))
    if "form" in sample:
        found = read(sample["form"], rules, URLENCODED)
        assert read(sample["form"], rules, IN_PARTS) == found
    else:
        found = MAILGUN.parse(delivery("mailgun", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, [], [EVENT], {"signature": {}}, {"events": []}, 1, "x", None])
def test_a_body_without_an_event_is_of_unknown_shape(body: object) -> None:
    """JSON that holds no event is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        MAILGUN.parse(delivery("mailgun", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


def test_a_form_without_an_event_is_of_unknown_shape() -> None:
    """A route's incoming mail that was sent to the wrong URL is no event."""
    with pytest.raises(Unreadable) as caught:
        read([["sender", "eve@example.com"], ["body-plain", "hello"]], Rules(), URLENCODED)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", JSON),
        (b"", URLENCODED),
        (b"event=clicked", JSON),
        (b"event=clicked", IN_PARTS),
        (b"\xff=1", URLENCODED),
        (b"{", URLENCODED),
    ],
)
def test_what_has_neither_form_is_malformed(body: bytes, content_type: str) -> None:
    """Neither JSON nor the form that Content-Type says: 400 at the door, unreadable later."""
    with pytest.raises(Malformed):
        MAILGUN.check(body, content_type)
    with pytest.raises(Unreadable) as caught:
        MAILGUN.parse(Delivery("d", "mailgun", body, 0, content_type), Rules(), NOW)
    # an empty form is a form to its reader, though not to the check
    assert caught.value.reason is (
        Reason.MALFORMED if body or content_type == JSON else Reason.UNKNOWN_SHAPE
    )


def test_json_that_curl_calls_a_form_is_json() -> None:
    """`curl -d` says urlencoded whatever it sends; JSON is recognised, read and verified."""
    body = b"\n" + signed()
    MAILGUN.check(body, URLENCODED)
    verify(body, URLENCODED)
    (found,) = MAILGUN.parse(Delivery("d", "mailgun", body, 0, URLENCODED), Rules(), NOW)
    assert shown(found) == {"invalid": "the id of the message is missing"}


def test_a_wrong_event_is_kept_without_its_proof() -> None:
    """event-data lies in the dead letters as it came, long numbers too, and can be read again."""
    inner = (
        b'{"event":"clicked","recipient":"ada@example.com","big":123456789012345678901234567890}'
    )
    body = b'{"signature":{},"event-data":' + inner + b"}"
    (found,) = MAILGUN.parse(delivery("mailgun", body), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert found.payload == inner
    assert MAILGUN.parse(delivery("mailgun", found.payload), Rules(), NOW) == [found]


@pytest.mark.parametrize("content_type", [URLENCODED, IN_PARTS])
def test_a_wrong_form_can_be_read_again(content_type: str) -> None:
    """A buried legacy event is JSON of the form's fields, and means the same when a retry reads it."""
    form = [["event", "clicked"], ["recipient", "ada@example.com"], ["x", ",1.5e"], ["x", "again"]]
    (found,) = read(form, Rules(), content_type)
    assert isinstance(found, Invalid)
    assert orjson.loads(found.payload) == dict(form[:3])
    assert MAILGUN.parse(delivery("mailgun", found.payload), Rules(), NOW) == [found]


def test_the_time_is_the_events_and_not_the_calls() -> None:
    """A call repeated hours later, signed anew or not, tells of the same second under the same id."""
    event = EVENT | {"id": "e-1", "message": {"headers": {"message-id": "m-1"}}}
    bodies = [
        {"signature": proof(stamp=stamp, token=token), "event-data": event}
        for stamp, token in ((STAMP, TOKEN), ("1685650000", "cd" * 25))
    ]
    first, again = (MAILGUN.parse(delivery("mailgun", body), Rules(), NOW) for body in bodies)
    assert first == again
    assert shown(first[0])["occurred_at_utc"] == "2023-06-01T12:00:00"


def test_without_a_key_everything_is_accepted() -> None:
    """A sender whose secret is not set is believed by its token alone."""
    for secrets in ({}, {"MAILGUN_SIGNING_KEY": ""}):
        MAILGUN.verify({}, b"anything", secrets, NOW)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(signed(), id="good"),
        pytest.param(signed(signature=proof()["signature"].upper()), id="upper case"),
        pytest.param(signed(timestamp=int(NOW)), id="timestamp a number"),
        pytest.param(
            signed(signature="0" * 64, **{"parent-signature": proof()["signature"]}),
            id="subaccount's and the account's",
        ),
        pytest.param(
            signed(**{"parent-signature": "0" * 64}), id="the subaccount's key, not the account's"
        ),
    ],
)
def test_a_true_signature_is_accepted(body: bytes) -> None:
    """The HMAC of timestamp and token passes, whichever of the two signatures it is."""
    verify(body)


@pytest.mark.parametrize("secret", [f"{KEY},new", f"old, {KEY} ", f" {KEY}\n"])
def test_during_a_rotation_each_key_counts(secret: str) -> None:
    """Several keys may stand in the setting, with commas and white space between."""
    verify(signed(), secret=secret)


@pytest.mark.parametrize("content_type", [URLENCODED, IN_PARTS])
def test_a_form_proves_itself_by_its_last_fields(content_type: str) -> None:
    """The customer's variables of the same names stand before Mailgun's proof and do not hide it."""
    form = [[name, "mine"] for name in proof()] + [["event", "clicked"]]
    form += [[name, value] for name, value in proof().items()]
    late = [*form, ["token", "another"]]
    for fields, is_true in ((form, True), (late, False)):
        pairs = urlencode([(name, value) for name, value in fields]).encode()
        body = pairs if content_type == URLENCODED else in_parts(fields)
        if is_true:
            verify(body, content_type)
        else:
            with pytest.raises(Unauthentic):
                verify(body, content_type)


@pytest.mark.parametrize(
    ("age_s", "is_fresh"),
    [
        (0, True),
        (8 * HOUR, True),  # the last repetition, if it is not signed anew
        (12 * HOUR, True),
        (12 * HOUR + 1, False),
        (24 * HOUR, False),
        (-5 * 60, True),
        (-12 * HOUR - 1, False),
    ],
)
def test_a_signature_counts_for_twelve_hours(age_s: int, is_fresh: bool) -> None:
    """Everything that Mailgun may repeat passes; an old call with another event in it does not."""
    if is_fresh:
        verify(signed(), now=NOW + age_s)
    else:
        with pytest.raises(Unauthentic):
            verify(signed(), now=NOW + age_s)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(signed(signature="0" * 64), JSON, id="flipped"),
        pytest.param(signed(signature=proof(key="another")["signature"]), JSON, id="another key"),
        pytest.param(signed(signature=None), JSON, id="signature missing"),
        pytest.param(signed(timestamp=None), JSON, id="timestamp missing"),
        pytest.param(signed(token=None), JSON, id="token missing"),
        pytest.param(signed(token="x"), JSON, id="another token"),
        pytest.param(signed(timestamp=str(int(NOW) + 1)), JSON, id="another timestamp"),
        pytest.param(signed(**proof(stamp="soon")), JSON, id="timestamp no time"),
        pytest.param(signed(**proof(stamp="1" * 40)), JSON, id="timestamp endless"),
        pytest.param(signed(**proof(stamp="\u0661" * 10)), JSON, id="timestamp not ASCII"),
        pytest.param(signed(signature="é"), JSON, id="signature not ASCII"),
        pytest.param(signed(signature=[1]), JSON, id="signature a list"),
        pytest.param(signed(signature="a" * 99_999), JSON, id="signature endless"),
        pytest.param(orjson.dumps({"signature": "x", "event-data": EVENT}), JSON, id="no object"),
        pytest.param(orjson.dumps(EVENT), JSON, id="event-data alone"),
        pytest.param(b"[]", JSON, id="an array"),
        pytest.param(b"{", JSON, id="not JSON"),
        pytest.param(b"", JSON, id="empty"),
        pytest.param(signed()[1:], IN_PARTS, id="not the form it says"),
        pytest.param(b"event=clicked", URLENCODED, id="a form without proof"),
        pytest.param(urlencode(proof()).encode(), "é", id="a form of another type"),
    ],
)
def test_a_false_signature_is_refused(body: bytes, content_type: str) -> None:
    """Missing, malformed, flipped: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        verify(body, content_type)


def test_a_signature_in_headers_proves_nothing() -> None:
    """Mailgun signs in the body; headers are not looked at, whatever they hold."""
    headers = {"x-mailgun-signature": "é\udcff", **proof()}
    with pytest.raises(Unauthentic):
        MAILGUN.verify(headers, orjson.dumps(EVENT), {"MAILGUN_SIGNING_KEY": KEY}, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_WORDS = st.sampled_from(
    [
        *("opened", "failed", "bounced", "dropped", "delivered", "permanent", "temporary", "old"),
        *("a@example.com", "192.0.2.1", "m-1", "1685620800", "browser", "apple", "550"),
    ]
)
_NAMES = st.sampled_from(
    [
        *("event", "recipient", "timestamp", "message", "headers", "message-id", "Message-Id"),
        *("severity", "reason", "delivery-status", "code", "bounce-type", "enhanced-code", "id"),
        *("client-info", "client-type", "client-name", "user-agent", "bot", "ip", "campaigns"),
        *("signature", "event-data", "token", "campaign-id"),
    ]
)
_OBJECTS = st.recursive(
    st.dictionaries(_NAMES, _JSON | _WORDS),
    lambda inner: st.dictionaries(_NAMES, inner | st.lists(inner, max_size=1) | _WORDS),
    max_leaves=6,
)
_RULES = st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")])


def _is_handled(body: bytes, content_type: str, rules: Rules) -> None:
    with pytest.raises(Unauthentic):
        verify(body, content_type)
    try:
        MAILGUN.check(body, content_type)
        found = MAILGUN.parse(Delivery("d", "mailgun", body, 0, content_type), rules, NOW)
    except (Malformed, Unreadable):
        return
    assert len(found) == 1
    assert all(shown(outcome) for outcome in found)


@given(_JSON | _OBJECTS, _RULES)
def test_any_json_gives_an_outcome_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the source raise anything else."""
    for inner in (body, {"event-data": body}, {"signature": body, "event-data": body}):
        _is_handled(orjson.dumps(inner), JSON, rules)


@given(st.lists(st.tuples(_NAMES | st.text(), _WORDS | st.text()), max_size=8), _RULES)
def test_any_form_gives_an_outcome_or_is_unreadable(
    form: list[tuple[str, str]], rules: Rules
) -> None:
    """Nor does any form."""
    _is_handled(urlencode(form, errors="replace").encode(), URLENCODED, rules)


@given(
    st.binary(max_size=200),
    st.sampled_from([JSON, URLENCODED, MULTIPART, IN_PARTS, ""]) | st.text(max_size=40),
    _RULES,
)
def test_any_bytes_give_an_outcome_or_are_refused(
    body: bytes, content_type: str, rules: Rules
) -> None:
    """Nor do any bytes under any Content-Type."""
    _is_handled(body, content_type, rules)
    parts = b'--b\r\nContent-Disposition: form-data; name="event"\r\n' + body
    _is_handled(parts, IN_PARTS, rules)

"""The source `mailgun`: three forms of one event, and a proof of the call in its body."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from pipeline.deliveries import Delivery
from pipeline.outcomes import Invalid, Outcome, Reason, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.form_body import URLENCODED
from pipeline.sources.mailgun import MAILGUN
from tests.pipeline import signers
from tests.pipeline.sample_outcomes import NOW, delivery, shown
from tests.pipeline.sender_facts import IN_PARTS, JSON, in_parts
from tests.pipeline.signers import STAMP
from tests.pipeline.signers import mailgun_proof as proof

EVENT = {"event": "clicked", "recipient": "ada@example.com", "timestamp": 1_685_620_800.5}


def verify(body: bytes, content_type: str = JSON) -> None:
    """Verify *body* as the receiver does."""
    signers.verify("mailgun", {"content-type": content_type}, body)


def signed(**changes: Any) -> bytes:
    """Return a call whose proof has *changes*; what is None is left out."""
    fields = {name: each for name, each in (proof() | changes).items() if each is not None}
    return orjson.dumps({"signature": fields, "event-data": EVENT})


def read(form: list[list[str]], rules: Rules, content_type: str) -> list[Outcome]:
    """Return what a legacy *form* tells, posted as *content_type*."""
    body = urlencode([(name, value) for name, value in form]).encode()
    if content_type != URLENCODED:
        body = in_parts([(name, value) for name, value in form])
    MAILGUN.check(body, content_type)
    posted = replace(delivery("mailgun", body), content_type=content_type)
    return MAILGUN.parse(posted, rules, NOW)


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
    assert caught.value.reason is Reason.MALFORMED


def test_json_that_curl_calls_a_form_is_json() -> None:
    """`curl -d` says urlencoded whatever it sends; JSON is recognised, read and verified."""
    body = b"\n" + signed()
    MAILGUN.check(body, URLENCODED)
    verify(body, URLENCODED)
    (found,) = MAILGUN.parse(Delivery("d", "mailgun", body, 0, URLENCODED), Rules(), NOW)
    assert shown(found) == {
        "invalid": "the id of the message is missing, or neither text nor a whole number"
    }


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
        for stamp, token in ((STAMP, "ab" * 25), ("1685650000", "cd" * 25))
    ]
    first, again = (MAILGUN.parse(delivery("mailgun", body), Rules(), NOW) for body in bodies)
    assert first == again
    assert shown(first[0])["occurred_at_utc"] == "2023-06-01T12:00:00"


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


@pytest.mark.parametrize("content_type", [URLENCODED, IN_PARTS])
def test_a_form_proves_itself_by_its_last_fields(content_type: str) -> None:
    """The customer's variables of the same names stand before Mailgun's proof and do not hide it."""
    form = [(name, "mine") for name in proof()] + [("event", "clicked")]
    form += proof().items()
    late = [*form, ("token", "another")]
    for fields, is_true in ((form, True), (late, False)):
        body = urlencode(fields).encode() if content_type == URLENCODED else in_parts(fields)
        if is_true:
            verify(body, content_type)
        else:
            with pytest.raises(Unauthentic):
                verify(body, content_type)


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
        signers.verify("mailgun", headers, orjson.dumps(EVENT))

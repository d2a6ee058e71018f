"""The source `klaviyo`: batches of events, addresses in included profiles, body and time signed."""

from __future__ import annotations

import hmac
from typing import Any

import orjson
import pytest

from pipeline.outcomes import EventType, MailEvent
from pipeline.sources import Rules, Unauthentic
from pipeline.sources.klaviyo import KLAVIYO
from tests.pipeline.sample_outcomes import NOW, delivery, shown

_KEY = "key-of-nobody-else"
_BODY = b'{"meta":{"klaviyo_webhook_id":"wh-1"},"data":[]}'
_STAMP = "Tue, 14 Nov 2023 22:13:20 GMT"


def _sign(body: bytes = _BODY, stamp: str = _STAMP) -> str:
    return hmac.digest(_KEY.encode(), body + stamp.encode(), "sha256").hex()


_HEADERS = {
    "klaviyo-signature": _sign(),
    "klaviyo-timestamp": _STAMP,
    "klaviyo-webhook-id": "wh-1",
}


def _verify(headers: dict[str, str], body: bytes = _BODY) -> None:
    KLAVIYO.verify(headers, body, {"KLAVIYO_SIGNING_KEY": _KEY}, NOW)


def _alone(topic: str, properties: dict[str, str], ident: str = "ev-1") -> dict[str, Any]:
    profile = {"type": "profile", "attributes": {"email": "ada@example.com"}}
    attributes = {"timestamp": 1_685_620_800, "event_properties": properties}
    payload = {"data": {"attributes": attributes}, "included": [profile]}
    return {"external_id": ident, "topic": "event:klaviyo." + topic, "payload": payload}


def test_an_unsubscription_from_no_message_bears_the_topics_id() -> None:
    """Who leaves by a form or by hand leaves all marketing, not a message: the same id for all, every time."""
    topic = "unsubscribed_from_email_marketing"
    items = [_alone(topic, {}), _alone(topic, {}), _alone(topic, {"$message": " "}, "ev-2")]
    found = KLAVIYO.parse(delivery("klaviyo", {"data": items}), Rules(), NOW)
    sends = [one.send_id for one in found if isinstance(one, MailEvent)]
    assert sends == ["event:klaviyo." + topic] * 3
    assert found[0] == found[1]


def test_an_unsubscription_from_a_message_bears_the_messages_id() -> None:
    """The topic only stands in where there is no message."""
    item = _alone("unsubscribed_from_email_marketing", {"$message": "m-1"})
    (found,) = KLAVIYO.parse(delivery("klaviyo", item), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.send_id == "m-1"


@pytest.mark.parametrize("topic", ["received_email", "opened_email", "marked_email_as_spam"])
def test_nothing_else_goes_without_a_message(topic: str) -> None:
    """What can only be about a message and names none is wrong, and no id is invented for it."""
    (found,) = KLAVIYO.parse(delivery("klaviyo", _alone(topic, {})), Rules(), NOW)
    assert shown(found) == {
        "invalid": "the id of the message is missing, or neither text nor a whole number"
    }


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"Bounce Type": "Soft", "Bounce Reason": "550 5.1.1 no such user"}, EventType.SOFT_BOUNCE),
        ({"Bounce Reason": "550 5.1.1 no such user"}, EventType.HARD_BOUNCE),
        ({"Bounce Reason": "452 4.2.2 mailbox full"}, EventType.SOFT_BOUNCE),
        ({}, EventType.SOFT_BOUNCE),
    ],
)
def test_a_bounce_without_a_verdict_is_judged_by_its_status(
    told: dict[str, str], kind: EventType
) -> None:
    """Klaviyo's own type counts first; what the other server said only without one."""
    item = _alone("bounced_email", {"$message": "m-1", **told})
    (found,) = KLAVIYO.parse(delivery("klaviyo", item), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.type is kind


def test_a_thousand_events_are_read_from_one_call() -> None:
    """One call holds up to a thousand events; none of them is lost or moved."""
    items = [_alone("opened_email", {"$message": "m-1"}, str(number)) for number in range(1000)]
    found = KLAVIYO.parse(delivery("klaviyo", {"data": items}), Rules(), NOW)
    ids = [event.provider_id for event in found if isinstance(event, MailEvent)]
    assert ids == [str(number) for number in range(1000)]


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


def test_a_signature_of_the_body_alone_is_refused() -> None:
    """The time is signed too: without it a call could be given any other."""
    with pytest.raises(Unauthentic):
        _verify(_HEADERS | {"klaviyo-signature": _sign(stamp="")})


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

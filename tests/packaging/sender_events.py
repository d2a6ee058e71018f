"""One event of each mail sender, as it posts it, into which a test writes the event's word and what else it wants.

Every event has all that any of its sender's words needs (address, times, ids), so that what becomes of it
depends on the word alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from pipeline.deliveries import Delivery
from pipeline.sources.form_body import URLENCODED

NOW = 1_700_000_000.0
SECOND = 1_685_620_800
TIME = "2023-06-01T12:00:00Z"
ADA = "ada@example.com"
_JSON = "application/json"

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """How a sender writes an event: *event* without its word, and how the body is made of it.

    *inside* is where the fields stand that the page names without their whole path.
    """

    event: Event
    body: Callable[[Event], bytes] = orjson.dumps
    content_type: str = _JSON
    inside: tuple[str, ...] = ()

    def delivery(self, source: str, field: str, word: str, facts: Mapping[str, object]) -> Delivery:
        """Return the call with *word* in *field* and *facts*, which have dotted paths for names."""
        event = deepcopy(self.event)
        event[field] = word
        for path, value in facts.items():
            names = (*self.inside, *path.split(".")) if path not in self.event else (path,)
            _put(event, names, value)
        return Delivery("page", source, self.body(event), int(NOW * 1000), self.content_type)


def _put(event: Event, names: tuple[str, ...], value: object) -> None:
    for name in names[:-1]:
        event = event.setdefault(name, {})
    event[names[-1]] = value


def _all(events: str | None = None) -> Callable[[Event], bytes]:
    """Return what makes a body of one event: an array, under the name *events* if there is one."""
    return lambda event: orjson.dumps([event] if events is None else {events: [event]})


def _sns(event: Event) -> bytes:
    message = orjson.dumps(event).decode()
    return orjson.dumps({"Type": "Notification", "MessageId": "n-1", "Message": message})


def _mandrill(event: Event) -> bytes:
    return urlencode({"mandrill_events": orjson.dumps([event]).decode()}).encode()


_SES_PEOPLE = {
    "bounce": {"bouncedRecipients": [{"emailAddress": ADA}], "timestamp": TIME},
    "complaint": {"complainedRecipients": [{"emailAddress": ADA}], "timestamp": TIME},
    "delivery": {"recipients": [ADA], "timestamp": TIME},
    "deliveryDelay": {"delayedRecipients": [{"emailAddress": ADA}], "timestamp": TIME},
    "open": {"timestamp": TIME},
    "click": {"timestamp": TIME},
    "subscription": {"timestamp": TIME},
}
_KLAVIYO_PAYLOAD = {
    "data": {
        "type": "event",
        "id": "e-1",
        "attributes": {"datetime": TIME, "event_properties": {"$message": "m-1"}},
        "relationships": {"profile": {"data": {"type": "profile", "id": "p-1"}}},
    },
    "included": [{"type": "profile", "id": "p-1", "attributes": {"email": ADA}}],
}

FORMS: dict[str, Form] = {
    "sendgrid": Form({"email": ADA, "timestamp": SECOND, "sg_message_id": "m-1"}, _all()),
    "mailgun": Form(
        {"recipient": ADA, "timestamp": SECOND, "message": {"headers": {"message-id": "m-1"}}},
        lambda event: orjson.dumps({"event-data": event}),
    ),
    "postmark": Form(
        {
            **dict.fromkeys(("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt"), TIME),
            **{"Recipient": ADA, "MessageID": "m-1"},
        }
    ),
    "ses": Form(
        {"mail": {"messageId": "m-1", "timestamp": TIME, "destination": [ADA]}, **_SES_PEOPLE}, _sns
    ),
    "sparkpost": Form(
        {"rcpt_to": ADA, "timestamp": SECOND, "message_id": "m-1"},
        lambda event: orjson.dumps([{"msys": {"message_event": event}}]),
    ),
    "mandrill": Form({"_id": "m-1", "ts": SECOND, "msg": {"email": ADA}}, _mandrill, URLENCODED),
    "brevo": Form({"email": ADA, "ts_epoch": SECOND * 1000, "message-id": "<m-1>"}),
    "mailjet": Form({"email": ADA, "time": SECOND, "MessageID": 194217778351464901}, _all()),
    "resend": Form({"created_at": TIME, "data": {"email_id": "m-1", "to": [ADA]}}),
    "mailersend": Form({"created_at": TIME, "data": {"message_id": "m-1", "recipient": ADA}}),
    "mailtrap": Form({"email": ADA, "timestamp": SECOND, "message_id": "m-1"}, _all("events")),
    "mailchimp": Form(
        {"fired_at": "2023-06-01 12:00:00", "data[email]": ADA, "data[campaign_id]": "c-1"},
        lambda event: urlencode(event).encode(),
        URLENCODED,
    ),
    "klaviyo": Form(
        {"external_id": "e-1", "payload": _KLAVIYO_PAYLOAD},
        _all("data"),
        inside=("payload", "data", "attributes"),
    ),
    "customerio": Form(
        {
            **{"object_type": "email", "timestamp": SECOND},
            "data": {"recipient": ADA, "delivery_id": "m-1"},
        }
    ),
    "iterable": Form(
        {"email": ADA, "dataFields": {"createdAt": "2023-06-01 12:00:00 +00:00", "messageId": "m"}}
    ),
    "braze": Form(
        {"time": SECOND, "properties": {"email_address": ADA, "dispatch_id": "m-1"}}, _all("events")
    ),
    "sfmc": Form(
        {"timestampUTC": SECOND * 1000, "composite": {"jobId": "1"}, "info": {"to": ADA}}, _all()
    ),
}

"""Source `mailersend`: MailerSend's webhooks, one JSON object for each event, in version 1 or 2.

Words and fields: https://developers.mailersend.com/api/v1/webhooks.html. Signed with HMAC-SHA256 of the
raw body under MAILERSEND_SIGNING_SECRET:
https://developers.mailersend.com/api/v1/webhooks.html#security.
After any answer but 2xx MailerSend calls again; ten failures in 24 hours bring a mail, twenty pause
the webhook until somebody enables it.
What may go wrong: in version 2 `data.type` is the state of the message (an open says `delivered`) and
`meta` is an empty array where there is nothing; in version 1 the `created_at` beside `data` is the
call's; `data.id` is seen again on other events, so nothing is recognised by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Reason, Unreadable
from pipeline.sources import Rules, mail, signatures
from pipeline.sources.json_body import as_sent, check_json, read_json

_SECRET = "MAILERSEND_SIGNING_SECRET"  # noqa: S105 - the setting's name
_SIGNATURE = "signature"

# `activity.sent`, `activity.delivered` (SEND_FROM) and `activity.deferred` (DEFERRAL_AS) need a look
_TYPES = {
    "activity.soft_bounced": EventType.SOFT_BOUNCE,
    "activity.hard_bounced": EventType.HARD_BOUNCE,
    "activity.opened": EventType.OPEN,
    "activity.clicked": EventType.CLICK,
    "activity.unsubscribed": EventType.UNSUBSCRIBE,
    "activity.spam_complaint": EventType.COMPLAINT,
}
#: word of `Ignored`: the event says again what another one says
REPEATED = "repeated"
_IGNORED = {
    # the first open and the first click, told a second time beside `activity.opened` and `.clicked`
    "activity.opened_unique": REPEATED,
    "activity.clicked_unique": REPEATED,
    "activity.survey_opened": mail.NOT_A_MAIL_EVENT,
    "activity.survey_submitted": mail.NOT_A_MAIL_EVENT,
}
_OTHER_OBJECTS = frozenset(
    (
        *("sender_identity", "maintenance", "inbound", "inbound_forward", "email_single"),
        *("email_list", "bulk_email", "recipient", "domain"),
    )
)


class MailerSend:
    """The source `mailersend`."""

    name = "mailersend"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless MailerSend signed *body*. It signs no time: age cannot be judged."""
        if secret := secrets.get(_SECRET):
            given = signatures.header(headers, _SIGNATURE)
            signatures.check_hex(given, signatures.keys_of(secret), body)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return the one `MailEvent`, `Ignored` or `Invalid` of the body."""
        outcomes = [_outcome(item, rules, now) for item in _items(read_json(delivery.body))]
        return as_sent(outcomes, delivery.body, _items)


MAILERSEND = MailerSend()


def _items(body: object) -> list[dict[str, object]]:
    if isinstance(body, dict) and "type" in body:
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "not one event of MailerSend: type is missing")


def _outcome(item: Mapping[str, object], rules: Rules, now: float) -> Outcome:
    name = item.get("type")
    if not isinstance(name, str):
        return mail.invalid("type is not a string", item)
    verdict = _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    is_first_version = isinstance(mail.part(item, "data", "email"), dict)
    told = _told_in_1(verdict, item) if is_first_version else _told_in_2(verdict, item)
    return mail.event_of(told, item, now)


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in ("activity.sent", "activity.delivered"):
        return mail.send_when("accepted" if name == "activity.sent" else "delivered", rules)
    if name == "activity.deferred":
        return mail.deferral(rules)
    if name.partition(".")[0] in _OTHER_OBJECTS:
        return mail.NOT_A_MAIL_EVENT
    return _IGNORED.get(name, mail.UNMAPPED)


def _told_in_1(kind: EventType, item: Mapping[str, object]) -> mail.Told:
    """Read version 1: message and recipient are objects in `data.email`."""
    data = item.get("data")
    return mail.Told(
        type=kind,
        email=mail.part(data, "email", "recipient", "email"),
        time=mail.part(data, "created_at"),
        send_id=mail.part(data, "email", "message", "id"),
        ip=mail.part(data, "morph", "ip"),
    )


def _told_in_2(kind: EventType, item: Mapping[str, object]) -> mail.Told:
    """Read version 2: `data` is flat, and the time stands beside it."""
    data = item.get("data")
    meta = mail.part(data, "meta")
    return mail.Told(
        type=kind,
        email=mail.text(mail.part(data, "recipient")) or mail.part(data, "email"),
        time=item.get("created_at"),
        send_id=mail.part(data, "message_id"),
        ip=mail.part(meta, "ip"),
        user_agent=mail.part(meta, "user_agent"),
        browser=mail.part(meta, "browser"),
        device=mail.part(meta, "device_type"),
    )

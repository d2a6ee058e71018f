"""Source `mailersend`: MailerSend's webhooks, one JSON object for each event, in version 1 or 2.

Words and fields: https://developers.mailersend.com/api/v1/webhooks.html. Signed with HMAC-SHA256 of the
raw body under MAILERSEND_SIGNING_SECRET:
https://developers.mailersend.com/api/v1/webhooks.html#security.
Saving a webhook posts `webhook.test`, signed with a key that is the same for everybody, and wants a 2xx for it:
https://developers.mailersend.com/api/v1/webhooks.html#webhooks-overview.
After any answer but 2xx MailerSend calls again; ten failures in 24 hours bring a mail, twenty pause
the webhook until somebody enables it.
What may go wrong: in version 2 `data.type` is the state of the message (an open says `delivered`) and
`meta` is an empty array where there is nothing; version 1 has its time in `data`, version 2 beside it;
`data.id` is seen again on other events, so nothing is recognised by it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.outcomes import EventType, Probe, Unreadable
from pipeline.sources import Rules, Unauthentic, mail, signatures
from pipeline.sources.json_body import read_json
from pipeline.sources.json_sender import JsonSender, one_event

_SECRET = "MAILERSEND_SIGNING_SECRET"  # noqa: S105 - the setting's name
# public, and the same for everybody: it proves nothing, so only the test may carry it
_TEST_KEY = b"test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G"
_TEST = "webhook.test"

# `activity.sent`, `activity.delivered` (SEND_FROM) and `activity.deferred` (DEFERRAL_AS) are decided in `_verdict`
_TYPES = {
    "activity.soft_bounced": EventType.SOFT_BOUNCE,
    "activity.hard_bounced": EventType.HARD_BOUNCE,
    "activity.opened": EventType.OPEN,
    "activity.clicked": EventType.CLICK,
    "activity.unsubscribed": EventType.UNSUBSCRIBE,
    "activity.spam_complaint": EventType.COMPLAINT,
}
_IGNORED = {
    # the first open and the first click, told a second time beside `activity.opened` and `.clicked`
    "activity.opened_unique": mail.REPEATED,
    "activity.clicked_unique": mail.REPEATED,
    "activity.survey_opened": mail.NOT_A_MAIL_EVENT,
    "activity.survey_submitted": mail.NOT_A_MAIL_EVENT,
}
_OTHER_OBJECTS = frozenset(
    (
        *("sender_identity", "maintenance", "inbound", "inbound_forward", "email_single"),
        *("email_list", "bulk_email", "recipient", "domain"),
    )
)


_event = one_event("type")


def _items(body: object) -> list[object]:
    if _is_test(body):
        raise Probe("MailerSend's test")
    return _event(body)


def _is_test(body: object) -> bool:
    return mail.part(body, "type") == _TEST


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = mail.word(item, "type")
    verdict = _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return verdict
    data = mail.section(item, "data")
    if isinstance(data.get("email"), dict):
        return _told_in_1(verdict, data)
    return _told_in_2(verdict, data, item.get("created_at"))


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


def _told_in_1(kind: EventType, data: Mapping[str, object]) -> mail.Told:
    """Read version 1: message and recipient are objects in `data.email`."""
    email = mail.section(data, "email")
    return {
        "type": kind,
        "email": mail.section(email, "recipient").get("email"),
        "time": data.get("created_at"),
        "send_id": mail.section(email, "message").get("id"),
        "ip": mail.section(data, "morph").get("ip"),
    }


def _told_in_2(kind: EventType, data: Mapping[str, object], time: object) -> mail.Told:
    """Read version 2: `data` is flat, and the *time* stands beside it."""
    meta, recipient = mail.section(data, "meta"), data.get("recipient")
    return {
        "type": kind,
        "email": mail.text(recipient) or mail.part(recipient, "email") or data.get("email"),
        "time": time,
        "send_id": data.get("message_id"),
        "ip": meta.get("ip"),
        "user_agent": meta.get("user_agent"),
        "browser": meta.get("browser"),
        "device": meta.get("device_type"),
    }


def _verify(
    headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> None:
    """Raise `Unauthentic` unless MailerSend signed *body*; its test passes, and `parse` finds nothing in it.

    No time is signed: age cannot be judged.
    """
    secret = secrets.get(_SECRET)
    if not secret:
        return
    given = signatures.header(headers, "signature")
    keys = [key for key in signatures.keys_of(secret) if key != _TEST_KEY]
    try:
        signatures.check_hex(given, keys, body)
    except Unauthentic:
        signatures.check_hex(given, [_TEST_KEY], body)
        _check_is_test(body)


def _check_is_test(body: bytes) -> None:
    try:
        is_test = _is_test(read_json(body))
    except Unreadable:
        is_test = False
    if not is_test:
        raise Unauthentic("signed with the key of tests, and no test")


MAILERSEND = JsonSender("mailersend", _items, _read, _verify)

"""Source `mailtrap`: Mailtrap's Email Sending webhook, `{"events": [...]}` or one event in each line.

Words, formats, signature: https://docs.mailtrap.io/email-api-smtp/advanced/webhooks. Both payload formats
of its page are read, JSON and JSON Lines; up to 500 events come at once, every 30 seconds.
Signature: hex HMAC-SHA256 of the raw body in `Mailtrap-Signature`. That is claimed by the page and by the
vendor's libraries; no recorded call has shown it yet. Each webhook has a secret of its own, so the setting
may hold several.
After any answer but 200, or none in 30 seconds, Mailtrap tries 40 times, every 5 minutes, and then pauses
the webhook until somebody resumes it by hand.
What may go wrong: `soft bounce` is written with a space; its test sends invented events that look real;
a webhook of the account's audit log or of inbound mail posts to the same URL in the same envelope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Malformed, Rules, mail, signatures
from pipeline.sources.json_body import as_sent, check_json, read_json

_SECRET = "MAILTRAP_SIGNING_SECRET"  # noqa: S105 - the setting's name
_SIGNATURE = "mailtrap-signature"

_TYPES = {
    "bounce": EventType.HARD_BOUNCE,
    "soft bounce": EventType.SOFT_BOUNCE,
    "soft_bounce": EventType.SOFT_BOUNCE,  # the word of Mailtrap's API; the wire has a space
    "open": EventType.OPEN,
    "click": EventType.CLICK,
    "spam": EventType.COMPLAINT,
    "spam_complaint": EventType.COMPLAINT,  # the word of Mailtrap's API
    "unsubscribe": EventType.UNSUBSCRIBE,
}
_IGNORED = {
    "reject": mail.SUPPRESSED,  # both were never handed to the recipient's server
    "suspension": mail.SUPPRESSED,
}
_OF_THE_ACCOUNT = ("activity_log", "audit_log", "inbound")


class Mailtrap:
    """The source `mailtrap`."""

    name = "mailtrap"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON or JSON Lines."""
        check_json(_document(body))

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless *body* is signed with one of the secrets; no time is signed."""
        secret = secrets.get(_SECRET)
        if not secret:
            return
        given = signatures.header(headers, _SIGNATURE)
        signatures.check_hex(given, signatures.keys_of(secret), body)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body."""
        document = _document(delivery.body)
        items = _items(read_json(document))
        if not items:
            raise Probe("an empty batch")
        return as_sent([_outcome(item, rules, now) for item in items], document, _items)


MAILTRAP = Mailtrap()


def _document(body: bytes) -> bytes:
    """Return *body* as one JSON document: several lines that are JSON each become an array."""
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) < 2:
        return body
    try:
        for line in lines:
            check_json(line)
    except Malformed:
        return body  # one document that was broken into lines, or none at all
    return b"[" + b",".join(lines) + b"]"


def _items(body: object) -> list[object]:
    if isinstance(body, list):
        return body
    if isinstance(body, dict):
        events = body.get("events")
        if isinstance(events, list):
            return events
        if "event" in body:  # the only line of JSON Lines
            return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither an object with events nor lines of events")


def _outcome(item: object, rules: Rules, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    name = item.get("event")
    if not isinstance(name, str):
        return mail.invalid("event is missing or not a string", item)
    verdict = _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    told = mail.Told(
        type=verdict,
        email=item.get("email"),
        time=item.get("timestamp"),
        send_id=item.get("message_id"),  # no event names a campaign
        provider_id=item.get("event_id"),
        ip=item.get("ip"),
        user_agent=item.get("user_agent"),
    )
    return mail.event_of(told, item, now)


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name.startswith(_OF_THE_ACCOUNT):
        return mail.NOT_A_MAIL_EVENT
    if (
        name == "delivery"
    ):  # the recipient's server took it; nothing tells of the acceptance by Mailtrap
        return mail.send_when("delivered", rules, usual="delivered")
    return _TYPES.get(name) or _IGNORED.get(name, mail.UNMAPPED)

"""Source `mailtrap`: Mailtrap's Email Sending webhook, `{"events": [...]}` or one event in each line.

Words, formats, signature: https://docs.mailtrap.io/email-api-smtp/advanced/webhooks. Both payload formats
of its page are read, JSON and JSON Lines; up to 500 events come at once, every 30 seconds.
Signature: hex HMAC-SHA256 of the raw body in `Mailtrap-Signature`. That is claimed by the page and by the
vendor's libraries; no recorded call has shown it yet. Each webhook has a secret of its own, so the setting
may hold several.
After any answer but 200, or none in 30 seconds, Mailtrap tries 40 times, every 5 minutes, and then pauses
the webhook until somebody resumes it by hand.
What may go wrong: JSON Lines with a byte order mark before them are refused, and in lines that each hold
`{"events": [...]}` no event is found (Mailtrap sends neither); `soft bounce` is written with a space; its
test sends invented events that look real; a webhook of the account's audit log or of inbound mail posts to
the same URL in the same envelope.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Reason, Unreadable
from pipeline.sources import Malformed, Rules, mail
from pipeline.sources.json_body import check_json
from pipeline.sources.json_sender import JsonSender, by_hex_hmac

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
# far above the 500 that come at once, far below what costs seconds
_MOST_LINES = 100_000
_OF_THE_ACCOUNT = ("activity_log", "audit_log", "inbound")


class _Mailtrap(JsonSender):
    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON or JSON Lines."""
        try:
            check_json(body)
        except Malformed:
            lines = _array_of_lines(body)
            if lines is None:
                raise
            check_json(lines)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body."""
        try:
            return self.read_document(delivery.body, rules, now)
        except Unreadable as error:
            lines = None
            if error.reason is Reason.MALFORMED:
                lines = _array_of_lines(delivery.body)
            if lines is None:
                raise
            return self.read_document(lines, rules, now)


def _array_of_lines(body: bytes) -> bytes | None:
    """Return the lines of *body*, which is not one JSON document, as an array, if each may be an object."""
    if body.count(b"\n") > _MOST_LINES:
        return None
    lines = []
    for line in body.split(b"\n"):
        if bare := line.strip():
            if not (bare.startswith(b"{") and bare.endswith(b"}")):
                return None
            lines.append(bare)
    return b"[" + b",".join(lines) + b"]" if lines else None


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


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = mail.word(item, "event")
    verdict = _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return verdict
    return {
        "type": verdict,
        "email": item.get("email"),
        "time": item.get("timestamp"),
        "send_id": item.get("message_id"),  # no event names a campaign
        "provider_id": item.get("event_id"),
        "ip": item.get("ip"),
        "user_agent": item.get("user_agent"),
    }


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    # the recipient's server took it; nothing tells of the acceptance by Mailtrap
    if name == "delivery":
        return mail.send_when("delivered", rules, usual="delivered")
    if name.startswith(_OF_THE_ACCOUNT):
        return mail.NOT_A_MAIL_EVENT
    return _IGNORED.get(name, mail.UNMAPPED)


# no time is signed: age cannot be judged
_verify = by_hex_hmac("MAILTRAP_SIGNING_SECRET", "mailtrap-signature")

MAILTRAP = _Mailtrap("mailtrap", _items, _read, _verify)

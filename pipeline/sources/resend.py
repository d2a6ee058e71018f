"""Source `resend`: Resend's webhooks, one JSON object for each event.

Words and fields: https://resend.com/docs/dashboard/webhooks/event-types. Signed as Svix does, with
RESEND_SIGNING_SECRET: https://resend.com/docs/dashboard/webhooks/verify-webhooks-requests.
After any answer but 2xx Resend calls again: after 5 s, 5 and 30 min, 2, 5, 10 and 10 h, under the
same `svix-id` and signed anew.
What may go wrong: a message to several people names all of them in each of its events and never the
one it is about; `data.created_at` is the message's time, not the event's; addresses come with names;
older bounces hold nothing but a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Reason, Unreadable
from pipeline.sources import Rules, mail, signatures
from pipeline.sources.json_body import as_sent, check_json, read_json

_SECRET = "RESEND_SIGNING_SECRET"  # noqa: S105 - the setting's name
_EVENT_ID = "svix-id"

# `email.sent`, `email.delivered` (SEND_FROM), `email.delivery_delayed` (DEFERRAL_AS) and
# `email.bounced` (its type) need a look
_TYPES = {
    "email.opened": EventType.OPEN,
    "email.clicked": EventType.CLICK,
    "email.complained": EventType.COMPLAINT,
}
_IGNORED = {
    "email.failed": mail.SUPPRESSED,  # never handed to the recipient's server: neither Send nor bounce
    "email.suppressed": mail.SUPPRESSED,
    "email.scheduled": mail.NOT_A_MAIL_EVENT,
    "email.received": mail.NOT_A_MAIL_EVENT,
}
# `contact.updated` may tell of an unsubscription, but of no message
_OTHER_OBJECTS = frozenset(("contact", "domain", "suppression"))
_SENT = "email.sent"
#: word of `Ignored`: the event is about one of several people, and Resend does not say which
SEVERAL_RECIPIENTS = "several_recipients"

_HARD = ("permanent",)
_NOT_TRIED = ("suppressed", "onaccountsuppressionlist")
_SENTENCE_NOT_TRIED = re.compile(r"suppressed sending|suppression list", re.IGNORECASE)
_SENTENCE_HARD = re.compile(r"hard bounce", re.IGNORECASE)
_NAMED = re.compile(r"<([^<>]*)>$")
# https://resend.com/docs/api-reference/emails/send-email allows so many; each is a copy of the event
_MOST_RECIPIENTS = 50


class Resend:
    """The source `resend`."""

    name = "resend"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset((_EVENT_ID,))

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless Resend signed *body* not more than five minutes ago."""
        if secret := secrets.get(_SECRET):
            signatures.check_svix(headers, body, secret, now)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one outcome, or one for each recipient of `email.sent`."""
        event_id = delivery.headers.get(_EVENT_ID)
        items = _items(read_json(delivery.body))
        # Each of several recipients may have a call of its own that names them all: the message's id
        # recognises their Sends as the same, the call's would not.
        told_id = event_id if len(items) == 1 else None
        outcomes = [_outcome(item, rules, told_id, now) for item in items]
        return as_sent(outcomes, delivery.body, _items)


RESEND = Resend()


def _items(body: object) -> list[dict[str, object]]:
    """Return the event, and `email.sent` once for each recipient, with that one alone in `to`."""
    if not isinstance(body, dict) or "type" not in body:
        raise Unreadable(Reason.UNKNOWN_SHAPE, "not one event of Resend: type is missing")
    data = body.get("data")
    people = _people(body)
    if body["type"] != _SENT or not isinstance(data, dict) or len(people) < 2:
        return [body]
    if len(people) > _MOST_RECIPIENTS:
        return [body]
    return [{**body, "data": {**data, "to": [one]}} for one in people]


def _people(item: Mapping[str, object]) -> list[object]:
    """Return the recipients as they are written, each once."""
    to = mail.part(item, "data", "to")
    people: dict[object, object] = {}
    for position, one in enumerate(to if isinstance(to, list) else [to]):
        # what is no text is wrong, and counted by its place
        people.setdefault(_address(one).lower() if isinstance(one, str) else position, one)
    return list(people.values())


def _address(written: object) -> str:
    """Return the bare address of `Name <address>`."""
    text = mail.text(written)
    found = _NAMED.search(text)
    return found[1].strip() if found else text


def _outcome(item: Mapping[str, object], rules: Rules, event_id: str | None, now: float) -> Outcome:
    name = item.get("type")
    if not isinstance(name, str):
        return mail.invalid("type is not a string", item)
    verdict = _verdict(name, item, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    people = _people(item)
    if len(people) > 1:
        if name == _SENT:
            return mail.invalid(f"there are more than {_MOST_RECIPIENTS} recipients", item)
        return mail.ignored(SEVERAL_RECIPIENTS)
    click = mail.part(item, "data", "click")
    told = mail.Told(
        type=verdict,
        email=_address(people[0]) if people else None,
        time=item.get("created_at"),
        send_id=_send_id(item, rules),
        provider_id=event_id,
        ip=mail.part(click, "ipAddress"),
        user_agent=mail.part(click, "userAgent"),
    )
    return mail.event_of(told, item, now)


def _verdict(name: str, item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in (_SENT, "email.delivered"):
        return mail.send_when("accepted" if name == _SENT else "delivered", rules)
    if name == "email.bounced":
        return _bounce(mail.part(item, "data", "bounce"))
    if name == "email.delivery_delayed":
        return mail.deferral(rules)
    if name.partition(".")[0] in _OTHER_OBJECTS:
        return mail.NOT_A_MAIL_EVENT
    return _IGNORED.get(name, mail.UNMAPPED)


def _bounce(bounce: object) -> mail.Verdict:
    # https://resend.com/docs/dashboard/emails/email-bounces: type and subType are Amazon SES's words
    sentence = mail.text(mail.part(bounce, "message"))
    if mail.text(mail.part(bounce, "subType")).lower() in _NOT_TRIED:
        return mail.SUPPRESSED
    if _SENTENCE_NOT_TRIED.search(sentence):
        return mail.SUPPRESSED
    if kind := mail.text(mail.part(bounce, "type")).lower():
        return EventType.HARD_BOUNCE if kind in _HARD else EventType.SOFT_BOUNCE
    is_hard = _SENTENCE_HARD.search(sentence)
    return EventType.HARD_BOUNCE if is_hard else EventType.SOFT_BOUNCE


def _send_id(item: Mapping[str, object], rules: Rules) -> str:
    broadcast = mail.bare_id(mail.part(item, "data", "broadcast_id"))
    if rules.send_id == "campaign" and broadcast:
        return broadcast
    return mail.bare_id(mail.part(item, "data", "email_id"))

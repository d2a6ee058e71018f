"""Source `resend`: Resend's webhooks, one JSON object for each event.

Words and fields: https://resend.com/docs/webhooks/event-types. Signed as Svix does, with
RESEND_SIGNING_SECRET: https://resend.com/docs/webhooks/verify-webhooks-requests.
After any answer but 2xx Resend calls again: after 5 s, 5 and 30 min, 2, 5, 10 and 10 h, under the
same `svix-id` and signed anew.
What may go wrong: a message to several people, copies included, names all of them in each of its events and
never the one it is about; `data.created_at` is the message's time, not the event's; addresses come with names;
older bounces hold nothing but a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, MailEvent, Outcome, Reason, Unreadable
from pipeline.sources import Rules, mail, signatures
from pipeline.sources.json_sender import JsonSender

_SECRET = "RESEND_SIGNING_SECRET"  # noqa: S105 - the setting's name
_EVENT_ID = "svix-id"

# `email.sent`, `email.delivered` (SEND_FROM), `email.delivery_delayed` (DEFERRAL_AS) and
# `email.bounced` (its type) are decided in `_verdict`
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

_HARD = ("permanent",)
_NOT_TRIED = ("suppressed", "onaccountsuppressionlist")
_SENTENCE_NOT_TRIED = re.compile(r"suppressed sending", re.IGNORECASE)
_SENTENCE_LISTED = re.compile(r"suppression list", re.IGNORECASE)
_SENTENCE_HARD = re.compile(r"hard bounce", re.IGNORECASE)
# https://resend.com/docs/api-reference/emails/send-email allows so many; each is a copy of the event
_MOST_RECIPIENTS = 50


def _items(body: object) -> list[object]:
    """Return the event, and `email.sent` once for each recipient, with that one alone in `to`."""
    if not isinstance(body, dict) or "type" not in body:
        raise Unreadable(Reason.UNKNOWN_SHAPE, "not one event of Resend: type is missing")
    if body["type"] != _SENT:
        return [body]
    data = mail.section(body, "data")
    people = _each_once(_listed(data.get("to")))
    if 1 < len(people) <= _MOST_RECIPIENTS:
        return [{**body, "data": {**data, "to": [one]}} for one in people]
    return [body]


def _has_others(data: Mapping[str, object]) -> bool:
    """Tell whether the message went to more than one, of whom any may have caused the event."""
    written: list[object] = []
    for field in ("to", "cc", "bcc"):
        if (found := data.get(field)) is not None:
            written += _listed(found)
    if headers := data.get("headers"):
        written += _copied(_listed(headers))
    return len(written) > 1 and len(_each_once([one for one in written if one is not None])) > 1


def _copied(headers: list[object]) -> Iterator[str]:
    for header in headers:
        if mail.text(mail.part(header, "name")).lower() in ("cc", "bcc"):
            yield from mail.text(mail.part(header, "value")).split(",")


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _each_once(written: list[object]) -> list[object]:
    if len(written) < 2:
        return written
    people: dict[object, object] = {}
    for position, one in enumerate(written):
        # what is no text is wrong, and counted by its place
        people.setdefault(mail.bare_address(one).lower() if isinstance(one, str) else position, one)
    return list(people.values())


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = mail.word(item, "type")
    verdict = _verdict(name, item, rules)
    if not isinstance(verdict, EventType):
        return verdict
    data = mail.section(item, "data")
    people = _listed(data.get("to"))
    if name != _SENT:
        if _has_others(data):
            return mail.SEVERAL_RECIPIENTS
    elif len(_each_once(people)) > 1:
        raise mail.Wrong(f"there are more than {_MOST_RECIPIENTS} recipients")
    click = mail.section(data, "click")
    return {
        "type": verdict,
        "email": people[0] if people else None,
        "time": item.get("created_at"),
        "send_id": mail.send_id(
            rules,
            campaign=(data.get("broadcast_id"),),
            message=(data.get("email_id"),),
        ),
        "ip": click.get("ipAddress"),
        "user_agent": click.get("userAgent"),
    }


def _verdict(name: str, item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in (_SENT, "email.delivered"):
        return mail.send_when("accepted" if name == _SENT else "delivered", rules)
    if name == "email.bounced":
        return _bounce(mail.section(mail.section(item, "data"), "bounce"))
    if name == "email.delivery_delayed":
        return mail.deferral(rules)
    if name.partition(".")[0] in _OTHER_OBJECTS:
        return mail.NOT_A_MAIL_EVENT
    return _IGNORED.get(name, mail.UNMAPPED)


def _bounce(bounce: Mapping[str, object]) -> mail.Verdict:
    # https://resend.com/docs/dashboard/emails/email-bounces: type and subType are Amazon SES's words
    sentence = mail.text(bounce.get("message"))
    finer = mail.text(bounce.get("subType")).lower()
    if finer in _NOT_TRIED or _SENTENCE_NOT_TRIED.search(sentence):
        return mail.SUPPRESSED
    if not finer and _SENTENCE_LISTED.search(sentence):
        return mail.SUPPRESSED
    if kind := mail.text(bounce.get("type")).lower():
        return EventType.HARD_BOUNCE if kind in _HARD else EventType.SOFT_BOUNCE
    if _SENTENCE_HARD.search(sentence):
        return EventType.HARD_BOUNCE
    return mail.bounce_by_status(*_listed(bounce.get("diagnosticCode")), sentence)


def _verify(
    headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> None:
    """Raise `Unauthentic` unless Resend signed *body* not more than five minutes ago."""
    if secret := secrets.get(_SECRET):
        signatures.check_svix(headers, body, secret, now)


class _Resend(JsonSender):
    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one outcome, or one for each recipient of `email.sent`.

        Each recipient may have a call of `email.sent` of its own, also who gets a copy, that names all in `to`:
        the message's id recognises a Send as the same, the call's would not.
        """
        outcomes = super().parse(delivery, rules, now)
        for event in outcomes:
            if isinstance(event, MailEvent) and event.type is not EventType.SEND:
                event.provider_id = mail.text(delivery.headers.get(_EVENT_ID)) or None
        return outcomes


RESEND = _Resend("resend", _items, _read, _verify, keeps_headers=frozenset((_EVENT_ID,)))

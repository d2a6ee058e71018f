"""Source `iterable`: Iterable's system webhooks, one JSON object for each event.

Words and fields: https://support.iterable.com/hc/en-us/articles/208013936-System-Webhooks.

Authentication: our token, as the `Authorization` that is typed in beside the URL, or in the URL.
Iterable tries a few times after an answer that is not 2xx, then the event is gone: it does not
promise to deliver.
What may go wrong: old bodies have no `messageId`, only the campaign's; of a bounce `recipientState`
tells which; the times have a blank before their zone; a project that knows its people by an id of
their own may send no address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Reason, Unreadable
from pipeline.sources import Rules, mail
from pipeline.sources.json_body import as_sent, check_json, read_json

# `emailBounce` (its state) needs a look
_TYPES = {
    "emailSend": EventType.SEND,  # the only one that tells of a sending: SEND_FROM has no choice
    "emailOpen": EventType.OPEN,
    "emailClick": EventType.CLICK,
    "emailComplaint": EventType.COMPLAINT,
    "emailUnSubscribe": EventType.UNSUBSCRIBE,
}
_IGNORED = {
    "emailSendSkip": mail.SUPPRESSED,
    "emailSubscribe": mail.NOT_A_MAIL_EVENT,
    "hostedUnsubscribeClick": mail.NOT_A_MAIL_EVENT,  # the page was asked for; `emailUnSubscribe` follows
}
# names of the other channels begin with these
_CHANNELS = ("sms", "push", "webPush", "inApp", "embedded", "whatsApp", "journey")


class Iterable:
    """The source `iterable`."""

    name = "iterable"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Accept everything: Iterable signs nothing, it shows the token it was given."""

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return the one `MailEvent`, `Ignored` or `Invalid` of the body."""
        outcomes = [_outcome(item, rules, now) for item in _items(read_json(delivery.body))]
        return as_sent(outcomes, delivery.body, _items)


ITERABLE = Iterable()


def _items(body: object) -> list[dict[str, object]]:
    if isinstance(body, dict) and "eventName" in body:
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "no eventName: not one event")


def _outcome(item: Mapping[str, object], rules: Rules, now: float) -> Outcome:
    name = item.get("eventName")
    if not isinstance(name, str):
        return mail.invalid("eventName is not a string", item)
    verdict = _verdict(name, item)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    told = mail.Told(
        type=verdict,
        email=_field(item, "email"),
        time=_field(item, "createdAt"),
        send_id=_send_id(item, rules),
        ip=_field(item, "ip"),
        user_agent=_field(item, "userAgent"),
        # a proxy of Gmail's or Yahoo's, or a robot (`isBot`), is not Apple's opening beforehand
        machine_open="apple" in mail.text(_field(item, "proxySource")).lower(),
    )
    return mail.event_of(told, item, now)


def _field(item: Mapping[str, object], name: str) -> object:
    # the address stands outside, the event's own fields inside; neither has always been so
    inner, outer = mail.part(item, "dataFields", name), item.get(name)
    return outer if inner is None or (name == "email" and mail.text(outer)) else inner


def _verdict(name: str, item: Mapping[str, object]) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name == "emailBounce":
        soft = "soft" in mail.text(_field(item, "recipientState")).lower()
        return EventType.SOFT_BOUNCE if soft else EventType.HARD_BOUNCE
    if name.startswith(_CHANNELS):
        return mail.NOT_A_MAIL_EVENT
    return _IGNORED.get(name, mail.UNMAPPED)


def _send_id(item: Mapping[str, object], rules: Rules) -> str:
    message, campaign = (mail.bare_id(_field(item, name)) for name in ("messageId", "campaignId"))
    return (campaign or message) if rules.send_id == "campaign" else (message or campaign)

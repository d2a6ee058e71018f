"""Source `mailjet`: Mailjet's Event API, one JSON object, or an array when events are grouped.

Words, fields and the two versions: https://dev.mailjet.com/email/guides/webhooks/.
Mailjet signs nothing: our token authenticates it, in the path or as the password of the URL.
It wants exactly 200; after any other answer it repeats the call every 30 seconds for 24 hours and then
gives the URL up: https://documentation.mailjet.com/hc/en-us/articles/360043578154-Event-Tracking-API.
What may go wrong: `MessageID` is a number beyond 2^53, which a reader through doubles changes into that of
another message (orjson keeps integers up to 64 bits exact); 0 stands for "no id"; `bounce` with the error
`greylisted` is no bounce yet; events of one group are of several types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Rules, mail
from pipeline.sources.json_body import as_sent, check_json, read_json

# `bounce` and `sent` need a look
_TYPES = {
    "open": EventType.OPEN,
    "click": EventType.CLICK,
    "spam": EventType.COMPLAINT,
    "unsub": EventType.UNSUBSCRIBE,
}
_IGNORED = {"blocked": mail.SUPPRESSED}  # never handed to the recipient's server
# The second is deprecated: the same number as text, alone in old documented samples.
_IDS = ("MessageID", "mj_message_id", "Message_GUID")
# documented as a boolean; without it nothing says that the address is dead
_YES = (True, "true", "True", "1")


class Mailjet:
    """The source `mailjet`."""

    name = "mailjet"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Accept everything: Mailjet signs nothing, our token is the proof."""

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body."""
        items = _items(read_json(delivery.body))
        if not items:
            raise Probe("an empty group")
        return as_sent([_outcome(item, rules, now) for item in items], delivery.body, _items)


MAILJET = Mailjet()


def _items(body: object) -> list[object]:
    if isinstance(body, list):
        return body
    if isinstance(body, dict) and "event" in body:
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither one event nor an array of events")


def _outcome(item: object, rules: Rules, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    name = item.get("event")
    if not isinstance(name, str):
        return mail.invalid("event is missing or not a string", item)
    verdict = _bounce(item, rules) if name == "bounce" else _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    told = mail.Told(
        type=verdict,
        email=item.get("email"),
        time=item.get("time"),
        send_id=_send_id(item, rules),
        ip=item.get("ip"),
        user_agent=item.get("agent"),
    )
    return mail.event_of(told, item, now)


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name == "sent":  # the recipient's server took it; nothing tells of the acceptance by Mailjet
        return mail.send_when("delivered", rules, usual="delivered")
    return _TYPES.get(name) or _IGNORED.get(name, mail.UNMAPPED)


def _bounce(item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    if item.get("hard_bounce") in _YES:
        return EventType.HARD_BOUNCE
    # "This is a temporary error ... Delivery will be re-attempted", says the table of errors in
    # https://github.com/mailjet/api-documentation/blob/master/guides/_event-api.md
    if mail.text(item.get("error")).lower() == "greylisted":
        return mail.deferral(rules)
    return EventType.SOFT_BOUNCE


def _send_id(item: Mapping[str, object], rules: Rules) -> str:
    if rules.send_id == "campaign" and (campaign := _id(item.get("mj_campaign_id"))):
        return campaign
    return next((found for field in _IDS if (found := _id(item.get(field)))), "")


def _id(value: object) -> str:
    found = mail.bare_id(value)
    return "" if found == "0" else found

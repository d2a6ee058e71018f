"""Source `braze`: Braze Currents with the custom HTTP connector, `{"events": [...]}` of many messages.

Words and fields: https://www.braze.com/docs/user_guide/data/distribution/braze_currents/event_glossary/message_engagement_events/.
Connector: https://www.braze.com/docs/user_guide/data/distribution/braze_currents/setting_up_currents/custom_http_connector/.

Authentication: our token, as the bearer token that is typed in beside the URL. An empty batch is how
Braze tries whether the token is taken. It repeats a batch that was not answered 2xx for a day and
more; after five days of failures it switches the Current off.
What may go wrong: `dispatch_id` is shared by all who got a scheduled message; `sending_ip` is the
sender's server; `machine_open` is the text "true"; a hard bounce may be an address Braze itself dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Rules, mail
from pipeline.sources.json_body import as_sent, check_json, read_json

_MAIL = "users.messages.email."

# what follows `users.messages.email.`; `Send`, `Delivery` (SEND_FROM) and `Bounce` (`is_drop`) need a look
_TYPES = {
    "Open": EventType.OPEN,
    "Click": EventType.CLICK,
    "SoftBounce": EventType.SOFT_BOUNCE,
    "MarkAsSpam": EventType.COMPLAINT,
    "Unsubscribe": EventType.UNSUBSCRIBE,
}
_IGNORED = {"Abort": mail.SUPPRESSED}


class Braze:
    """The source `braze`."""

    name = "braze"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Accept everything: Braze signs nothing, it shows the token it was given."""

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event; an empty batch is a probe."""
        items = _items(read_json(delivery.body))
        if not items:
            raise Probe("an empty batch: Braze tries its token")
        outcomes = [_outcome(item, rules, now) for item in items]
        return as_sent(outcomes, delivery.body, _items)


BRAZE = Braze()


def _items(body: object) -> list[object]:
    events = mail.part(body, "events")
    if isinstance(events, list):
        return events
    raise Unreadable(Reason.UNKNOWN_SHAPE, "no array `events`")


def _outcome(item: object, rules: Rules, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    name = item.get("event_type")
    if not isinstance(name, str):
        return mail.invalid("event_type is missing or not a string", item)
    verdict = _verdict(name, item, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    told = mail.Told(
        type=verdict,
        email=mail.part(item, "properties", "email_address"),
        time=item.get("time"),
        send_id=_send_id(item, rules),
        provider_id=item.get("id"),
        user_agent=mail.part(item, "properties", "user_agent"),
        machine_open=_is_machine(mail.part(item, "properties", "machine_open")),
    )
    return mail.event_of(told, item, now)


def _verdict(name: str, item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    word = name.removeprefix(_MAIL)
    if word == name:
        # other channels (`users.messages.push.Open`) and what people do (`users.behaviors...`)
        return mail.NOT_A_MAIL_EVENT if name.startswith("users.") else mail.UNMAPPED
    if word in ("Send", "Delivery"):
        return mail.send_when("accepted" if word == "Send" else "delivered", rules)
    if word == "Bounce":
        dropped = mail.part(item, "properties", "is_drop") is True
        return mail.SUPPRESSED if dropped else EventType.HARD_BOUNCE
    return _TYPES.get(word) or _IGNORED.get(word, mail.UNMAPPED)


def _is_machine(value: object) -> bool:
    # "true" or null; the glossary reserves the right to name the machine ("Apple") instead
    return value is True or mail.text(value).lower() not in ("", "0", "false", "null", "no")


def _send_id(item: Mapping[str, object], rules: Rules) -> str:
    # `send_id` is an identifier that marketers may set; clicks outside of campaigns have no dispatch_id
    fields = ["dispatch_id", "send_id"]
    if rules.send_id == "campaign":
        fields = ["campaign_id", "canvas_id", *fields]
    for field in fields:
        if found := mail.bare_id(mail.part(item, "properties", field)):
            return found
    return ""

"""Source `braze`: Braze Currents with the custom HTTP connector, `{"events": [...]}` of many messages.

Words and fields: https://www.braze.com/docs/user_guide/data/distribution/braze_currents/event_glossary/message_engagement_events/.
Connector: https://www.braze.com/docs/user_guide/data/distribution/braze_currents/setting_up_currents/custom_http_connector/.

Authentication: our token, as the bearer token that is typed in beside the URL. An empty batch is how
Braze tries whether the token is taken. It repeats a batch that was not answered 2xx for a day and
more; after five days of failures it switches the Current off.
What may go wrong: `dispatch_id` is shared by all who got a scheduled message; `sending_ip` is the
sender's server; `machine_open` is the text "true"; a hard bounce with `is_drop` is a message that was dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.outcomes import EventType, Reason, Unreadable
from pipeline.sources import Rules, mail
from pipeline.sources.json_sender import JsonSender

_MAIL = "users.messages.email."

# what follows `users.messages.email.`; `Send`, `Delivery` (SEND_FROM), `Deferral` (DEFERRAL_AS) and `Bounce`
# (`is_drop`) are decided in `_verdict`
_TYPES = {
    "Open": EventType.OPEN,
    "Click": EventType.CLICK,
    "SoftBounce": EventType.SOFT_BOUNCE,
    "MarkAsSpam": EventType.COMPLAINT,
    "Unsubscribe": EventType.UNSUBSCRIBE,
}
_IGNORED = {"Abort": mail.SUPPRESSED}


def _items(body: object) -> list[object]:
    events = mail.part(body, "events")
    if isinstance(events, list):
        return events
    if (
        isinstance(body, dict) and "event_type" in body
    ):  # one event comes back from the dead letters alone
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither an array `events` nor one event")


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = mail.word(item, "event_type")
    properties = mail.section(item, "properties")
    verdict = _verdict(name, properties, rules)
    if not isinstance(verdict, EventType):
        return verdict
    return {
        "type": verdict,
        "email": properties.get("email_address"),
        "time": item.get("time"),
        "send_id": mail.send_id(
            rules,
            campaign=(properties.get("campaign_id"), properties.get("canvas_id")),
            # marketers may set `send_id`, which SEND_ID does not choose; clicks outside of campaigns have no
            # dispatch_id
            message=(properties.get("dispatch_id"), properties.get("send_id")),
        ),
        "provider_id": item.get("id"),
        "user_agent": properties.get("user_agent"),
        "machine_open": _is_machine(properties.get("machine_open")),
    }


def _verdict(name: str, properties: Mapping[str, object], rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    word = name.removeprefix(_MAIL)
    if word == name:
        # other channels (`users.messages.push.Open`) and what people do (`users.behaviors...`)
        return mail.NOT_A_MAIL_EVENT if name.startswith("users.") else mail.UNMAPPED
    if word in ("Send", "Delivery"):
        return mail.send_when("accepted" if word == "Send" else "delivered", rules)
    if word == "Bounce":
        dropped = mail.is_true(properties.get("is_drop"))
        return mail.SUPPRESSED if dropped else EventType.HARD_BOUNCE
    if word == "Deferral":
        return mail.deferral(rules)
    return _TYPES.get(word) or _IGNORED.get(word, mail.UNMAPPED)


def _is_machine(value: object) -> bool:
    # "true" or null; the glossary reserves the right to name the machine instead ("Apple", "Google"): Gmail's
    # proxy loads pictures for people
    return mail.is_true(value) or "apple" in mail.text(value).lower()


BRAZE = JsonSender("braze", _items, _read)

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

from pipeline.outcomes import EventType
from pipeline.sources import Rules, mail
from pipeline.sources.json_sender import JsonSender, one_or_many

# `bounce` is decided in `_bounce`, `sent` in `_verdict`
_TYPES = {
    "open": EventType.OPEN,
    "click": EventType.CLICK,
    "spam": EventType.COMPLAINT,
    "unsub": EventType.UNSUBSCRIBE,
}
_IGNORED = {"blocked": mail.SUPPRESSED}  # never handed to the recipient's server
# The second is deprecated: the same number as text, alone in old documented samples.
_IDS = ("MessageID", "mj_message_id", "Message_GUID")


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = mail.word(item, "event")
    verdict = _bounce(item, rules) if name == "bounce" else _verdict(name, rules)
    if not isinstance(verdict, EventType):
        return verdict
    return {
        "type": verdict,
        "email": item.get("email"),
        "time": item.get("time"),
        "send_id": mail.send_id(
            rules,
            campaign=(item.get("mj_campaign_id"),),
            message=map(item.get, _IDS),
        ),
        "ip": item.get("ip"),
        "user_agent": item.get("agent"),
    }


def _verdict(name: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name == "sent":  # the recipient's server took it; nothing tells of the acceptance by Mailjet
        return mail.send_when("delivered", rules, usual="delivered")
    return _TYPES.get(name) or _IGNORED.get(name, mail.UNMAPPED)


def _bounce(item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    verdict = item.get("hard_bounce")
    if mail.is_true(verdict):
        return EventType.HARD_BOUNCE
    # "This is a temporary error ... Delivery will be re-attempted", says the table of errors in
    # https://github.com/mailjet/api-documentation/blob/master/guides/_event-api.md
    if mail.text(item.get("error")).lower() == "greylisted":
        return mail.deferral(rules)
    if verdict is None:
        return mail.bounce_by_status(item.get("comment"), item.get("error"))
    return EventType.SOFT_BOUNCE


MAILJET = JsonSender("mailjet", one_or_many("event"), _read)

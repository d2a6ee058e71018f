"""Source `iterable`: Iterable's system webhooks, one JSON object for each event.

Words and fields: https://support.iterable.com/hc/en-us/articles/208013936-System-Webhooks.

Authentication: our token, as the `Authorization` that is typed in beside the URL (Iterable sends it as it is,
or with another word before it than `Bearer`), or in the URL.
Iterable tries a few times after an answer that is not 2xx, then the event is gone: it does not
promise to deliver.
What may go wrong: old bodies have no `messageId`, only the campaign's; of a bounce `recipientState`
tells which; the times have a blank before their zone; a project that knows its people by an id of
their own may send no address; a field inside `dataFields` that is there and empty hides the one of its name
outside, but for the address.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.outcomes import EventType
from pipeline.sources import Rules, mail
from pipeline.sources.json_sender import JsonSender, one_event

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


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = mail.word(item, "eventName")
    verdict = _verdict(name, item)
    if not isinstance(verdict, EventType):
        return verdict
    inner = mail.section(item, "dataFields")
    campaign = _field(inner, item, "campaignId")
    told: mail.Told = {
        "type": verdict,
        # the address stands outside, the event's own fields inside; neither has always been so
        "email": mail.text(item.get("email")) or _field(inner, item, "email"),
        "time": _field(inner, item, "createdAt"),
        "send_id": mail.send_id(
            rules, campaign=(campaign,), message=(_field(inner, item, "messageId"), campaign)
        ),
    }
    if name != "emailSend":
        told["ip"] = _field(inner, item, "ip")
        told["user_agent"] = _field(inner, item, "userAgent")
        # a proxy of Gmail's or Yahoo's, or a robot (`isBot`), is not Apple's opening beforehand
        told["machine_open"] = "apple" in mail.text(_field(inner, item, "proxySource")).lower()
    return told


def _field(inner: Mapping[str, object], item: Mapping[str, object], name: str) -> object:
    found = inner.get(name)
    return item.get(name) if found is None or found == "" else found


def _verdict(name: str, item: Mapping[str, object]) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name == "emailBounce":
        state = _field(mail.section(item, "dataFields"), item, "recipientState")
        soft = "soft" in mail.text(state).lower()
        return EventType.SOFT_BOUNCE if soft else EventType.HARD_BOUNCE
    if name.startswith(_CHANNELS):
        return mail.NOT_A_MAIL_EVENT
    return _IGNORED.get(name, mail.UNMAPPED)


ITERABLE = JsonSender("iterable", one_event("eventName"), _read)

"""Source `postmark`: Postmark's webhooks, one JSON object a call, told apart by its `RecordType`.

Words and fields: https://postmarkapp.com/developer/webhooks/webhooks-overview and the pages beside it;
bounce types: https://postmarkapp.com/developer/api/bounce-api#bounce-types.
What may go wrong: each kind has its time and its address under another name; a hard bounce or a complaint
comes a second time as `SubscriptionChange`; who was suppressed by hand or by the API (`Origin` `Customer` or
`Admin`) left no message, and that change names none: it bears the id `subscription-change`, the same for all;
older bodies have no `RecordType`; `FirstOpen` says nothing of machines. There is no webhook for "accepted":
only `Delivery` can be the Send, so with SEND_FROM=accepted there is none.
Postmark signs nothing. It authenticates by our token, as password or at the end of the URL. After
anything but 200 it repeats ten times in some ten hours; 403 makes it stop.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from pipeline.outcomes import EventType, Reason, Unreadable
from pipeline.sources import Rules, mail
from pipeline.sources.json_sender import JsonSender

# `Delivery` (SEND_FROM), `Bounce` (its type) and `SubscriptionChange` (why) are decided in `_verdict`
_TYPES = {
    "Open": EventType.OPEN,
    "Click": EventType.CLICK,
    "SpamComplaint": EventType.COMPLAINT,
}
_IGNORED = {"Inbound": mail.NOT_A_MAIL_EVENT}
_TIMES = {
    "Delivery": "DeliveredAt",
    "Bounce": "BouncedAt",
    "SpamComplaint": "BouncedAt",
    "Open": "ReceivedAt",
    "Click": "ReceivedAt",
    "SubscriptionChange": "ChangedAt",
}
# what tells the kind of a body without RecordType, in this order: a field that only one kind has
_KINDS_BY_FIELD = (
    ("DeliveredAt", "Delivery"),
    ("BouncedAt", "Bounce"),
    ("FirstOpen", "Open"),
    ("OriginalLink", "Click"),
    ("SuppressSending", "SubscriptionChange"),
    ("FromFull", "Inbound"),
)
_BOUNCES: dict[str, mail.Verdict] = {
    **dict.fromkeys(("HardBounce", "BadEmailAddress"), EventType.HARD_BOUNCE),
    **dict.fromkeys(
        (
            *("SoftBounce", "Transient", "DnsError", "Blocked"),
            *("DMARCPolicy", "VirusNotification", "SpamNotification"),
        ),
        EventType.SOFT_BOUNCE,
    ),
    "Unsubscribe": EventType.UNSUBSCRIBE,
    "SpamComplaint": EventType.COMPLAINT,
    # never handed to the recipient's server
    **dict.fromkeys(
        ("ManuallyDeactivated", "Unconfirmed", "SMTPApiError", "TemplateRenderingFailed"),
        mail.SUPPRESSED,
    ),
    # answers of people and machines, and what says nothing of the address
    **dict.fromkeys(
        (
            *("AutoResponder", "AddressChange", "Subscribe", "OpenRelayTest"),
            *("ChallengeVerification", "Unknown", "InboundError"),
        ),
        mail.NOT_A_MAIL_EVENT,
    ),
}
# The codes of the types, for a bounce that names its code only: the same page
_TYPE_CODES = {
    **{"1": "HardBounce", "2": "Transient", "16": "Unsubscribe", "32": "Subscribe"},
    **{"64": "AutoResponder", "128": "AddressChange", "256": "DnsError", "512": "SpamNotification"},
    **{"1024": "OpenRelayTest", "2048": "Unknown", "4096": "SoftBounce"},
    **{"8192": "VirusNotification", "16384": "ChallengeVerification", "100000": "BadEmailAddress"},
    **{"100001": "SpamComplaint", "100002": "ManuallyDeactivated", "100003": "Unconfirmed"},
    **{"100006": "Blocked", "100007": "SMTPApiError", "100008": "InboundError"},
    **{"100009": "DMARCPolicy", "100010": "TemplateRenderingFailed"},
}
# Why somebody gets no more mail: https://postmarkapp.com/developer/webhooks/subscription-change-webhook.
# A bounce and a complaint have been told by their own webhooks.
_SUPPRESSIONS: dict[str, mail.Verdict] = {
    "ManualSuppression": EventType.UNSUBSCRIBE,
    "HardBounce": mail.NOT_A_MAIL_EVENT,
    "SpamComplaint": mail.NOT_A_MAIL_EVENT,
}
# the id of the Unsubscribe of somebody who was suppressed by hand: there is no message
_BY_HAND = "subscription-change"
_BROWSERS = re.compile(
    r"\b(?:chrome|chromium|firefox|safari|edge|ie|internet explorer|opera(?! mail)|vivaldi|brave"
    r"|samsung|silk|konqueror|seamonkey|duckduckgo|browser|qqbrowser|android webkit|coc coc|dolphin|epiphany|iron"
    r"|maxthon|pale moon|puffin|sogou explorer|whale)\b",
    re.IGNORECASE,
)
_BY_THE_PERSON = (EventType.OPEN, EventType.CLICK, EventType.UNSUBSCRIBE)
# WebMail and Unknown are platforms too, but no machines
_DEVICES = frozenset(("Desktop", "Mobile", "Tablet"))


def _items(body: object) -> list[object]:
    if isinstance(body, dict) and (body.get("RecordType") is not None or _kind_of_old(body)):
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "not one event: neither a RecordType nor a known field")


def _kind_of_old(item: Mapping[str, object]) -> str | None:
    return next((kind for field, kind in _KINDS_BY_FIELD if field in item), None)


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    kind = item.get("RecordType")
    if kind is None:
        kind = _kind_of_old(item)
    if not isinstance(kind, str):
        raise mail.Wrong("RecordType is not a string")
    verdict = _verdict(kind, item, rules)
    if not isinstance(verdict, EventType):
        return verdict
    return _told(kind, verdict, item)


def _verdict(kind: str, item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "Delivery":
        return mail.send_when("delivered", rules, usual="delivered")
    if kind == "Bounce":
        return _bounce(item)
    if kind == "SubscriptionChange":
        return _subscription_change(item)
    return _IGNORED.get(kind, mail.UNMAPPED)


def _bounce(item: Mapping[str, object]) -> mail.Verdict:
    word = mail.text(item.get("Type")) or _TYPE_CODES.get(mail.text(item.get("TypeCode")))
    if word:
        return _BOUNCES.get(word, mail.UNMAPPED)
    # it quotes the other server: "smtp;550 5.1.1 The email account ..."
    return mail.bounce_by_status(item.get("Details"))


def _subscription_change(item: Mapping[str, object]) -> mail.Verdict:
    if not mail.is_true(item.get("SuppressSending")):
        return mail.NOT_A_MAIL_EVENT  # somebody gets mail again
    return _SUPPRESSIONS.get(mail.text(item.get("SuppressionReason")), mail.UNMAPPED)


def _told(kind: str, verdict: EventType, item: Mapping[str, object]) -> mail.Told:
    told: mail.Told = {
        "type": verdict,
        # Email on bounces and complaints, Recipient on everything else
        "email": item.get("Email") or item.get("Recipient"),
        "time": item.get(_TIMES[kind]),
        # Postmark has no campaigns: SEND_ID changes nothing
        "send_id": mail.first_id(
            (item.get("MessageID"), _BY_HAND if kind == "SubscriptionChange" else None)
        ),
        "provider_id": item.get("ID"),  # of the bounce; nothing else has an id of its own
    }
    if verdict in _BY_THE_PERSON:
        _add_person(told, item)
    return told


def _add_person(told: mail.Told, item: Mapping[str, object]) -> None:
    told["ip"], told["user_agent"] = mail.section(item, "Geo").get("IP"), item.get("UserAgent")
    program = mail.section(item, "Client")
    name, family = program.get("Name"), mail.text(program.get("Family"))
    if family.lower() in ("", "unknown"):
        family = mail.text(name)
    told["client"], told["browser"] = mail.client_or_browser(name, is_browser=_is_browser(family))
    told["os"] = mail.section(item, "OS").get("Name")
    platform = mail.text(item.get("Platform"))
    told["device"] = platform if platform in _DEVICES else None


@lru_cache(maxsize=1024)  # few programs are in use
def _is_browser(family: str) -> bool:
    return _BROWSERS.search(family) is not None


POSTMARK = JsonSender("postmark", _items, _read)

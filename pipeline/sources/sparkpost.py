"""Source `sparkpost`: SparkPost's event webhooks, a JSON array of `{"msys": {class: event}}`.

Words and fields: https://developers.sparkpost.com/api/webhooks/#header-webhook-event-types.
It signs nothing: our token proves the caller, as basic or bearer credentials, as a header or in the URL.
It waits 10 seconds and repeats everything but a 200 (so a 4xx like a 5xx) 12 times within 8 hours, then the
events are lost; a repeated batch keeps its `event_id`s. It calls the ports 80 and 443 only.
What may go wrong: a batch is not in the order of time; `ip_address` is the person's only on what they did and
the receiving server's on the others; one transmission can hold two messages to one address, which only
`message_id` tells apart, and not every event has either id.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.outcomes import EventType, Probe
from pipeline.sources import Rules, mail
from pipeline.sources.json_sender import JsonSender, one_or_many
from pipeline.sources.user_agents import is_mail_program

# `injection`, `delivery` (SEND_FROM), `delay` (DEFERRAL_AS), bounces and complaints are decided in `_verdict`
_TYPES = {
    "open": EventType.OPEN,
    "amp_open": EventType.OPEN,
    "click": EventType.CLICK,
    "amp_click": EventType.CLICK,
    "list_unsubscribe": EventType.UNSUBSCRIBE,
    "link_unsubscribe": EventType.UNSUBSCRIBE,
}
_IGNORED = {
    # the same opening once more, told by the pixel at the top of the mail
    "initial_open": mail.REPEATED,
    "amp_initial_open": mail.REPEATED,
    # never handed to the recipient's server: neither Send nor bounce
    "policy_rejection": mail.SUPPRESSED,
    "generation_failure": mail.SUPPRESSED,
    "generation_rejection": mail.SUPPRESSED,
    "sms_status": mail.NOT_A_MAIL_EVENT,
}
# mail that comes in, A/B tests and uploads: whatever their types are called
_OTHER_CLASSES = frozenset(("relay_event", "relay_message", "ab_test_event", "ingest_event"))
_BOUNCES = frozenset(("bounce", "out_of_band"))
# https://support.sparkpost.com/docs/deliverability/bounce-classification-codes
_BOUNCE_CLASSES: dict[str, mail.Verdict] = {
    **dict.fromkeys(("10", "30"), EventType.HARD_BOUNCE),  # no such recipient, no such domain
    **dict.fromkeys(("1", "20", "21", "22", "23", "24", "40", "70"), EventType.SOFT_BOUNCE),
    **dict.fromkeys(("50", "51", "52", "53", "54"), EventType.SOFT_BOUNCE),
    "90": EventType.UNSUBSCRIBE,  # a mail that asks to be taken off the list
    "25": mail.SUPPRESSED,  # refused by the sender's own settings
    # an automatic reply, a mail that subscribes, a challenge: the mail did arrive
    **dict.fromkeys(("60", "80", "100"), mail.NOT_A_MAIL_EVENT),
}
# mail programs unsubscribe (`list_unsubscribe`) by a server of their own
_BY_THE_PERSON = frozenset(("open", "amp_open", "click", "amp_click", "link_unsubscribe"))


_array_or_one = one_or_many("msys")


def _items(body: object) -> list[object]:
    items = _array_or_one(body)
    # creating a webhook posts one empty `msys`, and wants a 200 for it
    if all(_is_ping(item) for item in items):
        raise Probe
    return items


def _is_ping(item: object) -> bool:
    return mail.part(item, "msys") == {}


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    msys = item.get("msys")
    if msys == {}:
        return mail.NOT_A_MAIL_EVENT
    if not isinstance(msys, dict):
        raise mail.Wrong("msys is missing or not an object")
    kind, event = next(iter(msys.items()))
    if kind in _OTHER_CLASSES:
        return mail.NOT_A_MAIL_EVENT
    event = event if isinstance(event, dict) else {}
    name = mail.word(event, "type")
    verdict = _verdict(name, event, rules)
    if not isinstance(verdict, EventType):
        return verdict
    told: mail.Told = {
        "type": verdict,
        # rcpt_to is lower-cased by SparkPost
        "email": mail.text(event.get("raw_rcpt_to")) or event.get("rcpt_to"),
        "time": event.get("timestamp"),
        "send_id": mail.send_id(
            rules,
            campaign=(event.get("campaign_id"),),
            # the oldest events have no message_id, and out_of_band has no transmission_id
            message=(event.get("message_id"), event.get("transmission_id")),
        ),
        "provider_id": event.get("event_id"),
    }
    if name in _BY_THE_PERSON:
        _add_person(told, event)
    return told


def _verdict(name: str, event: Mapping[str, object], rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in ("injection", "delivery"):
        return mail.send_when("accepted" if name == "injection" else "delivered", rules)
    if name in _BOUNCES:
        # a class that nobody has told us of is judged by what the server answered
        verdict = _BOUNCE_CLASSES.get(mail.text(event.get("bounce_class")))
        said = map(event.get, ("error_code", "raw_reason", "reason"))
        return verdict or mail.bounce_by_status(*said)
    if name == "delay":
        return mail.deferral(rules)
    if name == "spam_complaint":
        # the feedback may also say that the mail was wrongly taken for spam
        is_spam = mail.text(event.get("fbtype")).lower() != "not-spam"
        return EventType.COMPLAINT if is_spam else mail.NOT_A_MAIL_EVENT
    return mail.NOT_A_MAIL_EVENT if name.startswith("relay_") else _IGNORED.get(name, mail.UNMAPPED)


def _add_person(told: mail.Told, event: Mapping[str, object]) -> None:
    told["ip"], told["user_agent"] = event.get("ip_address"), event.get("user_agent")
    parsed = mail.section(event, "user_agent_parsed")
    # Apple's proxy loads pictures before anybody looks; other proxies (is_proxy) load them for people
    told["machine_open"] = mail.is_true(parsed.get("is_prefetched"))
    # SparkPost names the program without saying of which kind it is
    program = parsed.get("agent_family")
    told["client"], told["browser"] = mail.client_or_browser(
        program, is_browser=not is_mail_program(mail.text(program))
    )
    if not mail.is_true(parsed.get("is_proxy")):  # else the machine is the proxy's
        told["os"] = parsed.get("os_family")
        told["device"] = mail.mobile_or_desktop(parsed.get("is_mobile"))


SPARKPOST = JsonSender("sparkpost", _items, _read)

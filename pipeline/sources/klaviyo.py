"""Source `klaviyo`: Klaviyo's system webhooks, up to 1 000 events of many people in one call.

Envelope and signature: https://developers.klaviyo.com/en/docs/system-webhooks. Each `payload` is an
answer of https://developers.klaviyo.com/en/reference/get_event. Signed with HMAC-SHA256 of the raw
body and the header `Klaviyo-Timestamp` after it, under KLAVIYO_SIGNING_KEY.
Klaviyo wants 2xx within five seconds, calls again after ever longer pauses of at most an hour, and
disables a webhook that has failed for 48 hours.
What may go wrong: the address stands in the profile that is included in the payload and nowhere else;
the topics are an account's metrics, so any name may come; `meta.timestamp` is the call's time.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.mail_events import utc_second
from pipeline.outcomes import EventType, Reason, Unreadable
from pipeline.sources import Rules, Unauthentic, mail, signatures
from pipeline.sources.json_body import read_json
from pipeline.sources.json_sender import JsonSender, by_hex_hmac

_SECRET = "KLAVIYO_SIGNING_KEY"  # noqa: S105 - the setting's name

_TOPICS = "event:klaviyo."
# `bounced_email` needs a look. `received_email` is the only word for a Send, whatever SEND_FROM says:
# https://developers.klaviyo.com/en/docs/system-webhooks#common-webhook-topics
_TYPES = {
    "received_email": EventType.SEND,
    "opened_email": EventType.OPEN,
    "clicked_email": EventType.CLICK,
    "marked_email_as_spam": EventType.COMPLAINT,
    "unsubscribed_from_email_marketing": EventType.UNSUBSCRIBE,
}
_BY_THE_PERSON = (EventType.OPEN, EventType.CLICK, EventType.UNSUBSCRIBE)
_IGNORED = {
    "dropped_email": mail.SUPPRESSED,  # never handed to the recipient's server: neither Send nor bounce
    "clicked_email_to_unsubscribe": mail.NOT_A_MAIL_EVENT,  # the unsubscription is an event of its own
    "subscribed_to_email_marketing": mail.NOT_A_MAIL_EVENT,
    "manually_suppressed_from_email_marketing": mail.NOT_A_MAIL_EVENT,
    "manually_unsuppressed_from_email_marketing": mail.NOT_A_MAIL_EVENT,
    "updated_email_preferences": mail.NOT_A_MAIL_EVENT,
}


def _signed(headers: Mapping[str, str], body: bytes) -> bytes:
    return body + signatures.header(headers, "klaviyo-timestamp").encode("utf-8", "replace")


_check_hmac = by_hex_hmac(_SECRET, "klaviyo-signature", _signed)


def _verify(
    headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> None:
    """Raise `Unauthentic` unless Klaviyo signed *body* + timestamp, for the webhook it names.

    Age is not judged: Klaviyo repeats a call for 48 hours, says neither that it signs it anew nor
    how old a call may be, and its events are recognised by their ids.
    """
    if secrets.get(_SECRET):
        _check_hmac(headers, body, secrets, now)
        _check_webhook(headers.get("klaviyo-webhook-id", "").strip(), body)


def _check_webhook(named: str, body: bytes) -> None:
    # "If these values do not match, [...] you should not process the webhook": the guide above
    try:
        signed = mail.part(read_json(body), "meta", "klaviyo_webhook_id")
    except Unreadable:
        return  # `check` says so, in its own words
    if named and mail.text(signed) and named != mail.text(signed):
        raise Unauthentic("the webhook's id is not the one in the body")


def _items(body: object) -> list[object]:
    if isinstance(body, dict):
        data = body.get("data")
        if isinstance(data, list):
            return data
        if "topic" in body:  # one event alone: so it comes back from the dead letters
            return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "there is no array of events under data")


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    topic = mail.word(item, "topic")
    payload = mail.section(item, "payload")
    event = mail.section(payload, "data")
    attributes = mail.section(event, "attributes")
    properties = mail.section(attributes, "event_properties")
    verdict = _verdict(topic, properties)
    if not isinstance(verdict, EventType):
        return verdict
    written = utc_second(attributes.get("datetime"))
    told: mail.Told = {
        "type": verdict,
        "email": _address(payload),
        "time": written or attributes.get("timestamp"),
        # the id of the campaign's or the flow's message, so it serves both meanings of SEND_ID
        "send_id": mail.first_id((properties.get("$message"),)),
        "provider_id": mail.text(item.get("external_id")) or event.get("id"),
    }
    if verdict in _BY_THE_PERSON:
        _add_person(told, properties)
    # who leaves by a form, by hand or by the API leaves what the topic says, and no message
    if not told["send_id"] and verdict is EventType.UNSUBSCRIBE:
        told["send_id"] = topic
    return told


def _add_person(told: mail.Told, properties: Mapping[str, object]) -> None:
    told["client"], told["browser"] = mail.client_or_browser(
        properties.get("Client Name"),
        is_browser=mail.text(properties.get("Client Type")).lower() == "browser",
    )
    told["os"] = properties.get("Client OS Family")
    told["machine_open"] = mail.is_true(properties.get("machine_open"))


def _verdict(topic: str, properties: Mapping[str, object]) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if not topic.startswith(_TOPICS):
        return mail.UNMAPPED  # other programs' metrics: `event:shopify.placed_order`
    name = topic.removeprefix(_TOPICS)
    if name in _TYPES:
        return _TYPES[name]
    if name == "bounced_email":
        kind = mail.text(properties.get("Bounce Type")).lower()
        if not kind:  # no verdict: whatever else it says of the bounce
            told = (one for name, one in properties.items() if name.startswith("Bounce"))
            return mail.bounce_by_status(*told)
        return EventType.HARD_BOUNCE if kind.startswith("hard") else EventType.SOFT_BOUNCE
    return _IGNORED.get(name, mail.UNMAPPED)


def _address(payload: Mapping[str, object]) -> str | None:
    """Return the address of the profile that the event is about; nothing where more than one could be meant."""
    included = payload.get("included")
    related = mail.part(payload, "data", "relationships", "profile", "data", "id")
    found: tuple[str, str] | None = None
    for one in included if isinstance(included, list) else ():
        if not isinstance(one, dict) or one.get("type") != "profile":
            continue
        if related is None or one.get("id") == related:
            address = mail.section(one, "attributes").get("email")
            profile = mail.text(one.get("id")), mail.text(address)
            if found not in (None, profile):
                return None
            found = profile
    return found[1] if found else None


KLAVIYO = JsonSender("klaviyo", _items, _read, _verify)

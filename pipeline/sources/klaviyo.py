"""Source `klaviyo`: Klaviyo's system webhooks, up to 1 000 events of many people in one call.

Envelope and signature: https://developers.klaviyo.com/en/docs/working_with_system_webhooks. Each `payload`
is an answer of https://developers.klaviyo.com/en/reference/get_event. Signed with HMAC-SHA256 of the raw
body and the header `Klaviyo-Timestamp` after it, under KLAVIYO_SIGNING_KEY.
Klaviyo wants 2xx within five seconds, calls again after ever longer pauses of at most an hour, and
disables a webhook that has failed for 48 hours.
What may go wrong: the address stands in the profile that is included in the payload and nowhere else;
the topics are an account's metrics, so any name may come; `meta.timestamp` is the call's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Probe, Reason, Unreadable
from pipeline.sources import Rules, Unauthentic, mail, signatures
from pipeline.sources.json_body import as_sent, check_json, read_json

_SECRET = "KLAVIYO_SIGNING_KEY"  # noqa: S105 - the setting's name
_SIGNATURE = "klaviyo-signature"
_TIMESTAMP = "klaviyo-timestamp"
_WEBHOOK_ID = "klaviyo-webhook-id"

_TOPICS = "event:klaviyo."
# `bounced_email` needs a look. `received_email` is the only word for a Send, whatever SEND_FROM says:
# https://developers.klaviyo.com/en/docs/working_with_system_webhooks#common-webhook-topics
_TYPES = {
    "received_email": EventType.SEND,
    "opened_email": EventType.OPEN,
    "clicked_email": EventType.CLICK,
    "marked_email_as_spam": EventType.COMPLAINT,
    "unsubscribed_from_email_marketing": EventType.UNSUBSCRIBE,
}
_IGNORED = {
    "dropped_email": mail.SUPPRESSED,  # never handed to the recipient's server: neither Send nor bounce
    "clicked_email_to_unsubscribe": mail.NOT_A_MAIL_EVENT,  # the unsubscription is an event of its own
    "subscribed_to_email_marketing": mail.NOT_A_MAIL_EVENT,
    "manually_suppressed_from_email_marketing": mail.NOT_A_MAIL_EVENT,
    "manually_unsuppressed_from_email_marketing": mail.NOT_A_MAIL_EVENT,
    "updated_email_preferences": mail.NOT_A_MAIL_EVENT,
}


class Klaviyo:
    """The source `klaviyo`."""

    name = "klaviyo"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless Klaviyo signed *body* + timestamp, for the webhook it names.

        Age is not judged: Klaviyo repeats a call for 48 hours, says neither that it signs it anew nor
        how old a call may be, and its events are recognised by their ids.
        """
        secret = secrets.get(_SECRET)
        if not secret:
            return
        stamp = signatures.header(headers, _TIMESTAMP)
        message = body + stamp.encode("utf-8", "replace")
        given = signatures.header(headers, _SIGNATURE)
        signatures.check_hex(given, signatures.keys_of(secret), message)
        _check_webhook(headers.get(_WEBHOOK_ID, "").strip(), body)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body."""
        items = _items(read_json(delivery.body))
        if not items:
            raise Probe("no events")
        outcomes = [_outcome(item, now) for item in items]
        return as_sent(outcomes, delivery.body, _items)


KLAVIYO = Klaviyo()


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


def _outcome(item: object, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    topic = item.get("topic")
    if not isinstance(topic, str):
        return mail.invalid("topic is missing or not a string", item)
    event = mail.part(item, "payload", "data")
    properties = mail.part(event, "attributes", "event_properties")
    verdict = _verdict(topic, properties)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    program = mail.part(properties, "Client Name")
    is_browser = mail.text(mail.part(properties, "Client Type")).lower() == "browser"
    told = mail.Told(
        type=verdict,
        email=_address(item.get("payload")),
        time=mail.part(event, "attributes", "datetime")
        or mail.part(event, "attributes", "timestamp"),
        # the id of the campaign's or the flow's message, so it serves both meanings of SEND_ID
        send_id=mail.part(properties, "$message"),
        provider_id=mail.text(item.get("external_id")) or mail.part(event, "id"),
        client=None if is_browser else program,
        browser=program if is_browser else None,
        os=mail.part(properties, "Client OS Family"),
        machine_open=mail.part(properties, "machine_open") is True,
    )
    return mail.event_of(told, item, now)


def _verdict(topic: str, properties: object) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if not topic.startswith(_TOPICS):
        return mail.UNMAPPED  # other programs' metrics: `event:shopify.placed_order`
    name = topic.removeprefix(_TOPICS)
    if name in _TYPES:
        return _TYPES[name]
    if name == "bounced_email":
        kind = mail.text(mail.part(properties, "Bounce Type")).lower()
        return EventType.HARD_BOUNCE if kind.startswith("hard") else EventType.SOFT_BOUNCE
    return _IGNORED.get(name, mail.UNMAPPED)


def _address(payload: object) -> object:
    """Return the address of the profile that the event is about."""
    included = mail.part(payload, "included")
    related = mail.part(payload, "data", "relationships", "profile", "data", "id")
    profiles = [
        one
        for one in (included if isinstance(included, list) else [])
        if mail.part(one, "type") == "profile"
        and (related is None or mail.part(one, "id") == related)
    ]
    return mail.part(profiles[0], "attributes", "email") if len(profiles) == 1 else None

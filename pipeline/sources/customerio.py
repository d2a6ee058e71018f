"""Source `customerio`: Customer.io's Reporting Webhooks, one JSON object for each event.

Words and fields: https://docs.customer.io/integrations/api/webhooks/ (`object_type` and `metric` together).
Signature: https://docs.customer.io/journeys/webhooks-action/#securely-verify-requests.

Authentication: hex HMAC-SHA256 of `v0:`, the timestamp's header, `:` and the body, in `X-CIO-Signature`.
Customer.io waits 4 seconds for a 2xx and repeats the call after anything else.
No field says that an open was a machine's, or whose address and program it was: none is documented.
What may go wrong: the same webhook tells of push, SMS and in-app messages, and of people whose
attribute `unsubscribed` was changed: these name no message and are no mail events.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.outcomes import EventType
from pipeline.sources import Rules, mail, signatures
from pipeline.sources.json_sender import JsonSender, by_hex_hmac, one_event

# metrics of `object_type: email`; `_verdict` decides `sent`, `delivered` (SEND_FROM) and `deferred` (DEFERRAL_AS)
_TYPES = {
    "opened": EventType.OPEN,
    "clicked": EventType.CLICK,
    "bounced": EventType.HARD_BOUNCE,  # only told of permanent failures; the others are `deferred`
    "spammed": EventType.COMPLAINT,
    "unsubscribed": EventType.UNSUBSCRIBE,
}
_IGNORED = {
    "dropped": mail.SUPPRESSED,  # never handed to the recipient's server: neither Send nor bounce
    "failed": mail.SUPPRESSED,
    "undeliverable": mail.SUPPRESSED,
    "attempted": mail.DEFERRED,  # could not be handed over yet: nothing has left, whatever DEFERRAL_AS
    "drafted": mail.NOT_A_MAIL_EVENT,
    "converted": mail.NOT_A_MAIL_EVENT,
}
# each kind of sending counts its ids for itself; one event has one of them
_CAMPAIGN_FIELDS = ("campaign_id", "broadcast_id", "newsletter_id", "transactional_message_id")


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    kind, metric = item.get("object_type"), item.get("metric")
    if not isinstance(kind, str) or not isinstance(metric, str):
        raise mail.Wrong("object_type or metric is missing or not a string")
    verdict = _verdict(kind, metric, rules)
    if not isinstance(verdict, EventType):
        return verdict
    data = mail.section(item, "data")
    return {
        "type": verdict,
        # the field "To" of a message; `{{customer.name}} <{{customer.email}}>` may come out without an address
        "email": mail.bare_address(data.get("recipient"))
        or mail.section(data, "identifiers").get("email"),
        "time": item.get("timestamp"),
        "send_id": mail.send_id(
            rules,
            campaign=map(data.get, _CAMPAIGN_FIELDS),
            message=(data.get("delivery_id"),),
        ),
        "provider_id": item.get("event_id"),
    }


def _verdict(kind: str, metric: str, rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if kind != "email":
        return mail.NOT_A_MAIL_EVENT
    if metric in _TYPES:
        return _TYPES[metric]
    if metric in ("sent", "delivered"):
        return mail.send_when("accepted" if metric == "sent" else "delivered", rules)
    if metric == "deferred":
        return mail.deferral(rules)
    return _IGNORED.get(metric, mail.UNMAPPED)


def _signed(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return what Customer.io signs.

    Age is not judged: nobody says that a repeated call is signed anew. A replayed call needs our
    token too, and its event is recognised by its `event_id`.
    """
    stamp = signatures.header(headers, "x-cio-timestamp")
    return f"v0:{stamp}:".encode("utf-8", "replace") + body


_verify = by_hex_hmac("CUSTOMERIO_SIGNING_KEY", "x-cio-signature", _signed)

CUSTOMERIO = JsonSender("customerio", one_event("object_type", "metric"), _read, _verify)

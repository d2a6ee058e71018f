"""Source `customerio`: Customer.io's Reporting Webhooks, one JSON object for each event.

Words and fields: https://docs.customer.io/integrations/api/webhooks/ (`object_type` and `metric` together).
Signature: https://docs.customer.io/journeys/webhooks-action/#securely-verify-requests.

Authentication: hex HMAC-SHA256 of `v0:`, the timestamp's header, `:` and the body, in `X-CIO-Signature`.
Customer.io waits 4 seconds for a 2xx and repeats the call after anything else.
What may go wrong: the same webhook tells of push, SMS and in-app messages, and of people whose
attribute `unsubscribed` was changed: these name no message and are no mail events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Reason, Unreadable
from pipeline.sources import Rules, mail, signatures
from pipeline.sources.json_body import as_sent, check_json, read_json

_SECRET = "CUSTOMERIO_SIGNING_KEY"  # noqa: S105 - the setting's name
_SIGNATURE = "x-cio-signature"
_TIMESTAMP = "x-cio-timestamp"

# metrics of `object_type: email`; `sent`, `delivered` (SEND_FROM) and `deferred` (DEFERRAL_AS) need a look
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


class CustomerIo:
    """The source `customerio`."""

    name = "customerio"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless Customer.io signed its timestamp and *body*.

        Age is not judged: nobody says that a repeated call is signed anew. A replayed call needs our
        token too, and its event is recognised by its `event_id`.
        """
        secret = secrets.get(_SECRET)
        if not secret:
            return
        given = signatures.header(headers, _SIGNATURE)
        stamp = signatures.header(headers, _TIMESTAMP)
        message = f"v0:{stamp}:".encode("utf-8", "replace") + body
        signatures.check_hex(given, signatures.keys_of(secret), message)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return the one `MailEvent`, `Ignored` or `Invalid` of the body."""
        outcomes = [_outcome(item, rules, now) for item in _items(read_json(delivery.body))]
        return as_sent(outcomes, delivery.body, _items)


CUSTOMERIO = CustomerIo()


def _items(body: object) -> list[dict[str, object]]:
    if isinstance(body, dict) and ("metric" in body or "object_type" in body):
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither object_type nor metric: not one event")


def _outcome(item: Mapping[str, object], rules: Rules, now: float) -> Outcome:
    kind, metric = item.get("object_type"), item.get("metric")
    if not isinstance(kind, str) or not isinstance(metric, str):
        return mail.invalid("object_type or metric is missing or not a string", item)
    verdict = _verdict(kind, metric, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    told = mail.Told(
        type=verdict,
        email=_address(item),
        time=item.get("timestamp"),
        send_id=_send_id(item, rules),
        provider_id=item.get("event_id"),
    )
    return mail.event_of(told, item, now)


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


def _address(item: Mapping[str, object]) -> str:
    # the field "To" of a message may be written as `{{customer.name}} <{{customer.email}}>`
    recipient = mail.text(mail.part(item, "data", "recipient"))
    if recipient.endswith(">"):
        recipient = recipient[:-1].rpartition("<")[2].strip()
    return recipient or mail.text(mail.part(item, "data", "identifiers", "email"))


def _send_id(item: Mapping[str, object], rules: Rules) -> str:
    if rules.send_id == "campaign":
        for field in _CAMPAIGN_FIELDS:
            if found := mail.bare_id(mail.part(item, "data", field)):
                return found
    return mail.bare_id(mail.part(item, "data", "delivery_id"))

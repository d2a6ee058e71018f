"""Source `sendgrid`: Twilio SendGrid's Event Webhook, a JSON array of events of many messages.

Words and fields: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event.
Signature: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features.
What may go wrong: the customer's own arguments are merged flat into each event, so any field may
hold anything; `ip` is the person's only on engagement events and SendGrid's server on the others;
one documented sample has its `timestamp` in milliseconds.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, Outcome, Reason, Unreadable
from pipeline.sources import Rules, Unauthentic, mail
from pipeline.sources.json_body import as_sent, check_json, read_json

_SECRET = "SENDGRID_PUBLIC_KEY"  # noqa: S105 - the setting's name; the key itself is public
_SIGNATURE = "x-twilio-email-event-webhook-signature"
_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"

# `processed`, `delivered` (SEND_FROM), `deferred` (DEFERRAL_AS) and `bounce` (its type) need a look
_TYPES = {
    "open": EventType.OPEN,
    "click": EventType.CLICK,
    "spamreport": EventType.COMPLAINT,
    "unsubscribe": EventType.UNSUBSCRIBE,
    "group_unsubscribe": EventType.UNSUBSCRIBE,
}
_IGNORED = {
    "dropped": mail.SUPPRESSED,  # never handed to the recipient's server: neither Send nor bounce
    "group_resubscribe": mail.NOT_A_MAIL_EVENT,
    "account_status_change": mail.NOT_A_MAIL_EVENT,
}
_BY_THE_PERSON = frozenset(("open", "click", "group_unsubscribe"))
# Marketing campaigns and Single Sends name themselves; legacy newsletters did inside an object.
_CAMPAIGN_FIELDS = ("singlesend_id", "marketing_campaign_id")


class SendGrid:
    """The source `sendgrid`."""

    name = "sendgrid"
    success: Literal[200, 202] = 200
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
    ) -> None:
        """Raise `Unauthentic` unless SendGrid signed timestamp + *body*, with its trailing CRLF.

        Age is not judged: SendGrid repeats an unanswered call for 24 hours and nobody says that it
        signs it anew, and its own libraries set no limit either. A replayed call needs our token
        too, and its events are recognised by their `sg_event_id`.
        """
        key_text = secrets.get(_SECRET)
        if not key_text:
            return
        key = _public_key(key_text)
        signature = _signature(headers.get(_SIGNATURE, ""))
        timestamp = headers.get(_TIMESTAMP, "")
        if not timestamp:
            raise Unauthentic("the signature's timestamp is missing")
        try:
            key.verify(signature, timestamp.encode("utf-8", "replace") + body, ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise Unauthentic("the signature is false") from None

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent`, `Ignored` or `Invalid` for each event of the body."""
        outcomes = [_outcome(item, rules, now) for item in _items(read_json(delivery.body))]
        return as_sent(outcomes, delivery.body, _items)


SENDGRID = SendGrid()


def _signature(text: str) -> bytes:
    if not text:
        raise Unauthentic("the signature is missing")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unauthentic("the signature is not base64") from None


@lru_cache(maxsize=8)  # one key, or two while it is being changed
def _public_key(text: str) -> ec.EllipticCurvePublicKey:
    # the dashboard shows base64 DER; a PEM in an environment variable often has its breaks escaped
    text = text.strip().replace("\\n", "\n")
    try:
        if text.startswith("-----BEGIN"):
            key = load_pem_public_key(text.encode())
        else:
            key = load_der_public_key(b64decode(text, validate=True))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unauthentic(f"{_SECRET} is not a public key") from None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise Unauthentic(f"{_SECRET} is not a P-256 key")


def _items(body: object) -> list[object]:
    if isinstance(body, list):
        return body
    # on the wire it is always an array; the documentation prints some events bare
    if isinstance(body, dict) and "event" in body:
        return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, "neither an array of events nor one event")


def _outcome(item: object, rules: Rules, now: float) -> Outcome:
    if not isinstance(item, dict):
        return mail.invalid("the event is not an object", item)
    name = item.get("event")
    if not isinstance(name, str):
        return mail.invalid("event is missing or not a string", item)
    verdict = _verdict(name, item, rules)
    if not isinstance(verdict, EventType):
        return mail.ignored(verdict)
    by_person = name in _BY_THE_PERSON
    told = mail.Told(
        type=verdict,
        email=item.get("email"),
        time=item.get("timestamp"),
        send_id=_send_id(item, rules),
        provider_id=item.get("sg_event_id"),
        ip=item.get("ip") if by_person else None,
        user_agent=item.get("useragent") if by_person else None,
        machine_open=item.get("sg_machine_open") is True,
    )
    return mail.event_of(told, item, now)


def _verdict(name: str, item: Mapping[str, object], rules: Rules) -> mail.Verdict:
    """Return the event's type, or the word why there is none."""
    if name in _TYPES:
        return _TYPES[name]
    if name in ("processed", "delivered"):
        return mail.send_when("accepted" if name == "processed" else "delivered", rules)
    if name == "bounce":
        return _bounce(item)
    if name == "deferred":
        return mail.deferral(rules)
    return _IGNORED.get(name, mail.UNMAPPED)


def _bounce(item: Mapping[str, object]) -> EventType:
    kind = mail.text(item.get("type")).lower()
    status = mail.text(item.get("status"))
    if kind == "bounce" or (not kind and not status.startswith("4")):
        return EventType.HARD_BOUNCE
    # `blocked` is a refusal of this message, not of the address; a new word is judged by its status
    return mail.bounce_by_status(status) if kind not in ("", "blocked") else EventType.SOFT_BOUNCE


def _send_id(item: Mapping[str, object], rules: Rules) -> str:
    if rules.send_id == "campaign" and (campaign := _campaign(item)):
        return campaign
    # asynchronous bounces and legacy marketing events may come without sg_message_id
    return mail.bare_id(item.get("sg_message_id")) or mail.bare_id(item.get("smtp-id"))


def _campaign(item: Mapping[str, object]) -> str:
    for field in _CAMPAIGN_FIELDS:
        if found := mail.text(item.get(field)):
            return found
    newsletter = item.get("newsletter")
    return mail.text(newsletter.get("newsletter_send_id")) if isinstance(newsletter, dict) else ""

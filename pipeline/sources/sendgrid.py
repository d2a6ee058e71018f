"""Source `sendgrid`: Twilio SendGrid's Event Webhook, a JSON array of events of many messages.

Words and fields: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event.
Signature: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features.
What may go wrong: the customer's own arguments are merged flat into each event, so any field may
hold anything; `ip` is the person's only on engagement events and SendGrid's server on the others;
one documented sample has its `timestamp` in milliseconds.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from pipeline.outcomes import EventType
from pipeline.sources import Rules, Unauthentic, mail, signatures
from pipeline.sources.json_sender import JsonSender, one_or_many

_SECRET = "SENDGRID_PUBLIC_KEY"  # noqa: S105 - the setting's name; the key itself is public
_SIGNATURE = "x-twilio-email-event-webhook-signature"
_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"

# `processed`, `delivered` (SEND_FROM), `deferred` (DEFERRAL_AS) and `bounce` (its type) are decided in `_verdict`
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


def _verify(
    headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> None:
    """Raise `Unauthentic` unless SendGrid signed timestamp + *body*, with its trailing CRLF.

    Age is not judged: SendGrid repeats an unanswered call for 24 hours and nobody says that it
    signs it anew, and its own libraries set no limit either. A replayed call needs our token
    too, and its events are recognised by their `sg_event_id`.
    """
    key_text = secrets.get(_SECRET)
    if not key_text:
        return
    keys = _public_keys(key_text)
    signature = signatures.from_base64(signatures.header(headers, _SIGNATURE))
    timestamp = signatures.header(headers, _TIMESTAMP)
    message = timestamp.encode("utf-8", "replace") + body
    if not any(_is_signed(message, signature, key) for key in keys):
        raise Unauthentic("the signature is false")


def _is_signed(message: bytes, signature: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    try:
        key.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=8)
def _public_keys(setting: str) -> list[ec.EllipticCurvePublicKey]:
    """Return the keys in the setting, which have commas between them; a PEM holds none."""
    keys: list[ec.EllipticCurvePublicKey] = []
    wrong = Unauthentic(f"{_SECRET} is not a public key")
    for text in setting.split(","):
        try:
            keys.append(_public_key(text))
        except Unauthentic as error:  # one that was pasted wrongly closes no door to the others
            wrong = error
    if not keys:
        raise wrong
    return keys


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


def _read(item: Mapping[str, object], rules: Rules) -> mail.Told | str:
    name = mail.word(item, "event")
    verdict = _verdict(name, item, rules)
    if not isinstance(verdict, EventType):
        return verdict
    by_person = name in _BY_THE_PERSON
    return {
        "type": verdict,
        "email": item.get("email"),
        "time": item.get("timestamp"),
        "send_id": mail.send_id(
            rules,
            campaign=_campaigns(item),
            # asynchronous bounces and legacy marketing events may come without sg_message_id
            message=(item.get("sg_message_id"), item.get("smtp-id")),
        ),
        "provider_id": item.get("sg_event_id"),
        "ip": item.get("ip") if by_person else None,
        "user_agent": item.get("useragent") if by_person else None,
        "machine_open": mail.is_true(item.get("sg_machine_open")),
    }


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
    if kind in ("", "blocked"):
        return EventType.SOFT_BOUNCE
    return mail.bounce_by_status(status, item.get("reason"))


def _campaigns(item: Mapping[str, object]) -> Iterator[object]:
    # Marketing campaigns and Single Sends name themselves; legacy newsletters did inside an object.
    yield item.get("singlesend_id")
    yield item.get("marketing_campaign_id")
    yield mail.section(item, "newsletter").get("newsletter_send_id")


SENDGRID = JsonSender("sendgrid", one_or_many("event"), _read, _verify)

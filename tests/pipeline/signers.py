"""How each sender that signs its calls does it, as its documentation says and not by our own code.

`SIGNERS` has an entry for each sender with a secret but `ses`, whose signature a worker checks. Keys are words
here: a signer makes of a word what its sender signs with and what stands in the setting.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlencode

import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.sources.form_body import URLENCODED
from pipeline.sources.registry import SOURCES
from tests.pipeline.sample_outcomes import NOW

#: what the tests sign with unless they say otherwise
KEY = "key-of-nobody"
STAMP = str(int(NOW))
_HOUR_S = 3_600


@dataclass(frozen=True, slots=True)
class Call:
    """One signed request: its *signed* headers, each of which counts, other headers, and its body."""

    signed: Mapping[str, str]
    body: bytes
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One sender's way.

    *sign* makes a call at `NOW` with a key, *secret* writes that key into the setting, *beside* are settings
    that belong to it. *lasts_s*: for how long a call is believed, None where no age is judged. *is_hex*:
    the signature is hexadecimal, in either case.
    """

    setting: str
    sign: Callable[[str], Call]
    secret: Callable[[str], str] = str
    beside: Mapping[str, str] = field(default_factory=dict)
    lasts_s: int | None = None
    is_hex: bool = False
    signs_body: bool = True


def verify(
    source: str,
    headers: Mapping[str, str],
    body: bytes,
    setting: str | None = None,
    now: float = NOW,
) -> None:
    """Verify a call as the receiver does, with *setting* or else `KEY` as the secret."""
    signer = SIGNERS[source]
    secret = signer.secret(KEY) if setting is None else setting
    SOURCES[source].verify(headers, body, {**signer.beside, signer.setting: secret}, now)


@cache
def ec_key(word: str) -> ec.EllipticCurvePrivateKey:
    """Return SendGrid's key of that *word*."""
    return ec.derive_private_key(int.from_bytes(b"-" + word.encode()), ec.SECP256R1())


def public_der(key: Any) -> str:
    """Return the public half of *key* as SendGrid's dashboard shows it."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(der).decode()


def mac(key: str | bytes, message: str | bytes, algorithm: str = "sha256") -> bytes:
    """Return the HMAC of *message*."""
    key, message = (one.encode() if isinstance(one, str) else one for one in (key, message))
    return hmac.digest(key, message, algorithm)


_SENDGRID = b'[{"event":"processed"}]\r\n'
_RESEND = b'{"type":"email.opened"}\r\n'
_MAILERSEND = b'{"type":"activity.sent"}\n'
_MAILTRAP = b'{"events":[{"event":"open"}]}\r\n'
_KLAVIYO = b'{"meta":{"klaviyo_webhook_id":"wh-1"},"data":[]}'
_CUSTOMERIO = b'{"object_type":"email","metric":"opened"}'
_SFMC = b'[{"eventCategoryType":"EngagementEvents.EmailOpen"}]'
_MANDRILL = '[{"event":"click","ts":1685620800,"_id":"m","msg":{"email":"a@example.com"}}]'
_MANDRILL_URL = "https://user:pass@relay.example.com/hooks/mandrill?token=0123456789abcdef"


def sendgrid(key: str) -> Call:
    """Sign timestamp and body, with their trailing CRLF."""
    signature = ec_key(key).sign(STAMP.encode() + _SENDGRID, ec.ECDSA(SHA256()))
    prefix = "x-twilio-email-event-webhook"
    return Call(
        {f"{prefix}-signature": b64encode(signature).decode(), f"{prefix}-timestamp": STAMP},
        _SENDGRID,
    )


def mailgun_proof(key: str = KEY, stamp: str = STAMP, token: str = "ab" * 25) -> dict[str, Any]:
    """Return what Mailgun signs a call with, which stands in its body."""
    return {"timestamp": stamp, "token": token, "signature": mac(key, stamp + token).hex()}


def mailgun(key: str) -> Call:
    """Sign timestamp and token, and nothing of the event."""
    event = {"event": "clicked", "recipient": "ada@example.com", "timestamp": 1_685_620_800.5}
    body = orjson.dumps({"signature": mailgun_proof(key), "event-data": event})
    return Call({}, body, {"content-type": "application/json"})


def resend(key: str) -> Call:
    """Sign as Svix does."""
    signature = b64encode(mac(key, f"msg_1.{STAMP}.".encode() + _RESEND)).decode()
    headers = {"svix-id": "msg_1", "svix-timestamp": STAMP, "svix-signature": f"v1,{signature}"}
    return Call(headers, _RESEND)


def klaviyo(key: str) -> Call:
    """Sign the body, then the timestamp as it is written."""
    stamp = "Tue, 14 Nov 2023 22:13:20 GMT"
    signature = mac(key, _KLAVIYO + stamp.encode()).hex()
    headers = {"klaviyo-signature": signature, "klaviyo-timestamp": stamp}
    return Call(headers, _KLAVIYO, {"klaviyo-webhook-id": "wh-1"})


def customerio(key: str) -> Call:
    """Sign a version, the timestamp and the body."""
    signature = mac(key, f"v0:{STAMP}:".encode() + _CUSTOMERIO).hex()
    return Call({"x-cio-signature": signature, "x-cio-timestamp": STAMP}, _CUSTOMERIO)


def mandrill(key: str) -> Call:
    """Sign the webhook's URL, then names and values of the form."""
    signature = mac(key, f"{_MANDRILL_URL}mandrill_events{_MANDRILL}", "sha1")
    return Call(
        {"x-mandrill-signature": b64encode(signature).decode()},
        urlencode({"mandrill_events": _MANDRILL}).encode(),
        {"content-type": URLENCODED},
    )


def mailersend(key: str) -> Call:
    """Sign the body."""
    return Call({"signature": mac(key, _MAILERSEND).hex()}, _MAILERSEND)


def mailtrap(key: str) -> Call:
    """Sign the body."""
    return Call({"mailtrap-signature": mac(key, _MAILTRAP).hex()}, _MAILTRAP)


def sfmc(key: str) -> Call:
    """Sign the body, with the key as text."""
    signature = b64encode(mac(key, _SFMC)).decode()
    return Call({"x-sfmc-ens-signature": signature}, _SFMC)


SIGNERS: Mapping[str, Signer] = {
    "sendgrid": Signer(
        setting="SENDGRID_PUBLIC_KEY",
        sign=sendgrid,
        secret=lambda key: public_der(ec_key(key)),
    ),
    "mailgun": Signer(
        setting="MAILGUN_SIGNING_KEY",
        sign=mailgun,
        lasts_s=12 * _HOUR_S,
        signs_body=False,
    ),
    "resend": Signer(
        setting="RESEND_SIGNING_SECRET",
        sign=resend,
        secret=lambda key: "whsec_" + b64encode(key.encode()).decode(),
        lasts_s=300,
    ),
    "mailersend": Signer(setting="MAILERSEND_SIGNING_SECRET", sign=mailersend, is_hex=True),
    "mailtrap": Signer(setting="MAILTRAP_SIGNING_SECRET", sign=mailtrap, is_hex=True),
    "klaviyo": Signer(setting="KLAVIYO_SIGNING_KEY", sign=klaviyo, is_hex=True),
    "customerio": Signer(setting="CUSTOMERIO_SIGNING_KEY", sign=customerio, is_hex=True),
    "sfmc": Signer(setting="SFMC_SIGNING_KEY", sign=sfmc),
    "mandrill": Signer(
        setting="MANDRILL_WEBHOOK_KEY",
        sign=mandrill,
        beside={"MANDRILL_WEBHOOK_URL": _MANDRILL_URL},
    ),
}

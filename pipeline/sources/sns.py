"""Amazon SNS's envelope: what is signed in it, by whom, and which addresses in it are Amazon's own.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. Everything here is pure; the
certificate is fetched by `workers.proofs`. What may go wrong: a true signature only says that *some* topic of
Amazon's published the message, and everybody can have one: the topic must be one of ours. And whoever sends the
message says where its certificate is: it must be with SNS in the topic's own region. Any other host is refused,
also under amazonaws.com: `sns.s3.amazonaws.com` is whosever bucket is called `sns`. That address and TLS are what
the certificate is believed by; its chain is not judged again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import load_pem_x509_certificate

from pipeline.sources import Unauthentic
from pipeline.sources.mail import text
from pipeline.sources.signatures import from_base64

Envelope = Mapping[str, object]

NOTIFICATION = "Notification"
CONFIRMATION = "SubscriptionConfirmation"
UNSUBSCRIBED = "UnsubscribeConfirmation"

# partition, region, account, name: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
_TOPIC = re.compile(
    r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z0-9-]{1,40}):[0-9]{1,20}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?"
)
# what follows the host, whole, so that no user name, port or other host can hide in an address
_CERTIFICATE = re.compile(r"/SimpleNotificationService(?:-[A-Za-z0-9_-]{1,100})?\.pem")
_CONFIRM = re.compile(r"/[\x21-\x7e]{0,2000}")
_SIGNATURE_FIELDS = ("SignatureVersion", "Signature", "SigningCertURL")
_SIGNED = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    **dict.fromkeys(
        (CONFIRMATION, UNSUBSCRIBED),
        ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
}
_OPTIONAL = "Subject"
# the only field that may have several lines: with one more, lines could be moved from field to field
_OF_LINES = "Message"
_ALGORITHMS = {"1": SHA1, "2": SHA256}


class NoCertificate(Exception):
    """What was fetched is no certificate with an RSA key."""


def envelope_in(value: object) -> Envelope | None:
    """Return *value*, a JSON value, when it is an envelope of SNS's."""
    if isinstance(value, dict) and isinstance(value.get("Type"), str) and "Message" in value:
        return value
    return None


def topics_in(setting: str) -> frozenset[str]:
    """Return the topics in a setting, which have commas between them."""
    return frozenset(topic.strip() for topic in setting.split(",") if topic.strip())


def is_topic(name: str) -> bool:
    """Tell whether *name* is a topic's ARN; that of a subscription has one part more."""
    return _TOPIC.fullmatch(name) is not None


def check_topic(envelope: Envelope, topics: frozenset[str]) -> None:
    """Raise `Unauthentic` unless one of *topics* published the message and it has the fields of a signature."""
    if text(envelope.get("TopicArn")) not in topics:
        raise Unauthentic("the topic is not one of SES_TOPIC_ARNS")
    if not all(text(envelope.get(name)) for name in _SIGNATURE_FIELDS):
        raise Unauthentic("the message carries no signature")


def certificate_url(envelope: Envelope) -> str:
    """Return where the certificate is; raise `Unauthentic` unless that is with SNS in the topic's region."""
    return _address(envelope, "SigningCertURL", _CERTIFICATE, "the certificate's address")


def subscribe_url(envelope: Envelope) -> str:
    """Return where the subscription is confirmed; raise `Unauthentic` unless that is in the topic's region."""
    return _address(envelope, "SubscribeURL", _CONFIRM, "the address of the confirmation")


def _address(envelope: Envelope, field: str, path: re.Pattern[str], what: str) -> str:
    url, host = text(envelope.get(field)), _host(text(envelope.get("TopicArn")))
    if not (host and url.startswith(host) and path.fullmatch(url, len(host))):
        raise Unauthentic(f"{what} is not Amazon's in the topic's region")
    return url


def _host(topic: str) -> str:
    """Return how every address of SNS in the region of *topic* begins; nothing when it is no topic's name."""
    found = _TOPIC.fullmatch(topic)
    if found is None:
        return ""
    partition, region = found.groups()
    return f"https://sns.{region}.amazonaws.com" + (".cn" if partition == "aws-cn" else "")


def check_signature(envelope: Envelope, certificate: bytes) -> None:
    """Raise `Unauthentic` unless the key of *certificate* (PEM) signed the message; or `NoCertificate`.

    Neither the message's age nor the certificate's end is judged: SNS repeats for up to an hour, its dead-letter
    queue for days, and a delivery may wait here. A message that is sent again is known by its id.
    """
    algorithm = _ALGORITHMS.get(text(envelope.get("SignatureVersion")))
    if algorithm is None:
        raise Unauthentic("the signature's version is unknown")
    key = _public_key(certificate)
    signature = from_base64(text(envelope.get("Signature")))
    try:
        key.verify(signature, signed_text(envelope), PKCS1v15(), algorithm())
    except InvalidSignature:
        raise Unauthentic("the signature is false") from None


def check_certificate(certificate: bytes) -> None:
    """Raise `NoCertificate` unless *certificate* is one, in PEM, with an RSA key."""
    _public_key(certificate)


def signed_text(envelope: Envelope) -> bytes:
    """Return the bytes that SNS signs: name and value of certain fields, a line each; or raise `Unauthentic`."""
    lines: list[str] = []
    for name in _SIGNED.get(text(envelope.get("Type")), ()):
        value = envelope.get(name)
        if value is None and name == _OPTIONAL:
            continue
        if not isinstance(value, str):
            raise Unauthentic(f"the message's {name} is missing")
        if name != _OF_LINES and "\n" in value:
            raise Unauthentic(f"the message's {name} has several lines")
        lines += (name, value)
    if not lines:
        raise Unauthentic("the message's type is unknown")
    return ("\n".join(lines) + "\n").encode()


@lru_cache(maxsize=8)  # a certificate is used for about a year
def _public_key(certificate: bytes) -> RSAPublicKey:
    try:
        key = load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise NoCertificate("the certificate cannot be read") from None
    if not isinstance(key, RSAPublicKey):
        raise NoCertificate("the certificate's key is not RSA")
    return key

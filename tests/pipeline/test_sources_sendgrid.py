"""The source `sendgrid`: its words become AudiencePoint's, only true signatures are believed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.outcomes import MailEvent
from pipeline.sources import Rules, Unauthentic
from pipeline.sources.sendgrid import SENDGRID
from tests.pipeline.sample_outcomes import NOW, delivery
from tests.pipeline.signers import KEY, SIGNERS, ec_key, public_der, verify

_CALL = SIGNERS["sendgrid"].sign(KEY)
_DER = public_der(ec_key(KEY))
_PEM = (
    ec_key(KEY).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
)


def test_the_servers_ip_is_never_taken_for_the_persons() -> None:
    """`ip` on events that SendGrid's own server caused does not leave."""
    item = {"email": "ada@example.com", "sg_message_id": "m", "timestamp": 1, "ip": "192.0.2.1"}
    body = [{**item, "event": name, "useragent": "x"} for name in ("delivered", "bounce")]
    found = SENDGRID.parse(delivery("sendgrid", body), Rules(send_from="delivered"), NOW)
    assert [(e.ip_address, e.user_agent) for e in found if isinstance(e, MailEvent)] == [
        (None, None),
        (None, None),
    ]


@pytest.mark.parametrize(
    "key",
    [_DER, f" {_DER}\n", _PEM, _PEM.replace("\n", "\\n")],
    ids=["der", "padded der", "pem", "pem with escaped breaks"],
)
def test_the_key_may_be_pasted_in_any_form(key: str) -> None:
    """A signature over timestamp and raw body passes, in whatever form the key was pasted."""
    verify("sendgrid", _CALL.signed, _CALL.body, key)


@pytest.mark.parametrize(
    "key",
    [
        "not a key",
        "AAAA",
        "é",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "\udcff",
        public_der(ec.generate_private_key(ec.SECP384R1())),
        public_der(rsa.generate_private_key(65537, 2048)),
        public_der(ec.generate_private_key(ec.SECP256R1())),
    ],
    ids=["words", "not DER", "not ASCII", "broken PEM", "no text", "P-384", "RSA", "another key"],
)
def test_with_a_wrong_key_nothing_is_believed(key: str) -> None:
    """A key that is no P-256 key, or another's, refuses instead of failing."""
    with pytest.raises(Unauthentic):
        verify("sendgrid", _CALL.signed, _CALL.body, key)


@pytest.mark.parametrize("other", [public_der(ec_key("old")), "pasted wrongly", _PEM])
def test_several_keys_may_be_set_in_any_form(other: str) -> None:
    """With commas between them, while the webhook is replaced: one that is no key closes no door to the others."""
    for keys in (f"{other},{_DER}", f"{_PEM} , {other}\n", f",{other},\n{_PEM},"):
        verify("sendgrid", _CALL.signed, _CALL.body, keys)
    with pytest.raises(Unauthentic, match="not a public key"):
        verify("sendgrid", _CALL.signed, _CALL.body, "AAAA,pasted wrongly")


def test_a_signature_that_is_not_der_is_refused() -> None:
    """Base64 of anything else: `Unauthentic`, never another exception."""
    name = next(name for name in _CALL.signed if name.endswith("signature"))
    with pytest.raises(Unauthentic):
        verify("sendgrid", {**_CALL.signed, name: "AAAA"}, _CALL.body)

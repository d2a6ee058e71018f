"""The source `mailersend`: both versions of its events become AudiencePoint's, signed bodies only."""

from __future__ import annotations

import orjson
import pytest

from pipeline.outcomes import Probe
from pipeline.sources import Rules, Unauthentic
from pipeline.sources.mailersend import MAILERSEND
from tests.pipeline.sample_outcomes import NOW, delivery, shown
from tests.pipeline.signers import KEY, mac, verify

# published by MailerSend, and the same for everybody
_KEY_OF_TESTS = "test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G"
_TEST = b'{"type":"webhook.test","message":"This is a ping test message","created_at":"2026-01-01T12:00:00Z"}'


def test_the_servers_ip_is_never_taken_for_the_persons() -> None:
    """An address in a bounce is not of the person who was written to."""
    data = {"recipient": "ada@example.com", "message_id": "m", "meta": {"ip": "192.0.2.1"}}
    body = {"type": "activity.hard_bounced", "created_at": "2023-06-01T12:00:00Z", "data": data}
    (found,) = MAILERSEND.parse(delivery("mailersend", orjson.dumps(body)), Rules(), NOW)
    assert "ip_address" not in shown(found)


def _verify(body: bytes, key: str, setting: str = KEY) -> None:
    verify("mailersend", {"signature": mac(key, body).hex()}, body, setting)


@pytest.mark.parametrize("setting", [KEY, _KEY_OF_TESTS, f"{KEY},{_KEY_OF_TESTS}"])
def test_a_webhook_can_be_saved_with_the_key_that_everybody_knows(setting: str) -> None:
    """Saving one posts a test that nobody's own key has signed: it is let in, and is a probe."""
    _verify(_TEST, _KEY_OF_TESTS, setting)
    with pytest.raises(Probe):
        MAILERSEND.parse(delivery("mailersend", _TEST), Rules(), NOW)


@pytest.mark.parametrize("setting", [KEY, _KEY_OF_TESTS, f"{KEY},{_KEY_OF_TESTS}"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"activity.unsubscribed"}',
        b'{"type":"webhook.test","type":"activity.unsubscribed"}',
        b'[{"type":"webhook.test"}]',
        b'"webhook.test"',
        b'{"type":["webhook.test"]}',
        b'{"type":"webhook.test"',
        b"",
    ],
)
def test_nothing_else_may_carry_the_key_that_everybody_knows(body: bytes, setting: str) -> None:
    """Nobody can forge an event with the published key, also where it is set as the secret."""
    with pytest.raises(Unauthentic):
        _verify(body, _KEY_OF_TESTS, setting)


def test_a_test_with_a_false_signature_is_refused() -> None:
    """Telling of nobody does not replace a signature."""
    with pytest.raises(Unauthentic):
        _verify(_TEST, "another")
    with pytest.raises(Unauthentic):
        verify("mailersend", {}, _TEST)

"""The source `ses`: Amazon's words become AudiencePoint's, in envelopes and bare."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliveries import Delivery
from pipeline.outcomes import Invalid, MailEvent, Probe, Reason, Unreadable
from pipeline.sources import Rules
from pipeline.sources.ses import SES
from tests.pipeline.sample_outcomes import NOW, delivery

_TOPIC = "arn:aws:sns:us-east-1:123456789012:ses"
_BARE = orjson.dumps({"eventType": "Send", "mail": {}})
_SIGNED = {
    "Type": "Notification",
    "MessageId": "sns-1",
    "TopicArn": _TOPIC,
    "Message": "{}",
    "Timestamp": "2023-06-01T12:00:00.000Z",
    "SignatureVersion": "1",
    "Signature": "AAAA",
    "SigningCertURL": "https://sns.us-east-1.amazonaws.com/cert.pem",
}


def _envelope(message: object, **changed: object) -> dict[str, object]:
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    return {**_SIGNED, "Message": text, **changed}


def _bounce(*recipients: object, **more: object) -> dict[str, object]:
    facts = {"bounceType": "Permanent", "bouncedRecipients": list(recipients), **more}
    others = {"messageId": "m-1", "destination": ["ada@example.com", "bob@example.com"]}
    return {"eventType": "Bounce", "bounce": facts, "mail": others}


@pytest.mark.parametrize(
    "body",
    [
        _envelope("You have chosen to subscribe", Type="SubscriptionConfirmation"),
        _envelope("You have chosen to deactivate", Type="UnsubscribeConfirmation"),
        _envelope("Successfully validated SNS topic for Amazon SES event publishing."),
        _envelope({"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "You have"}),
    ],
    ids=["confirmation", "unsubscribed", "validated", "identity"],
)
def test_a_handshake_is_a_probe(body: object) -> None:
    """What Amazon publishes to set up or try a topic is answered and gives no event and no dead letter."""
    with pytest.raises(Probe):
        SES.parse(delivery("ses", body), Rules(), NOW)


@pytest.mark.parametrize(
    "body",
    [_envelope(message) for message in ("hello", "", "[]", "{}", '{"mail": {}}', "1", '"x"')]
    + [{**_SIGNED, "Message": {"eventType": "Send"}}, {**_SIGNED, "Message": None}],
)
def test_an_envelope_without_an_event_is_of_unknown_shape(body: object) -> None:
    """Whatever its message holds instead, or if it is no text at all: unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        SES.parse(delivery("ses", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


def test_the_id_of_raw_delivery_is_in_a_header() -> None:
    """Without an envelope the id that tells repetitions is SNS's header, which is kept."""
    body = orjson.dumps(_bounce("x", timestamp="2023-06-01T12:00:00Z")).replace(
        b'"x"', b'{"emailAddress":"ada@example.com"}'
    )
    headers = {"x-amz-sns-message-id": "sns-7"}
    assert set(headers) == SES.keeps_headers
    (found,) = SES.parse(Delivery("d", "ses", body, 0, headers=headers), Rules(), NOW)
    assert isinstance(found, MailEvent)
    assert found.provider_id == "sns-7"


def test_a_wrong_recipient_is_buried_alone_and_can_be_read_again() -> None:
    """What is kept of one wrong recipient names no other, and gives the same when it is read again."""
    good, wrong = {"emailAddress": "ada@example.com"}, {"emailAddress": "carol"}
    body = _envelope(_bounce(good, wrong, timestamp="2023-06-01T12:00:00Z"))
    (event, invalid) = SES.parse(delivery("ses", body), Rules(), NOW)
    assert isinstance(event, MailEvent)
    assert isinstance(invalid, Invalid)
    assert b"carol" in invalid.payload
    assert b"ada@" not in invalid.payload
    assert b"bob@" not in invalid.payload
    mended = invalid.payload.replace(b"carol", b"carol@example.com")
    (again,) = SES.parse(delivery("ses", mended), Rules(), NOW)
    assert again == MailEvent(
        email="carol@example.com",
        type=event.type,
        occurred_at_utc=event.occurred_at_utc,
        send_id="m-1",
        provider_id="sns-1",
    )
    assert SES.parse(delivery("ses", invalid.payload), Rules(), NOW) == [invalid]


def test_the_numbers_of_a_wrong_event_stay_as_they_were() -> None:
    """A number that reading would round is buried with all of its digits."""
    message = '{"eventType":"Bounce","mail":{},"bounce":{"x":12345678901234567890123}}'
    for body in (_envelope(message), message.encode()):
        (found,) = SES.parse(delivery("ses", body), Rules(), NOW)
        assert isinstance(found, Invalid)
        assert b"12345678901234567890123" in found.payload


@pytest.mark.parametrize(
    "secrets",
    [{}, {"SES_TOPIC_ARNS": _TOPIC}, {"SES_RAW_DELIVERY": "true"}, {"SENDGRID_PUBLIC_KEY": "k"}],
)
@given(body=st.binary(max_size=60) | st.sampled_from([_BARE, orjson.dumps(_SIGNED), b"{}"]))
def test_the_door_lets_everything_in(secrets: dict[str, str], body: bytes) -> None:
    """A worker judges who published a message and what came bare: the same whatever secrets are set."""
    SES.verify({"x-amz-sns-rawdelivery": "true"}, body, secrets, NOW)

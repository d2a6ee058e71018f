"""The source `ses`: Amazon's words become AudiencePoint's, in envelopes and bare; only our topics are heard."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliveries import Delivery
from pipeline.outcomes import Invalid, MailEvent, Probe, Reason, Unreadable
from pipeline.sources import Malformed, Rules, Unauthentic
from pipeline.sources.ses import SES
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_TOPIC = "arn:aws:sns:us-east-1:123456789012:ses"
_OTHER = "arn:aws:sns:eu-west-1:123456789012:more"
_SECRETS = {"SES_TOPIC_ARNS": f"{_OTHER}, {_TOPIC}"}
_RAW = {"SES_RAW_DELIVERY": "true"}
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


@pytest.mark.parametrize("sample", samples("ses"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of its recipients."""
    rules = Rules(**sample.get("rules", {}))
    found = SES.parse(delivery("ses", sample["body"]), rules, NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize(
    "body",
    [
        _envelope("You have chosen to subscribe", Type="SubscriptionConfirmation"),
        _envelope("You have chosen to deactivate", Type="UnsubscribeConfirmation"),
        _envelope("Successfully validated SNS topic for Amazon SES event publishing."),
        _envelope({"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "You have"}),
        {"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "You have"},
    ],
    ids=["confirmation", "unsubscribed", "validated", "identity", "identity raw"],
)
def test_a_handshake_is_a_probe(body: object) -> None:
    """What Amazon publishes to set up or try a topic is answered and gives no event and no dead letter."""
    with pytest.raises(Probe):
        SES.parse(delivery("ses", body), Rules(), NOW)


@pytest.mark.parametrize(
    "body",
    [{}, [], 1, "x", None, {"mail": {}}, {"eventType": 1.5}, {"eventType": ""}]
    + [_envelope(message) for message in ("hello", "", "[]", "{}", '{"mail": {}}', "1", '"x"')]
    + [{**_SIGNED, "Message": {"eventType": "Send"}}, {**_SIGNED, "Message": None}],
)
def test_what_tells_no_event_is_of_unknown_shape(body: object) -> None:
    """JSON that is no event of SES, in an envelope or not, is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        SES.parse(delivery("ses", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


@pytest.mark.parametrize("body", [b"", b" ", b"{", b"Type=Notification", b"\xff"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """The receiver answers 400, and a parser that gets it all the same says so too."""
    with pytest.raises(Malformed):
        SES.check(body, "text/plain; charset=UTF-8")
    with pytest.raises(Unreadable) as caught:
        SES.parse(delivery("ses", body), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_json_called_text_is_json() -> None:
    """SNS calls its JSON text/plain; a mark at its beginning does no harm."""
    SES.check(b"\xef\xbb\xbf" + orjson.dumps(_SIGNED), "text/plain; charset=UTF-8")


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


def _verify(body: object, secrets: dict[str, str], **headers: str) -> None:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    SES.verify(named, raw, secrets, NOW)


def test_a_signed_message_of_an_allowed_topic_passes() -> None:
    """Topic and form are right: whether the signature is true, a worker finds out."""
    _verify(_SIGNED, _SECRETS)
    _verify({**_SIGNED, "TopicArn": _OTHER, "Type": "SubscriptionConfirmation"}, _SECRETS)
    _verify({**_SIGNED, "SignatureVersion": "2"}, _SECRETS | _RAW)


def test_without_topics_the_token_alone_counts() -> None:
    """A sender whose topics are not set is believed, signed or not."""
    for secrets in ({}, {"SES_TOPIC_ARNS": " , "}, _RAW):
        _verify({"Type": "Notification", "Message": "x"}, secrets)
        _verify(b"not JSON", secrets)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({**_SIGNED, "TopicArn": _TOPIC + "x"}, id="another topic"),
        pytest.param({**_SIGNED, "TopicArn": ""}, id="topic empty"),
        pytest.param({**_SIGNED, "TopicArn": [_TOPIC]}, id="topic no text"),
        pytest.param({**_SIGNED, "TopicArn": f"{_OTHER}, {_TOPIC}"}, id="both topics"),
        pytest.param({**_SIGNED, "TopicArn": "é"}, id="topic not ASCII"),
        *(
            pytest.param({**_SIGNED, name: value}, id=f"{name} {value!r}")
            for name in ("Signature", "SignatureVersion", "SigningCertURL")
            for value in (None, "", " ", 1.5)
        ),
        pytest.param({"eventType": "Send"}, id="raw"),
        pytest.param([_SIGNED], id="in an array"),
        pytest.param({}, id="nothing in it"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff", id="no text"),
    ],
)
def test_what_is_not_of_an_allowed_topic_or_not_signed_is_refused(body: object) -> None:
    """Missing, malformed, another's: always `Unauthentic`, never another exception."""
    with pytest.raises(Unauthentic):
        _verify(body, _SECRETS)


def test_raw_delivery_is_taken_only_where_it_is_switched_on() -> None:
    """It is not signed, so it is refused whatever else is set, until somebody wants it."""
    for secrets in ({}, _SECRETS, {"SENDGRID_PUBLIC_KEY": "k"}):
        with pytest.raises(Unauthentic):
            _verify(_BARE, secrets, x_amz_sns_rawdelivery="true")
    _verify(_BARE, _RAW)
    _verify(_BARE, _SECRETS | _RAW)
    _verify(_BARE, _SECRETS | _RAW, x_amz_sns_topic_arn=_TOPIC)
    with pytest.raises(Unauthentic):
        _verify(_BARE, _SECRETS | _RAW, x_amz_sns_topic_arn="arn:é")


def test_switching_raw_delivery_on_does_not_open_the_envelopes() -> None:
    """With topics set, an envelope must be signed even where bare events are taken."""
    with pytest.raises(Unauthentic):
        _verify({**_SIGNED, "Signature": None}, _SECRETS | _RAW)
    with pytest.raises(Unauthentic):
        _verify({"what": "is this"}, _SECRETS | _RAW)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_and_never_crash(body: bytes) -> None:
    """Whatever comes, nothing else than `Unauthentic` and `Unreadable` is raised."""
    with pytest.raises(Unauthentic):
        SES.verify({}, body, _SECRETS, NOW)
    with pytest.raises(Unreadable):
        SES.parse(delivery("ses", body), Rules(), NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_KINDS = (
    *("Send", "Delivery", "Bounce", "Complaint", "Open", "Click", "Subscription"),
    *("DeliveryDelay", "Reject", "Received", "AmazonSnsSubscriptionSucceeded", "Teleported"),
)
_PEOPLE = st.lists(_JSON | st.just({"emailAddress": "a@example.com"}), max_size=3)
_WORDS = st.sampled_from(["Permanent", "a@example.com", "192.0.2.1", "2023-06-01T12:00:00Z"])
_FACT_NAMES = ("bounceType", "timestamp", "ipAddress", "userAgent", "newTopicPreferences")
_LISTS = ("bouncedRecipients", "complainedRecipients", "delayedRecipients", "recipients")
_FACTS = st.dictionaries(
    st.sampled_from((*_FACT_NAMES, *_LISTS, "destination", "messageId")), _JSON | _WORDS | _PEOPLE
)
_SECTIONS = ("mail", "send", "delivery", "bounce", "complaint", "open", "click", "subscription")
_EVENTS = st.fixed_dictionaries(
    {"eventType": st.sampled_from(_KINDS) | _JSON},
    optional=dict.fromkeys((*_SECTIONS, "deliveryDelay"), _FACTS | _JSON),
)


@given(
    st.one_of(
        _JSON,
        _EVENTS,
        _EVENTS.map(_envelope),
        st.builds(lambda a, b, c: _envelope(a, MessageId=b, Timestamp=c), _EVENTS, _JSON, _JSON),
        st.dictionaries(st.sampled_from(list(_SIGNED)), _JSON),
    ),
    st.sampled_from([Rules(), Rules("delivered", "SoftBounce", "campaign")]),
)
def test_any_json_gives_outcomes_or_is_unreadable(body: object, rules: Rules) -> None:
    """No JSON at all makes the parser raise anything else; what it buries, it reads again as wrong."""
    try:
        found = SES.parse(delivery("ses", body), rules, NOW)
    except (Unreadable, Probe):
        return
    assert all(shown(outcome) for outcome in found)
    for outcome in found:
        if isinstance(outcome, Invalid):
            (again,) = SES.parse(delivery("ses", outcome.payload), rules, NOW)
            assert isinstance(again, Invalid)

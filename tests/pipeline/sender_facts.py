"""What the bodies of each sender look like: what its own file need not say again, said once.

`FACTS` has an entry for each source but AudienceLab's three, which share one file of tests. Whoever adds a
sender adds its entry here; test_every_sender.py then holds it to what all senders have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

import orjson

from pipeline.deliveries import Delivery
from pipeline.outcomes import Outcome, Stage
from pipeline.sources import Rules
from pipeline.sources.form_body import MULTIPART, URLENCODED
from pipeline.sources.registry import SOURCES
from tests.pipeline.sample_outcomes import NOW, delivery

JSON = "application/json"
IN_PARTS = f"{MULTIPART}; boundary=b"
#: every rule another than the default
OTHER_RULES = Rules("delivered", "SoftBounce", "campaign")
_LONG = b"123456789012345678901234567890"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One sender's bodies.

    *right* is an event of 2023-06-01T12:00:00, *wrong* one that lacks what it needs and holds a number of more
    than 64 bits; *around* is what a call has around one event or, where it can hold them, several with commas
    between. *unknown* are JSON values in which no event can be found, *probes* those that tell of nothing.
    *may_tell_nothing*: a batch may be empty without being a probe.
    """

    right: bytes
    wrong: bytes
    around: bytes = b"%b"
    is_batch: bool = False
    unknown: tuple[object, ...] = ()
    probes: tuple[object, ...] = ()
    may_tell_nothing: bool = False
    stage: Stage = Stage.FORWARD

    def body(self, *events: bytes) -> bytes:
        """Return the JSON that holds *events*."""
        return self.around % b",".join(events)


_CLICK = b'{"event":"click","email":"a@example.com",'
_SPARKPOST = b'{"msys":{"track_event":{"type":"click",%b}}}'
_DATED = b'"created_at":"2023-06-01T12:00:00Z"'
_KLAVIYO = (
    b'{"topic":"event:klaviyo.clicked_email","payload":{"data":{"attributes":{"timestamp":1685620800,'
    b'"event_properties":{"$message":"m"}}},"included":[{"type":"profile","attributes":{"email":"a@example.com"}}]}}'
)
_BRAZE = b'{"event_type":"users.messages.email.Click","id":"e","time":1685620800,"properties":'
_SES = (
    b'{"eventType":"Click","mail":{"messageId":"m","destination":["a@example.com"]},'
    b'"click":{"timestamp":"2023-06-01T12:00:00Z"}}'
)
_SFMC = (
    b'{"eventCategoryType":"TransactionalSendEvents.EmailSent","timestampUTC":1685620800000,'
    b'"composite":{"jobId":"m"},"info":{"to":"a@example.com"}}'
)

FACTS: Mapping[str, Facts] = {
    "scores": Facts(
        right=b'{"emailAddress":"a@example.com","score":7}',
        wrong=b'{"emailAddress":"lin","score":%b}' % _LONG,
        around=b"[%b]",
        is_batch=True,
        unknown=({"foo": 1}, {"scores": {}}, {"events": 1}),
        may_tell_nothing=True,
        stage=Stage.SCORES,
    ),
    "events": Facts(
        right=b'{"email":"a@example.com","type":"Open","occurred_at_utc":"2023-06-01T12:00:00","send_id":"s"}',
        wrong=b'{"email":"grace@example.com","type":"Nope","colour":["red",%b]}' % _LONG,
        around=b"[%b]",
        is_batch=True,
        unknown=({"foo": 1}, {"events": {}}, {"events": None}, 1.5, True),
        may_tell_nothing=True,
    ),
    "sendgrid": Facts(
        right=_CLICK + b'"timestamp":1685620800,"sg_message_id":"m"}',
        wrong=_CLICK + b'"timestamp":1685620800,"x":%b}' % _LONG,
        around=b"[%b]",
        is_batch=True,
        unknown=({"email": "a@example.com"}, {"events": []}),
        probes=([],),
    ),
    "mailgun": Facts(
        right=b'{"event":"clicked","recipient":"a@example.com","timestamp":1685620800.5,"message":{"headers":{"message-id":"m"}}}',
        wrong=b'{"event":"clicked","recipient":"a@example.com","big":%b}' % _LONG,
        around=b'{"signature":{},"event-data":%b}',
        unknown=([], [{"event": "clicked"}], {"signature": {}}, {"events": []}),
    ),
    "postmark": Facts(
        right=b'{"RecordType":"Click","Recipient":"a@example.com","MessageID":"m","ReceivedAt":"2023-06-01T12:00:00Z"}',
        wrong=b'{"RecordType":"Click","MessageID":"m","n":%b}' % _LONG,
        unknown=([], [{"RecordType": "Click"}], {"RecordType": None}, {"Recipient": "a@b.example"}),
    ),
    "ses": Facts(
        right=_SES,
        wrong=b'{"eventType":"Bounce","mail":{},"bounce":{"x":%b}}' % _LONG,
        unknown=([], {"mail": {}}, {"eventType": 1.5}, {"eventType": ""}),
        probes=({"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "You have"},),
    ),
    "sparkpost": Facts(
        right=_SPARKPOST % b'"rcpt_to":"a@example.com","timestamp":"1685620800","message_id":"m"',
        wrong=_SPARKPOST % (b'"event_id":%b' % _LONG),
        around=b"[%b]",
        is_batch=True,
        unknown=({"results": []}, {"track_event": {"type": "click"}}),
        probes=([{"msys": {}}], [{"msys": {}}, {"msys": {}}], {"msys": {}}, []),
    ),
    "mandrill": Facts(
        right=b'{"event":"click","ts":1685620800,"_id":"m","msg":{"email":"a@example.com"}}',
        wrong=b'{"event":"click","x":%b}' % _LONG,
        around=b"[%b]",
        is_batch=True,
        unknown=({"msg": {}}, {"mandrill_events": []}),
        probes=([],),
    ),
    "brevo": Facts(
        right=_CLICK + b'"message-id":"m","ts":1685620800}',
        wrong=_CLICK + b'"ts_epoch":1685620800000,"x":%b}' % _LONG,
        around=b"[%b]",
        is_batch=True,
        unknown=({"email": "a@example.com"}, {"items": []}),
        probes=([],),
    ),
    "mailjet": Facts(
        right=_CLICK + b'"MessageID":5,"time":1685620800}',
        wrong=_CLICK + b'"MessageID":%b,"time":1685620800}' % _LONG,
        around=b"[%b]",
        is_batch=True,
        unknown=({"email": "a@example.com"}, {"events": []}),
        probes=([],),
    ),
    "resend": Facts(
        right=b'{"type":"email.sent",%b,"data":{"email_id":"m","to":["a@example.com"]}}' % _DATED,
        wrong=b'{"type":"email.sent",%b,"data":{"to":["a@example.com"],"n":%b}}' % (_DATED, _LONG),
        unknown=({"data": {}}, [], [{"type": "email.sent"}]),
    ),
    "mailersend": Facts(
        right=b'{"type":"activity.sent",%b,"data":{"recipient":"a@example.com","message_id":"m"}}'
        % _DATED,
        wrong=b'{"type":"activity.opened","data":{"big":%b}}' % _LONG,
        unknown=({"data": {}}, [], [{"type": "activity.sent"}]),
        probes=(
            {"type": "webhook.test", "message": "This is a ping test message", "created_at": ""},
        ),
    ),
    "mailtrap": Facts(
        right=_CLICK + b'"message_id":"m","timestamp":1685620800}',
        wrong=_CLICK + b'"x":%b}' % _LONG,
        around=b'{"events":[%b]}',
        is_batch=True,
        unknown=({"email": "a@example.com"}, {"events": None}, {"events": {}}),
        probes=([], {"events": []}, {"events": [], "x": 1}),
    ),
    "klaviyo": Facts(
        right=_KLAVIYO,
        wrong=b'{"topic":"event:klaviyo.opened_email","payload":{"n":%b}}' % _LONG,
        around=b'{"data":[%b]}',
        is_batch=True,
        unknown=({"data": {}}, {"data": None}, {"meta": {}}, []),
        probes=({"meta": {"klaviyo_webhook_id": "wh-1"}, "data": []},),
    ),
    "customerio": Facts(
        right=b'{"object_type":"email","metric":"sent","timestamp":1685620800,"event_id":"e",'
        b'"data":{"recipient":"a@example.com","delivery_id":"m"}}',
        wrong=b'{"object_type":"email","metric":"sent","n":%b}' % _LONG,
        unknown=({"event_id": "x"}, [], [{"metric": "sent"}]),
    ),
    "iterable": Facts(
        right=b'{"eventName":"emailSend","email":"a@example.com",'
        b'"dataFields":{"messageId":"m","createdAt":"2023-06-01 12:00:00 +00:00"}}',
        wrong=b'{"eventName":"emailSend","n":%b}' % _LONG,
        unknown=({"email": "ada@example.com"}, [], [{"eventName": "emailSend"}]),
    ),
    "braze": Facts(
        right=_BRAZE + b'{"email_address":"a@example.com","dispatch_id":"m"}}',
        wrong=b'{"event_type":"users.messages.email.Send","n":%b}' % _LONG,
        around=b'{"events":[%b]}',
        is_batch=True,
        unknown=({"events": {}}, {"events": None}, [], [{"event_type": "x"}]),
        probes=({"events": []}, {"events": [], "more": 1}),
    ),
    "sfmc": Facts(
        right=_SFMC,
        wrong=b'{"eventCategoryType":"TransactionalSendEvents.EmailSent","n":%b}' % _LONG,
        around=b"[%b]",
        is_batch=True,
        unknown=({"events": []}, {"callbackId": "c"}, {"verificationKey": "k"}),
        probes=([], {"callbackId": "c", "verificationKey": "once"}),
    ),
    "mailchimp": Facts(
        right=b'{"type":"unsubscribe","fired_at":"2023-06-01 12:00:00",'
        b'"data[email]":"a@example.com","data[list_id]":"l"}',
        wrong=b'{"type":"unsubscribe","data[email]":"a@example.com","data[merges][X]":"%b"}'
        % _LONG,
        unknown=({"a": "1"}, {"data[type]": "unsubscribe"}),
    ),
}


def posted(source: str, value: bytes) -> list[Delivery]:
    """Return a delivery of the JSON *value* in each form in which its sender posts it."""
    if source == "mandrill":
        return as_forms(source, [("mandrill_events", value.decode())])
    if source == "mailchimp":
        return as_forms(source, fields(orjson.loads(value)))
    return [replace(delivery(source, value), content_type=JSON)]


def fields(value: object) -> list[tuple[str, str]]:
    """Return the fields of a form that holds what is in *value*, as far as it has names."""
    pairs = value.items() if isinstance(value, dict) else ()
    return [
        (name, each if isinstance(each, str) else orjson.dumps(each).decode())
        for name, each in pairs
    ]


def as_forms(source: str, form: Iterable[tuple[str, str]]) -> list[Delivery]:
    """Return a delivery of *form* in each of the two ways to write one."""
    form = list(form)
    bodies = {URLENCODED: urlencode(form, errors="replace").encode(), IN_PARTS: in_parts(form)}
    return [
        replace(delivery(source, body), content_type=content_type)
        for content_type, body in bodies.items()
    ]


def in_parts(form: Iterable[tuple[str, str]]) -> bytes:
    """Return *form* as multipart/form-data."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form
    ]
    return ("".join(parts) + "--b--\r\n").encode("utf-8", "replace")


def sampled(source: str, sample: Mapping[str, object]) -> list[Delivery]:
    """Return a delivery of *sample* in each form in which its sender posts it."""
    if isinstance(form := sample.get("form"), list):
        return as_forms(source, [(name, value) for name, value in form])
    body = sample["body"]
    if source == "mailchimp" and isinstance(body, str):
        as_written = replace(delivery(source, body.encode()), content_type=URLENCODED)
        return [as_written, *as_forms(source, parse_qsl(body, keep_blank_values=True))]
    return posted(source, body if isinstance(body, bytes) else orjson.dumps(body))


def told(one: Delivery, rules: Rules | None = None) -> list[Outcome]:
    """Return what *one* tells, after its door has let it in."""
    source = SOURCES[one.source]
    source.check(one.body, one.content_type)
    return source.parse(one, rules or Rules(), NOW)

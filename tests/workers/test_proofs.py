"""Proofs: what nobody signed is buried, what cannot be found out now waits, nobody else is asked or held up."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pipeline import dead_letters
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.outcomes import Stage
from pipeline.queues import Queues
from pipeline.scripts import script
from pipeline.sources import sns
from pipeline.sources.mailgun import MAILGUN
from pipeline.sources.registry import SOURCES
from pipeline.sources.ses import SES
from tests.workbench import Workbench, mail_events
from workers import proofs
from workers.timing import Timing

pytestmark = pytest.mark.anyio

TOPIC = "arn:aws:sns:us-east-1:123456789012:ses"
HOST = "https://sns.us-east-1.amazonaws.com"
CERTIFICATE = HOST + "/SimpleNotificationService-1.pem"
SUBSCRIBE = HOST + "/?Action=ConfirmSubscription&Token=t-1"
TOKEN = "0123456789abcdef0123456789abcdef"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """Return a key of its own for each *name*."""
    return rsa.generate_private_key(65537, 2048)


def certificate(key: Key) -> bytes:
    """Return a certificate that *key* signed for itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.example.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def message(n: int = 1, version: str = "1", **changed: object) -> dict[str, object]:
    """Return SNS's message number *n* about a click, not signed yet."""
    event = {
        "eventType": "Click",
        "mail": {"messageId": "m-1", "destination": [f"person{n}@example.com"]},
        "click": {"timestamp": "2026-01-01T12:00:00.000Z"},
    }
    fields: dict[str, object] = {
        "Type": "Notification",
        "MessageId": f"sns-{n}",
        "TopicArn": TOPIC,
        "Subject": "Amazon SES Email Event Notification",
        "Message": orjson.dumps(event).decode(),
        "Timestamp": "2026-01-01T12:00:01.000Z",
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE,
    }
    return {name: value for name, value in (fields | changed).items() if value is not None}


def confirmation(**changed: object) -> dict[str, object]:
    """Return SNS's question whether the endpoint wants the topic."""
    asked = {"Type": "SubscriptionConfirmation", "Token": "t-1", "SubscribeURL": SUBSCRIBE}
    fields = message(Message="You have chosen to subscribe\n", Subject=None)
    return fields | asked | changed


def signed(fields: dict[str, object], key: str = "Amazon", **afterwards: object) -> bytes:
    """Sign as the documentation describes it, then change what *afterwards* says."""
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if fields["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{fields[name]}\n" for name in names if name in fields).encode()
    algorithm = SHA1() if fields["SignatureVersion"] == "1" else SHA256()  # noqa: S303 - Amazon's
    signature = b64encode(rsa_key(key).sign(text, PKCS1v15(), algorithm)).decode()
    return orjson.dumps({**fields, "Signature": signature, **afterwards})


@dataclass
class Amazon:
    """What stands at Amazon's addresses, and who asked there."""

    pages: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    is_away: bool = False
    asked: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.asked.append(str(request.url))
        if self.is_away:
            raise httpx.ConnectError("no route to host")
        if self.status != 200:
            return httpx.Response(self.status, headers={"Location": "https://example.com/"})
        page = self.pages.get(str(request.url))
        return httpx.Response(404 if page is None else 200, content=page)


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Amazon:
    """Put a stand-in where the network would be."""
    stand_in = Amazon({CERTIFICATE: certificate(rsa_key("Amazon")), SUBSCRIBE: b"<xml/>"})

    def new_client(**_: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(stand_in))

    monkeypatch.setattr(proofs, "new_client", new_client)
    return stand_in


@pytest.fixture
def bench(
    make_bench: Callable[..., Workbench], amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> Workbench:
    """Give a workbench that knows its topic and Mailgun's key."""
    monkeypatch.setitem(SOURCES, "ses", SES)
    monkeypatch.setitem(SOURCES, "mailgun", MAILGUN)
    return make_bench(email_format="plain", ses_topic_arns=TOPIC, mailgun_signing_key="k" * 16)


async def row(bench: Workbench) -> dict[str, int]:
    """Return what became of the deliveries; the books must balance."""
    await bench.assert_balanced()
    return await bench.row(Stage.UNPACK)


# Amazon's --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", ["Amazon SES Email Event Notification", None])
async def test_a_true_signature_lets_the_event_through(
    bench: Workbench, amazon: Amazon, version: str, subject: str | None
) -> None:
    """Both versions of the signature verify, with and without a subject; the certificate is fetched."""
    await bench.put("ses", signed(message(version=version, Subject=subject)))
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]
    assert await row(bench) == {"in": 1, "done": 1}
    assert amazon.asked == [CERTIFICATE]


async def test_a_certificate_is_fetched_once(bench: Workbench, amazon: Amazon) -> None:
    """It is kept in Redis for a week, for every worker and every later message."""
    await bench.put("ses", signed(message(1)), signed(message(2)))
    await bench.work_until(bench.is_idle)
    await bench.put("ses", signed(message(3)))
    await bench.work_until(bench.is_idle)
    assert len(bench.arrived) == 3
    assert amazon.asked == [CERTIFICATE]
    (key,) = await bench.redis.keys("{relay}:proof:certificate:*")
    assert await bench.redis.pttl(key) > proofs.CERTIFICATE_KEEP_MS - 60_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(signed(message(), "somebody"), id="another's key"),
        pytest.param(signed(message(), Message=message(2)["Message"]), id="message changed"),
        pytest.param(signed(message(), Timestamp="2026-01-01T12:00:02.000Z"), id="time changed"),
        pytest.param(signed(message(), Subject=None), id="subject lost"),
        pytest.param(signed(message(), SignatureVersion="2"), id="version changed"),
        pytest.param(signed(message(), SignatureVersion="3"), id="version unknown"),
        pytest.param(signed(message(), Signature="%%%"), id="not base64"),
        pytest.param(signed(message(), Signature="AAAA"), id="too short"),
        pytest.param(signed(message(), Type="Other"), id="type unknown"),
        pytest.param(signed(message(), MessageId=7), id="id no text"),
    ],
)
async def test_a_false_signature_is_buried(bench: Workbench, body: bytes) -> None:
    """Nothing of it leaves; the letter is a `signature` and holds the delivery."""
    await bench.put("ses", body)
    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead()
    assert (letter.stage, letter.source, letter.reason) == ("unpack", "ses", "signature")
    assert bench.arrived == []
    assert await row(bench) == {"in": 1, "dead": 1}


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-east-1.amazonaws.com/a.pem",
        "https://sns.us-east-1.amazonaws.com.example.com/a.pem",
        "https://sns.us-east-1.amazonaws.com@example.com/a.pem",
        "https://user@sns.us-east-1.amazonaws.com/a.pem",
        "https://sns.us-east-1.amazonaws.com:8443/a.pem",
        "https://example.com/sns.us-east-1.amazonaws.com/a.pem",
        "https://example.com\\@sns.us-east-1.amazonaws.com/a.pem",
        "https://snsxus-east-1.amazonaws.com/a.pem",
        "https://s3.us-east-1.amazonaws.com/sns/a.pem",
        "https://sns.a.b.amazonaws.com/a.pem",
        "https://sns.us-east-1.amazonaws.com.uk/a.pem",
        "https://sns.us-east-1.amazonaws.com/a.pem?x=1",
        "https://sns.us-east-1.amazonaws.com/?Action=x&y=.pem",
        "https://sns.us-east-1.amazonaws.com/a.pem#.pem",
        "https://sns.us-east-1.amazonaws.com/a.txt",
        "https://169.254.169.254/a.pem",
        "file:///etc/a.pem",
        "é",
    ],
)
async def test_nobody_but_amazon_is_asked_for_a_certificate(
    bench: Workbench, amazon: Amazon, url: str
) -> None:
    """The address is judged before anything is fetched there, however it is dressed up."""
    amazon.pages[url] = certificate(rsa_key("Amazon"))
    await bench.put("ses", signed(message(), SigningCertURL=url))
    await bench.work_until(bench.is_idle)
    assert [letter.reason for letter in await bench.dead()] == ["signature"]
    assert amazon.asked == []
    assert await row(bench) == {"in": 1, "dead": 1}


async def test_amazon_in_china_is_amazon(bench: Workbench, amazon: Amazon) -> None:
    """Its hosts end in `.cn`."""
    url = "https://sns.cn-north-1.amazonaws.com.cn/a.pem"
    amazon.pages[url] = amazon.pages[CERTIFICATE]
    await bench.put("ses", signed(message(SigningCertURL=url)))
    await bench.work_until(bench.is_idle)
    assert amazon.asked == [url]
    assert await row(bench) == {"in": 1, "done": 1}


@pytest.mark.parametrize(
    "page",
    [
        None,
        b"",
        b"<html>",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        certificate(ec.generate_private_key(ec.SECP256R1())),
        certificate(rsa_key("Amazon")) + b"\n" * proofs.MOST_CERTIFICATE_BYTES,
    ],
    ids=["404", "empty", "a page", "broken", "not RSA", "too long"],
)
async def test_what_is_no_certificate_proves_nothing(
    bench: Workbench, amazon: Amazon, page: bytes | None
) -> None:
    """Amazon's own answer is final: the delivery is buried, and the answer is not kept as a certificate."""
    if page is None:
        del amazon.pages[CERTIFICATE]
    else:
        amazon.pages[CERTIFICATE] = page
    await bench.put("ses", signed(message()))
    await bench.work_until(bench.is_idle)
    assert await row(bench) == {"in": 1, "dead": 1}
    for key in await bench.redis.keys("{relay}:proof:certificate:*"):
        assert await bench.redis.get(key) in (None, b"")


@pytest.mark.parametrize("topic", [TOPIC + "-other", ""])
async def test_another_topic_is_buried_and_nobody_is_asked(
    bench: Workbench, amazon: Amazon, topic: str
) -> None:
    """Everybody can have a topic at Amazon: a true signature of another one is worth nothing."""
    await bench.put("ses", signed(message(TopicArn=topic)), orjson.dumps(message()))
    await bench.work_until(bench.is_idle)
    assert [letter.reason for letter in await bench.dead()] == ["signature"] * 2
    assert amazon.asked == []


@pytest.mark.parametrize("status", [None, 301, 403, 429, 500, 503])
async def test_an_outage_buries_nothing(
    bench: Workbench, amazon: Amazon, status: int | None
) -> None:
    """While Amazon cannot be asked its deliveries wait, those beside them do not; then all arrive."""
    amazon.is_away, amazon.status = status is None, status or 200
    now = 1_767_225_600_000
    bodies = [
        ("ses", signed(message(100))),
        ("events", mail_events(2)),
        ("ses", signed(message(101))),
    ]
    await bench.inbox.put(
        [Delivery(new_delivery_id(), source, body, now, "text/plain") for source, body in bodies]
    )
    async with bench.at_work():
        await bench.until(lambda: len(bench.arrived) == 2 and len(amazon.asked) >= 3)
        assert await row(bench) == {"in": 3, "waiting": 2, "done": 1}
        assert await bench.dead() == []
        amazon.is_away, amazon.status = False, 200
        await bench.until(bench.is_idle)
    names = ("person0", "person1", "person100", "person101")
    assert sorted(bench.arrived) == sorted(f"{name}@example.com" for name in names)
    assert await row(bench) == {"in": 3, "done": 3}


async def test_what_waits_is_not_asked_for_again_at_once(bench: Workbench, amazon: Amazon) -> None:
    """A mark in Redis keeps every drain from asking until its time is over."""
    bench.timing = Timing(sweep_s=0.05, backoff_cap_s=60.0)
    amazon.is_away = True
    await bench.put("ses", signed(message(1)), signed(message(2)))
    other = HOST + "/other.pem"
    await bench.put("ses", signed(message(3, SigningCertURL=other)))
    waiting = await bench.redis.xrange("{relay}:queue:unpack")
    async with bench.at_work():
        await bench.until(lambda: amazon.asked != [])
        await bench.put("events", mail_events(1))
        await bench.until(lambda: bench.arrived != [])
        bells = int(await bench.redis.hget("{relay}:bells", "unpack") or 0)
        # it is looked at again by a drain for each sweep, and by no more
        await bench.until(lambda: _rung(bench, bells + 3))
    assert amazon.asked == [CERTIFICATE]
    # written anew they would be new work at once, and the drain would go round and round
    assert await bench.redis.xrange("{relay}:queue:unpack") == waiting
    assert await row(bench) == {"in": 4, "waiting": 3, "done": 1}


async def _rung(bench: Workbench, number: int) -> bool:
    return int(await bench.redis.hget("{relay}:bells", "unpack") or 0) >= number


async def test_a_wait_does_not_outlive_its_worker(bench: Workbench, amazon: Amazon) -> None:
    """A worker that stops gives back what waited in its hands, and the next one finishes it."""
    amazon.is_away = True
    await bench.put("ses", signed(message()))
    await bench.work_until(lambda: len(amazon.asked) >= 1)
    amazon.is_away = False
    assert await Queues(bench.redis, "nobody").release(Stage.UNPACK) == 0
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]


async def test_a_subscription_is_confirmed(bench: Workbench, amazon: Amazon) -> None:
    """Once its signature is true its address is asked, and the delivery counts as a probe."""
    await bench.put("ses", signed(confirmation()))
    await bench.work_until(bench.is_idle)
    assert amazon.asked == [CERTIFICATE, SUBSCRIBE]
    assert await row(bench) == {"in": 1, "ignored": 1}


@pytest.mark.parametrize(
    "body",
    [
        signed(confirmation(), "somebody"),
        signed(confirmation(TopicArn=TOPIC + "-other")),
        signed(confirmation(), SubscribeURL=SUBSCRIBE + "2"),
        signed(confirmation(), Token="t-2"),
        signed(confirmation(SubscribeURL="https://example.com/?Action=ConfirmSubscription")),
        signed(confirmation(SubscribeURL="http://sns.us-east-1.amazonaws.com/")),
        signed(confirmation(SubscribeURL="https://sns.us-east-1.amazonaws.com@example.com/")),
    ],
    ids=["false", "topic", "address changed", "token changed", "other host", "http", "user"],
)
async def test_a_false_subscription_is_not_confirmed(
    bench: Workbench, amazon: Amazon, body: bytes
) -> None:
    """Neither a false one, nor another topic's, nor at an address that is not Amazon's."""
    await bench.put("ses", body)
    await bench.work_until(bench.is_idle)
    assert set(amazon.asked) <= {CERTIFICATE}
    assert [letter.reason for letter in await bench.dead()] == ["signature"]


async def test_leaving_a_topic_confirms_nothing(bench: Workbench, amazon: Amazon) -> None:
    """Its message has the address that would subscribe again; nobody asks there."""
    await bench.put("ses", signed(confirmation(Type="UnsubscribeConfirmation")))
    await bench.work_until(bench.is_idle)
    assert amazon.asked == [CERTIFICATE]
    assert await row(bench) == {"in": 1, "ignored": 1}


async def test_a_confirmation_that_fails_waits_and_is_tried_again(
    bench: Workbench, amazon: Amazon
) -> None:
    """An error over there buries nothing; one that is final does."""
    await bench.put("ses", signed(message()))
    await bench.work_until(bench.is_idle)
    amazon.status = 500
    await bench.put("ses", signed(confirmation()))
    await bench.work_until(lambda: amazon.asked.count(SUBSCRIBE) >= 2)
    assert await row(bench) == {"in": 2, "done": 1, "waiting": 1}
    amazon.status = 400
    await bench.work_until(bench.is_idle)
    assert await row(bench) == {"in": 2, "done": 1, "dead": 1}


async def test_a_message_that_was_taken_for_false_can_be_retried(
    bench: Workbench, amazon: Amazon
) -> None:
    """A retry asks again: what is true now is taken apart."""
    certificate_page = amazon.pages.pop(CERTIFICATE)
    await bench.put("ses", signed(message()))
    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead()
    amazon.pages[CERTIFICATE] = certificate_page
    await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]


async def test_without_topics_nobody_is_asked(
    bench: Workbench, make_bench: Callable[..., Workbench], amazon: Amazon
) -> None:
    """Messages are believed by the token alone, and no subscription is confirmed."""
    bench = make_bench(email_format="plain")
    await bench.put("ses", orjson.dumps(message()), orjson.dumps(confirmation()))
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]
    assert amazon.asked == []
    assert await row(bench) == {"in": 2, "done": 1, "ignored": 1}


@pytest.mark.parametrize("topics", [None, TOPIC])
async def test_raw_delivery_is_taken_only_where_it_is_switched_on(
    bench: Workbench, make_bench: Callable[..., Workbench], topics: str | None
) -> None:
    """It is buried until it is wanted, and a retry takes it then."""
    text = message()["Message"]
    assert isinstance(text, str)
    bench = make_bench(email_format="plain", ses_topic_arns=topics)
    await bench.put("ses", text.encode())
    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead()
    assert letter.reason == "signature"
    bench = make_bench(email_format="plain", ses_topic_arns=topics, ses_raw_delivery=True)
    await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]


async def test_our_own_fault_buries_one_delivery_and_no_other(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that fails on a proof is tried three times; what came in the same flush goes on."""

    def failing(*_: object) -> None:
        raise RuntimeError("tripped")

    monkeypatch.setattr(sns, "check_signature", failing)
    now = 1_767_225_600_000
    bodies = [("ses", signed(message())), ("events", mail_events(1))]
    await bench.inbox.put([Delivery(new_delivery_id(), name, body, now) for name, body in bodies])
    await bench.work_until(bench.is_idle)
    assert [letter.reason for letter in await bench.dead()] == ["bug"]
    assert await row(bench) == {"in": 2, "done": 1, "dead": 1}


# Mailgun's -------------------------------------------------------------------------------------------


def mailgun(n: int = 1, token: str = TOKEN, **more: object) -> bytes:
    """Return Mailgun's call about person *n*."""
    event = {
        "id": f"event-{n}",
        "event": "clicked",
        "recipient": f"person{n}@example.com",
        "timestamp": 1_767_225_600.5,
        "message": {"headers": {"message-id": "m-1@example.com"}},
    }
    proof = {"timestamp": "1767225600", "token": token, "signature": "00"}
    return orjson.dumps({"signature": proof, "event-data": event, **more})


async def test_a_token_with_another_event_is_a_replay(bench: Workbench) -> None:
    """The signature does not cover the event: what comes second under the same token is buried."""
    await bench.put("mailgun", mailgun(1), mailgun(2))
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]
    (letter,) = await bench.dead()
    assert (letter.source, letter.reason) == ("mailgun", "signature")
    await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)
    assert await row(bench) == {"in": 2, "done": 1, "dead": 1}


async def test_the_same_event_again_is_a_retry(bench: Workbench) -> None:
    """Mailgun's own repetition is taken apart as always, also when it was signed anew; its event is a duplicate."""
    again = orjson.loads(mailgun())
    again["signature"] |= {"timestamp": "1767229200", "signature": "01"}
    for body in (mailgun(), mailgun(), orjson.dumps(again)):
        await bench.put("mailgun", body)
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]
    assert await row(bench) == {"in": 3, "done": 3}
    assert await bench.count(Stage.FORWARD, "duplicate") == 2


async def test_a_token_is_remembered_for_a_day(bench: Workbench) -> None:
    """Longer than the receiver takes an old signature; another token is another call."""
    await bench.put("mailgun", mailgun(1), mailgun(2, token="f" * 32))
    await bench.work_until(bench.is_idle)
    assert len(bench.arrived) == 2
    names = await bench.redis.keys("{relay}:proof:mailgun-token:*")
    assert len(names) == 2
    for name in names:
        assert TOKEN not in name.decode()
        assert 86_400_000 - 60_000 < await bench.redis.pttl(name) <= 86_400_000


async def test_a_form_has_its_token_too(bench: Workbench) -> None:
    """In the form posts of before 2018 the token stands among the fields, the customer's before Mailgun's."""
    now = 1_767_225_600_000

    def form(n: int) -> Delivery:
        fields = [
            ("event", "clicked"),
            ("recipient", f"person{n}@example.com"),
            ("token", f"my{n}"),
        ]
        fields += [("Message-Id", "<m-1@example.com>"), ("timestamp", "1767225600")]
        body = urlencode([*fields, ("token", TOKEN), ("signature", "00")]).encode()
        kind = "application/x-www-form-urlencoded"
        return Delivery(new_delivery_id(), "mailgun", body, now, kind)

    await bench.inbox.put([form(1), form(1), form(2)])
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]
    assert await row(bench) == {"in": 3, "done": 2, "dead": 1}


async def test_without_the_key_no_token_is_remembered(
    bench: Workbench, make_bench: Callable[..., Workbench]
) -> None:
    """Where nobody checks the signature, its token says nothing."""
    bench = make_bench(email_format="plain")
    await bench.put("mailgun", mailgun(1), mailgun(2))
    await bench.work_until(bench.is_idle)
    assert len(bench.arrived) == 2
    assert await bench.redis.keys("{relay}:proof:*") == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"{}",
        b'{"signature": 1}',
        b'{"signature": {"token": []}}',
        b'{"signature": {"token": "t"}, "event-data": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
async def test_a_body_without_a_token_is_not_a_replay(bench: Workbench, body: bytes) -> None:
    """Whatever it is, the source says what is wrong with it, and nothing trips."""
    await bench.put("mailgun", body, body)
    await bench.work_until(bench.is_idle)
    assert {letter.reason for letter in await bench.dead()} <= {
        "malformed",
        "unknown_shape",
        "invalid",
    }


async def test_a_full_server_still_proves(bench: Workbench) -> None:
    """What could not be kept for want of memory would keep a full server from draining: it is kept all the same."""
    keep = script(bench.redis, "proof")
    await bench.redis.config_set("maxmemory", 1)
    try:
        answers = [await keep(args=["kind:1", value, 60_000, 0]) for value in ("a", "b")]
        answers += [await keep(args=["kind:1", value, 60_000, 1]) for value in ("c", "d")]
    finally:
        await bench.redis.config_set("maxmemory", 0)
    assert answers == [None, b"a", b"a", b"c"]
    assert await bench.redis.get("{relay}:proof:kind:1") == b"d"

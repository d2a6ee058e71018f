"""Proofs: what nobody signed is buried, what cannot be found out now waits, nobody else is asked or held up."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
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
from redis.asyncio import Redis

from pipeline import books, calls, dead_letters, keys, pauses
from pipeline.deliveries import SIGNED, Delivery, new_delivery_id
from pipeline.endpoints import Endpoint
from pipeline.inbox import Inbox
from pipeline.moves import Mover
from pipeline.outcomes import Stage, Unreadable
from pipeline.queues import Queues
from pipeline.scripts import script
from pipeline.settings import Settings
from pipeline.sources import Rules, sns
from pipeline.sources.mailgun import MAILGUN
from pipeline.sources.registry import SOURCES
from pipeline.sources.ses import SES
from pipeline.tombstones import Tombstones
from pipeline.wake import Bell, arq_redis
from sandbox.faults import Faults
from sandbox.memory import Memory
from tests.pipeline.work import full
from tests.vendors import Sandbox
from tests.workbench import PATIENCE_S, QUICK, Workbench, mail_events, settings_for
from workers import asking, proofs, questions, unpack
from workers.context import Context
from workers.drains import Drains
from workers.timing import Timing

pytestmark = pytest.mark.anyio

TOPIC = "arn:aws:sns:us-east-1:123456789012:ses"
HOST = "https://sns.us-east-1.amazonaws.com"
CERTIFICATE = HOST + "/SimpleNotificationService-f3ecfb7224c7233fe7bb5f59f96de52f.pem"
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
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, once it is open."""
        self.asked.append(str(request.url))
        await self.is_open.wait()
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
    stand_in.is_open.set()

    def new_client(**_: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(stand_in))

    monkeypatch.setattr(questions, "new_client", new_client)
    return stand_in


@pytest.fixture
def bench(
    make_bench: Callable[..., Workbench], amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> Workbench:
    """Give a workbench that knows its topic and Mailgun's key."""
    monkeypatch.setitem(SOURCES, "ses", SES)
    monkeypatch.setitem(SOURCES, "mailgun", MAILGUN)
    return make_bench(email_format="plain", ses_topic_arns=TOPIC, mailgun_signing_key="k" * 16)


@dataclass
class Desk:
    """A worker's context without its loop: proofs are asked for one at a time."""

    redis: Redis
    settings: Settings
    timing: Timing = QUICK

    def __post_init__(self) -> None:
        """Make the context."""
        self.context = Context(
            settings=self.settings,
            redis=self.redis,
            consumer="one",
            mover=Mover(self.redis, "one", 1),
            queues=Queues(self.redis, "one"),
            bell=Bell(arq_redis(self.redis.connection_pool)),
            tombstones=Tombstones(self.redis),
            audiencepoint=None,
            audiencelab=None,
            timing=self.timing,
        )

    async def look(
        self,
        body: bytes,
        source: str = "ses",
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Return `true`, `later`, or the reason of the burial and what is wrong."""
        delivery = Delivery("1", source, body, 0, content_type, headers=headers or {})
        try:
            await proofs.check(self.context, delivery)
        except proofs.Later:
            return "later"
        except Unreadable as unreadable:
            return f"{unreadable.reason}: {unreadable.error}"
        return "true"

    async def look_until(
        self,
        is_over: Callable[[str], bool],
        body: bytes,
        source: str = "ses",
        content_type: str = "",
    ) -> str:
        """Look until *is_over* says so of what is said; return that."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                said = await self.look(body, source, content_type)
                if is_over(said):
                    return said
                await asyncio.sleep(0.005)

    async def verdict(self, body: bytes) -> str:
        """Look until there is one."""
        return await self.look_until(lambda said: said != "later", body)

    async def wait(self, body: bytes, until: Callable[[], bool]) -> None:
        """Look at what has to wait *until* something has happened."""
        assert await self.look_until(lambda said: said != "later" or until(), body) == "later"


@cache
def settings_of_desk(redis_url: str, **changed: object) -> Settings:
    """Return settings with a topic and Mailgun's key; reading them takes longer than any test at a desk."""
    nowhere = Sandbox("http://127.0.0.1:1", Memory(), Faults())
    known: dict[str, object] = {"ses_topic_arns": TOPIC, "mailgun_signing_key": "k" * 16}
    return settings_for(redis_url, nowhere, **known | changed)


@pytest.fixture
async def make_desk(
    redis: Redis, redis_url: str, amazon: Amazon
) -> AsyncIterator[Callable[..., Desk]]:
    """Give a maker of desks; keywords are settings, but for the timing. What they ask ends with the test."""
    desks: list[Desk] = []

    def make(timing: Timing = QUICK, **changed: object) -> Desk:
        desks.append(Desk(redis, settings_of_desk(redis_url, **changed), timing))
        return desks[-1]

    yield make
    for desk in desks:
        desk.context.stopping.set()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*(task for task in others if "_find_out" in repr(task.get_coro())))


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    """Give a desk that knows its topic and Mailgun's key."""
    return make_desk()


async def row(bench: Workbench) -> dict[str, int]:
    """Return what became of the deliveries; the books must balance."""
    await bench.assert_balanced()
    return await bench.row(Stage.UNPACK)


# Amazon's --------------------------------------------------------------------------------------------


async def test_a_true_signature_lets_the_event_through(bench: Workbench, amazon: Amazon) -> None:
    """The certificate is fetched, and waited for, as it comes soon: a worker that runs once leaves nothing behind."""
    await bench.put("ses", signed(message()))
    await bench.work()
    assert bench.arrived == ["person1@example.com"]
    assert await row(bench) == {"in": 1, "done": 1}
    assert amazon.asked == [CERTIFICATE]


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", ["Amazon SES Email Event Notification", "", None])
async def test_both_versions_of_the_signature_verify(
    desk: Desk, version: str, subject: str | None
) -> None:
    """With SHA-1 and SHA-256, with and without a subject, with a message of several lines."""
    text = '{\n "eventType": "Click"\n}\n'
    body = signed(message(version=version, Subject=subject, Message=text))
    assert await desk.verdict(body) == "true"


async def test_a_certificate_is_fetched_once(desk: Desk, amazon: Amazon) -> None:
    """It is kept in Redis for a week, for every worker and every later message."""
    for n in (1, 2, 3):
        assert await desk.verdict(signed(message(n))) == "true"
    assert amazon.asked == [CERTIFICATE]
    (key,) = await desk.redis.keys("{relay}:proof:certificate:*")
    assert await desk.redis.pttl(key) > proofs.CERTIFICATE_KEEP_MS - 60_000


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
        pytest.param(signed(message(), Signature="\u00e9"), id="not ASCII"),
        pytest.param(signed(message(), Type="Other"), id="type unknown"),
        pytest.param(signed(message(), MessageId=7), id="id no text"),
    ],
)
async def test_a_false_signature_is_refused(desk: Desk, body: bytes) -> None:
    """Whatever is false about it, there is a verdict and it is no."""
    assert (await desk.verdict(body)).startswith("signature: ")


async def test_lines_cannot_be_moved_from_field_to_field(desk: Desk) -> None:
    """A true message whose subject stands in its id has the same signed text, and would be another event."""
    true = message()
    body = orjson.loads(signed(true))
    moved = f"{true['MessageId']}\nSubject\n{true['Subject']}"
    del body["Subject"]
    assert "several lines" in await desk.verdict(orjson.dumps(body | {"MessageId": moved}))


NOT_AMAZONS = [
    "http://sns.us-east-1.amazonaws.com/{}",
    "https://sns.us-east-1.amazonaws.com.example.com/{}",
    "https://sns.us-east-1.amazonaws.com@example.com/{}",
    "https://user@sns.us-east-1.amazonaws.com/{}",
    "https://sns.us-east-1.amazonaws.com:8443/{}",
    "https://example.com/sns.us-east-1.amazonaws.com/{}",
    "https://example.com\\@sns.us-east-1.amazonaws.com/{}",
    "https://snsxus-east-1.amazonaws.com/{}",
    "https://sns.us-east-1.amazonaws.com.uk/{}",
    # somebody's bucket that is called `sns`
    "https://sns.s3.amazonaws.com/{}",
    "https://sns.s3-us-west-2.amazonaws.com/{}",
    "https://s3.us-east-1.amazonaws.com/sns/{}",
    # another region than the topic's; one that does not exist would be asked for ever
    "https://sns.eu-west-1.amazonaws.com/{}",
    "https://sns.nowhere-1.amazonaws.com/{}",
    "https://sns.us-east-1.amazonaws.com.cn/{}",
    "https://169.254.169.254/{}",
    "file:///etc/{}",
    "\u00e9{}",
    "",
]
NO_CERTIFICATES = [
    "a.pem",
    "SimpleNotificationService-1.pem?x=1",
    "?Action=x&y=SimpleNotificationService-1.pem",
    "SimpleNotificationService-1.pem#.pem",
    "x/SimpleNotificationService-1.pem",
    "/SimpleNotificationService-1.pem",
    "SimpleNotificationService-/../1.pem",
    "SimpleNotificationService-1.pem\n",
    "SimpleNotificationService-1.txt",
]


@pytest.mark.parametrize(
    "url",
    [
        *(url.replace("{}", "SimpleNotificationService-1.pem") for url in NOT_AMAZONS),
        *(f"{HOST}/{path}" for path in NO_CERTIFICATES[:-2]),
        f"{HOST}/{NO_CERTIFICATES[-1]}",
    ],
)
async def test_nobody_but_amazon_is_asked_for_a_certificate(
    desk: Desk, amazon: Amazon, url: str
) -> None:
    """The address is judged before anything is fetched there, however it is dressed up."""
    amazon.pages[url] = certificate(rsa_key("Amazon"))
    assert (await desk.verdict(signed(message(), SigningCertURL=url))).startswith("signature: ")
    assert amazon.asked == []


@pytest.mark.parametrize(
    ("topic", "host"),
    [
        ("arn:aws-cn:sns:cn-north-1:123456789012:ses", "https://sns.cn-north-1.amazonaws.com.cn"),
        ("arn:aws-us-gov:sns:us-gov-west-1:1:ses", "https://sns.us-gov-west-1.amazonaws.com"),
    ],
)
async def test_each_partition_has_its_hosts(
    make_desk: Callable[..., Desk], amazon: Amazon, topic: str, host: str
) -> None:
    """China's end in `.cn`; elsewhere there is no such host."""
    desk = make_desk(ses_topic_arns=f"{TOPIC}, {topic}")
    url = host + "/SimpleNotificationService-1.pem"
    amazon.pages[url] = amazon.pages[CERTIFICATE]
    assert await desk.verdict(signed(message(TopicArn=topic, SigningCertURL=url))) == "true"
    assert "not Amazon's" in await desk.verdict(signed(message(SigningCertURL=url)))
    assert amazon.asked == [url]


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
    desk: Desk, amazon: Amazon, page: bytes | None
) -> None:
    """Amazon's own answer is final: it is remembered for a minute, and not as a certificate; then it is asked again."""
    true = amazon.pages.pop(CERTIFICATE)
    if page is not None:
        amazon.pages[CERTIFICATE] = page
    for n in (1, 2):
        assert await desk.verdict(signed(message(n))) != "true"
    assert amazon.asked == [CERTIFICATE]
    (key,) = await desk.redis.keys("{relay}:proof:certificate:*")
    assert 0 < await desk.redis.pttl(key) <= 60_000
    await desk.redis.delete(key)
    amazon.pages[CERTIFICATE] = true
    assert await desk.verdict(signed(message())) == "true"


@pytest.mark.parametrize("topic", [TOPIC + "-other", ""])
async def test_another_topic_is_refused_and_nobody_is_asked(
    desk: Desk, amazon: Amazon, topic: str
) -> None:
    """Everybody can have a topic at Amazon: a true signature of another one is worth nothing."""
    assert "topic" in await desk.verdict(signed(message(TopicArn=topic)))
    assert "no signature" in await desk.verdict(orjson.dumps(message()))
    assert amazon.asked == []


@pytest.mark.parametrize("status", [None, 301, 403, 429, 500, 503])
async def test_an_outage_refuses_nothing(desk: Desk, amazon: Amazon, status: int | None) -> None:
    """While Amazon cannot be asked, or refuses, messages wait, and are asked about again; then they are true."""
    amazon.is_away, amazon.status = status is None, status or 200
    await desk.wait(signed(message()), until=lambda: len(amazon.asked) >= 3)
    amazon.is_away, amazon.status = False, 200
    assert await desk.verdict(signed(message())) == "true"


async def test_an_outage_buries_nothing(bench: Workbench, amazon: Amazon) -> None:
    """While Amazon cannot be asked its deliveries wait, those beside them do not; then all arrive."""
    amazon.is_away = True
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
        amazon.is_away = False
        await bench.until(bench.is_idle)
    names = ("person0", "person1", "person100", "person101")
    assert sorted(bench.arrived) == sorted(f"{name}@example.com" for name in names)
    assert await row(bench) == {"in": 3, "done": 3}


def is_asked_again(amazon: Amazon, times: int) -> bool:
    """Tell whether more than *times* questions have come."""
    return len(amazon.asked) > times


async def test_calls_to_amazon_are_counted(desk: Desk, amazon: Amazon) -> None:
    """A certificate, a 503, a 403 and a host that is not reached are told apart; who is not reached takes no time."""
    body, tally = signed(message()), desk.context.tally
    for status, is_away in ((503, False), (403, False), (200, True), (200, False)):
        amazon.status, amazon.is_away = status, is_away
        already = len(amazon.asked)
        if status == 200 and not is_away:
            assert await desk.verdict(body) == "true"
        else:
            await desk.wait(body, partial(is_asked_again, amazon, already))
            amazon.is_away = True  # what is asked meanwhile is not reached
    await tally.tell(desk.redis)
    known = await calls.read(desk.redis, [Endpoint.PROOFS])
    hour = known[Endpoint.PROOFS].hour
    assert (hour.outcomes["ok"], hour.outcomes["refused"]) == (1, 1)
    assert hour.outcomes["failed"] >= 2
    assert sum(hour.outcomes.values()) == len(amazon.asked)
    assert sum(hour.buckets) == 3
    told = {failure.status: failure.words for failure in known[Endpoint.PROOFS].failures}
    assert told[503] == "sns.us-east-1.amazonaws.com answers 503"


async def test_an_address_that_is_refused_for_long_is_refused(
    make_desk: Callable[..., Desk], amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message whose certificate nobody may read does not wait for ever; others' refusals are not counted for it."""
    # longer than any answer takes here: by then the next one may ask
    desk = make_desk(replace(QUICK, backoff_cap_s=0.5))
    monkeypatch.setattr(questions, "MOST_REFUSALS", 3)
    amazon.status = 403
    said = await desk.verdict(signed(message()))
    assert said == "signature: Amazon keeps answering 403 at the address in the message"
    assert amazon.asked == [CERTIFICATE] * 3
    other = HOST + "/SimpleNotificationService-2.pem"
    assert await desk.look(signed(message(SigningCertURL=other))) == "later"


@pytest.mark.parametrize("status", [None, 429, 500, 503])
async def test_an_outage_is_not_counted(
    desk: Desk, amazon: Amazon, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    """However long it lasts, it is no refusal."""
    monkeypatch.setattr(questions, "MOST_REFUSALS", 1)
    amazon.is_away, amazon.status = status is None, status or 200
    await desk.wait(signed(message()), until=lambda: len(amazon.asked) >= 3)


async def test_an_amazon_that_hangs_holds_nobody_up(
    bench: Workbench, amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a call is on its way everything else is taken apart, also what came after; then its delivery is."""
    monkeypatch.setattr(asking, "PATIENCE_S", 0.01)
    monkeypatch.setattr(questions, "DEADLINE_S", 2 * PATIENCE_S)
    amazon.is_open.clear()
    await bench.put("ses", signed(message(100)))
    await bench.put("events", mail_events(1))

    async def is_forwarded() -> bool:
        return await bench.row(Stage.FORWARD) == {"in": 1, "done": 1}

    async with bench.at_work():
        await bench.until(is_forwarded)
        assert bench.arrived == ["person0@example.com"]
        assert set(amazon.asked) == {CERTIFICATE}
        assert await row(bench) == {"in": 2, "waiting": 1, "done": 1}
        amazon.is_open.set()
        await bench.until(bench.is_idle)
    assert bench.arrived == ["person0@example.com", "person100@example.com"]


async def test_a_worker_that_stops_leaves_no_call_behind(
    bench: Workbench, amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that hangs is broken off, what waited is given back, and the next worker asks again and finishes it."""
    monkeypatch.setattr(asking, "PATIENCE_S", 0.01)
    amazon.is_open.clear()
    await bench.put("ses", signed(message()))
    await bench.work_until(lambda: amazon.asked != [])
    assert [task for task in asyncio.all_tasks() if "_find_out" in repr(task.get_coro())] == []
    assert await Queues(bench.redis, "nobody").release(Stage.UNPACK) == 0
    amazon.is_open.set()
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]


async def test_waiting_for_answers_takes_a_small_part_of_the_time(
    desk: Desk, amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one wait the next questions are put without, until ten times as long has passed."""
    monkeypatch.setattr(asking, "PATIENCE_S", 0.05)
    monkeypatch.setattr(asking, "REST", 100_000)
    monkeypatch.setattr(questions, "DEADLINE_S", 2 * PATIENCE_S)
    amazon.is_open.clear()
    assert await desk.look(signed(message())) == "later"
    monkeypatch.setattr(asking, "PATIENCE_S", 2 * PATIENCE_S)
    other = HOST + "/SimpleNotificationService-2.pem"
    await desk.wait(signed(message(SigningCertURL=other)), until=lambda: other in amazon.asked)


def forged(n: int) -> bytes:
    """Return a message with a certificate of its own."""
    url = f"{HOST}/SimpleNotificationService-{n}.pem"
    return orjson.dumps({**message(n, SigningCertURL=url), "Signature": "AAAA"})


async def test_a_flood_of_addresses_makes_few_calls(
    make_desk: Callable[..., Desk], amazon: Amazon
) -> None:
    """A host is asked once in a while, however many addresses there are messages name; Redis keeps no more marks."""
    desk = make_desk(timing=Timing(backoff_base_s=3600.0))
    said = [await desk.look(forged(n)) for n in range(50)]
    assert said == ["signature: Amazon answers 404 at the address in the message", *["later"] * 49]
    assert len(amazon.asked) == 1
    assert len(await desk.redis.keys("{relay}:proof:*")) == 1


async def test_few_calls_are_on_their_way_at_a_time(
    make_desk: Callable[..., Desk], amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every host may be asked at any time."""
    monkeypatch.setattr(asking, "PATIENCE_S", 0.01)
    amazon.is_open.clear()
    desk = make_desk(timing=Timing(backoff_base_s=0.0))
    for n in range(50):
        assert await desk.look(forged(n)) == "later"
    assert len(amazon.asked) == asking.MOST_AT_ONCE


async def test_what_is_known_needs_no_call_in_a_flood(
    make_desk: Callable[..., Desk], amazon: Amazon
) -> None:
    """A true message whose certificate was fetched before is not held up by the forged ones."""
    assert await make_desk().verdict(signed(message())) == "true"
    desk = make_desk(timing=Timing(backoff_base_s=3600.0))
    assert [await desk.look(forged(n)) for n in range(5)][1:] == ["later"] * 4
    assert await desk.look(signed(message())) == "true"


async def test_what_waits_is_not_asked_for_again_at_once(bench: Workbench, amazon: Amazon) -> None:
    """A mark in Redis keeps every drain from asking until its time is over."""
    bench.timing = Timing(sweep_s=0.05, backoff_cap_s=60.0, backoff_base_s=0.0)
    amazon.is_away = True
    await bench.put("ses", signed(message(1)), signed(message(2)))
    other = HOST + "/SimpleNotificationService-2.pem"
    await bench.put("ses", signed(message(3, SigningCertURL=other)))
    async with bench.at_work():
        await bench.until(lambda: amazon.asked != [])
        await bench.put("events", mail_events(1))
        await bench.until(lambda: bench.arrived != [])
        waiting = await bench.redis.xrange(keys.queue(keys.UNPROVEN))
        bells = int(await bench.redis.hget("{relay}:bells", "unpack") or 0)
        # it is looked at again by a drain for each sweep, and by no more
        await bench.until(lambda: _rung(bench, bells + 3))
    assert amazon.asked == [CERTIFICATE]
    # written anew at every look they would be written all through an outage
    assert await bench.redis.xrange(keys.queue(keys.UNPROVEN)) == waiting
    assert await row(bench) == {"in": 4, "waiting": 3, "done": 1}


async def set_aside(desk: Desk, amazon: Amazon, flushes: int) -> None:
    """Let *flushes* of two deliveries each wait for Amazon, which cannot be reached, and be looked at once."""
    amazon.is_away = True
    inbox = Inbox(desk.redis)
    await inbox.start()
    for n in range(flushes):
        await inbox.put([parcel(2 * n), parcel(2 * n + 1)])
    await drain(desk)


def parcel(n: int) -> Delivery:
    """Return SNS's message number *n* as it was delivered long ago."""
    return Delivery(f"parcel-{n}", "ses", signed(message(n)), 1_767_225_600_000)


async def drain(desk: Desk) -> None:
    """Drain the inbox once, as the worker does."""
    drains = Drains(desk.context)
    async with asyncio.timeout(PATIENCE_S):
        await drains.drain(Stage.UNPACK)


async def in_hand(desk: Desk) -> list[int]:
    """Return which of the entries that wait for a proof the worker has in its hands, counted from the oldest."""
    queue = keys.queue(keys.UNPROVEN)
    known = [entry_id for entry_id, _ in await desk.redis.xrange(queue)]
    rows = await desk.redis.xpending_range(queue, keys.GROUP, "-", "+", 5_000, consumername="one")
    return [known.index(row["message_id"]) for row in rows]


async def test_what_waits_has_a_queue_of_its_own(desk: Desk, amazon: Amazon) -> None:
    """It leaves the inbox in one step, stays in the books, and the status knows since when it waits."""
    await set_aside(desk, amazon, 2)
    assert await desk.redis.xlen(keys.queue("unpack")) == 0
    assert await desk.redis.xlen(keys.queue(keys.UNPROVEN)) == 2
    told = await books.snapshot(desk.redis)
    assert told["stages"]["unpack"]["waiting"] == 4
    assert (await books.recount(desk.redis))[Stage.UNPACK]["waiting"] == 4
    assert told["oldest_waiting_s"] > 86_400


async def test_each_that_waits_has_its_turn(
    desk: Desk, amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain looks at a handful, the next one at the next; when all had their turn, it begins with the first."""
    monkeypatch.setattr(unpack, "MOST_ENTRIES", 2)
    await set_aside(desk, amazon, 5)
    turns = [await in_hand(desk)]
    for _ in range(3):
        await drain(desk)
        turns.append(await in_hand(desk))
    assert turns == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1]]


async def test_more_than_a_thousand_have_their_turn(desk: Desk, amazon: Amazon) -> None:
    """Redis gives back a thousand at a time; those behind them are not forgotten."""
    await set_aside(desk, amazon, 0)
    async with desk.redis.pipeline() as pipe:
        for _ in range(1_100):
            pipe.xadd(keys.queue(keys.UNPROVEN), {"p": b"{}"})
        await pipe.execute()
    queues = desk.context.queues
    await queues.take(keys.UNPROVEN, Stage.UNPACK, most=2_000)
    assert await queues.release_all(keys.UNPROVEN) == 1_100


async def test_what_waits_is_told_in_one_line(
    desk: Desk, amazon: Amazon, caplog: pytest.LogCaptureFixture
) -> None:
    """However many deliveries wait, a drain says only how many it met."""
    await set_aside(desk, amazon, 3)
    caplog.clear()
    with caplog.at_level("INFO", "workers.unpack"):
        await drain(desk)
    assert [one.getMessage() for one in caplog.records if one.name == "workers.unpack"] == [
        "unpack: deliveries wait for a proof deliveries=6"
    ]


async def test_once_proofs_are_found_one_drain_takes_all(
    desk: Desk, amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handful bounds what is looked at in vain, not what is done."""
    await set_aside(desk, amazon, 5)
    monkeypatch.setattr(unpack, "MOST_ENTRIES", 2)
    amazon.is_away = False
    assert await desk.verdict(signed(message())) == "true"
    await drain(desk)
    assert await desk.redis.xlen(keys.queue(keys.UNPROVEN)) == 0
    assert (await books.snapshot(desk.redis))["stages"]["unpack"]["done"] == 10


async def test_a_resume_leaves_what_waits_where_it_is(desk: Desk, amazon: Amazon) -> None:
    """It lets held batches of calls try again; these are none."""
    await set_aside(desk, amazon, 2)
    await pauses.pause(desk.redis, Stage.UNPACK, "moving house")
    await desk.context.queues.release(Stage.UNPACK)
    await pauses.resume(desk.redis, Stage.UNPACK)
    assert (await books.recount(desk.redis))[Stage.UNPACK]["waiting"] == 4


async def test_a_worker_that_stops_gives_back_what_waits(desk: Desk, amazon: Amazon) -> None:
    """Another one looks at it at once."""
    await set_aside(desk, amazon, 2)
    assert await in_hand(desk) == [0, 1]
    assert await desk.context.queues.release(Stage.UNPACK) == 2
    assert await in_hand(desk) == []


async def _rung(bench: Workbench, number: int) -> bool:
    return int(await bench.redis.hget("{relay}:bells", "unpack") or 0) >= number


async def test_a_subscription_is_confirmed(bench: Workbench, amazon: Amazon) -> None:
    """Once its signature is true its address is asked, once, and each delivery counts as a probe."""
    await bench.put("ses", signed(confirmation()), signed(confirmation()))
    await bench.work_until(bench.is_idle)
    assert amazon.asked == [CERTIFICATE, SUBSCRIBE]
    assert await row(bench) == {"in": 2, "ignored": 2}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(signed(confirmation(), "somebody"), id="false"),
        pytest.param(signed(confirmation(TopicArn=TOPIC + "-other")), id="topic"),
        pytest.param(signed(confirmation(), SubscribeURL=SUBSCRIBE + "2"), id="address changed"),
        pytest.param(signed(confirmation(), Token="t-2"), id="token changed"),
        *(
            pytest.param(signed(confirmation(SubscribeURL=url.replace("{}", "?Action=x"))), id=url)
            for url in NOT_AMAZONS
        ),
    ],
)
async def test_a_false_subscription_is_not_confirmed(
    desk: Desk, amazon: Amazon, body: bytes
) -> None:
    """Neither a false one, nor another topic's, nor at an address that is not Amazon's."""
    assert (await desk.verdict(body)).startswith("signature: ")
    assert set(amazon.asked) <= {CERTIFICATE}


async def test_leaving_a_topic_confirms_nothing(desk: Desk, amazon: Amazon) -> None:
    """Its message has the address that would subscribe again; nobody asks there."""
    assert await desk.verdict(signed(confirmation(Type="UnsubscribeConfirmation"))) == "true"
    assert amazon.asked == [CERTIFICATE]


async def test_a_confirmation_that_fails_waits_and_is_tried_again(
    desk: Desk, amazon: Amazon
) -> None:
    """An error over there refuses nothing; one that is final does."""
    assert await desk.verdict(signed(message())) == "true"
    amazon.status = 500
    await desk.wait(signed(confirmation()), until=lambda: amazon.asked.count(SUBSCRIBE) >= 2)
    amazon.status = 400
    assert "400" in await desk.verdict(signed(confirmation()))


async def test_a_message_that_was_taken_for_false_can_be_retried(
    bench: Workbench, amazon: Amazon
) -> None:
    """Nothing of it leaves, and the letter is a `signature`; a retry after a minute asks again, and it is true now."""
    certificate_page = amazon.pages.pop(CERTIFICATE)
    await bench.put("ses", signed(message()))
    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead()
    assert (letter.stage, letter.source, letter.reason) == ("unpack", "ses", "signature")
    assert bench.arrived == []
    assert await row(bench) == {"in": 1, "dead": 1}
    amazon.pages[CERTIFICATE] = certificate_page
    await bench.redis.delete(*await bench.redis.keys("{relay}:proof:*"))  # as it is a minute later
    await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]


async def test_without_topics_nobody_is_asked(
    make_desk: Callable[..., Desk], amazon: Amazon
) -> None:
    """Messages are believed by the token alone, and no subscription is confirmed."""
    desk = make_desk(ses_topic_arns=None)
    assert await desk.verdict(orjson.dumps(message())) == "true"
    assert await desk.verdict(orjson.dumps(confirmation())) == "true"
    assert amazon.asked == []


@pytest.mark.parametrize("topics", [None, TOPIC])
async def test_raw_delivery_is_taken_only_where_it_is_switched_on(
    make_desk: Callable[..., Desk], topics: str | None
) -> None:
    """It is refused until it is wanted, because nobody signed it."""
    text = message()["Message"]
    assert isinstance(text, str)
    assert "raw delivery" in await make_desk(ses_topic_arns=topics).verdict(text.encode())
    desk = make_desk(ses_topic_arns=topics, ses_raw_delivery=True)
    assert await desk.verdict(text.encode()) == "true"


def failing(*_: object) -> None:
    """Be code of ours that has a fault."""
    raise RuntimeError("tripped")


async def test_our_own_fault_buries_one_delivery_and_no_other(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that fails on a proof is tried three times; what came in the same flush goes on."""
    monkeypatch.setattr(sns, "check_signature", failing)
    now = 1_767_225_600_000
    bodies = [("ses", signed(message())), ("events", mail_events(1))]
    await bench.inbox.put([Delivery(new_delivery_id(), name, body, now) for name, body in bodies])
    await bench.work_until(bench.is_idle)
    assert [letter.reason for letter in await bench.dead()] == ["bug"]
    assert await row(bench) == {"in": 2, "done": 1, "dead": 1}


async def test_our_own_fault_over_an_answer_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails beside the work fails in it, too: the delivery does not wait for ever."""
    monkeypatch.setattr(sns, "check_certificate", failing)
    with pytest.raises(RuntimeError, match="tripped"):
        await desk.verdict(signed(message()))


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
    """The signature does not cover the event: what comes second under the same token is buried, however often.

    Mailgun's own repetition is taken apart as always, also when it was signed anew; its event is a duplicate.
    """
    again = orjson.loads(mailgun())
    again["signature"] |= {"timestamp": "1767229200", "signature": "01"}
    for body in (mailgun(), mailgun(), orjson.dumps(again), mailgun(2)):
        await bench.put("mailgun", body)
    await bench.work_until(bench.is_idle)
    assert bench.arrived == ["person1@example.com"]
    assert await bench.count(Stage.FORWARD, "duplicate") == 2
    (letter,) = await bench.dead()
    assert (letter.source, letter.reason) == ("mailgun", "signature")
    await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)
    assert await row(bench) == {"in": 4, "done": 3, "dead": 1}


async def test_two_workers_let_one_of_two_events_through(make_desk: Callable[..., Desk]) -> None:
    """A token is remembered in one step: of two events that are looked at together one is the replay."""
    desks = [make_desk() for _ in range(8)]
    looks = [desk.look(mailgun(n), "mailgun") for n, desk in enumerate(desks)]
    said = await asyncio.gather(*looks)
    assert said.count("true") == 1


async def test_a_token_is_remembered_for_a_day(desk: Desk) -> None:
    """Longer than the receiver takes an old signature; another token is another call."""
    assert await desk.look(mailgun(1), "mailgun") == "true"
    assert await desk.look(mailgun(2, token="f" * 32), "mailgun") == "true"
    names = await desk.redis.keys("{relay}:proof:mailgun-token:*")
    assert len(names) == 2
    for name in names:
        assert TOKEN not in name.decode()
        assert 86_400_000 - 60_000 < await desk.redis.pttl(name) <= 86_400_000


async def test_a_replay_is_one_as_long_as_its_letter_is_kept(
    make_desk: Callable[..., Desk],
) -> None:
    """A letter that is retried when the day is over would be believed; so the first event is remembered longer."""
    desk = make_desk(dead_keep_d=30)
    assert await desk.look(mailgun(1), "mailgun") == "true"
    assert "replay" in await desk.look(mailgun(2), "mailgun")
    (name,) = await desk.redis.keys("{relay}:proof:mailgun-token:*")
    assert await desk.redis.pttl(name) > 30 * 86_400_000
    assert "replay" in await desk.look(mailgun(2), "mailgun")
    assert await desk.look(mailgun(1), "mailgun") == "true"


FORM = "application/x-www-form-urlencoded"


def form(*first: tuple[str, str], n: int = 1, last: str = "") -> bytes:
    """Return a post of before 2018 about person *n*; the customer's fields stand before Mailgun's proof."""
    fields = [("event", "clicked"), ("recipient", f"person{n}@example.com"), *first]
    fields += [("Message-Id", "<m-1@example.com>"), ("timestamp", "1767225600")]
    return (urlencode([*fields, ("token", TOKEN), ("signature", "00")]) + last).encode()


async def test_a_form_has_its_token_too(desk: Desk) -> None:
    """In the form posts of before 2018 the token stands among the fields, the customer's before Mailgun's."""
    assert await desk.look(form(("token", "my1")), "mailgun", FORM) == "true"
    assert await desk.look(form(("token", "my1")), "mailgun", FORM) == "true"
    assert "replay" in await desk.look(form(("token", "my2"), n=2), "mailgun", FORM)


async def test_the_order_of_a_form_is_part_of_it(desk: Desk) -> None:
    """Of two fields of one name the first is Mailgun's: turned round it is another event."""
    mine = ("recipient", "mine@example.com")
    assert await desk.look(form(mine), "mailgun", FORM) == "true"
    turned = urlencode([mine]).encode() + b"&" + form()
    assert "replay" in await desk.look(turned, "mailgun", FORM)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b'"&', b'&"'), (b'["&', b'&"]'), (b" " * 64 + b'{"a": "&', b'&"}'), (b"", b"")],
    ids=["a string", "a list", "an object", "a form"],
)
async def test_a_form_that_is_json_as_well_is_the_form_that_its_source_reads(
    desk: Desk, before: bytes, after: bytes
) -> None:
    """The receiver verifies the token of the form, and the event is the form's: its token is remembered."""
    body = before + form(n=2) + after
    assert MAILGUN.parse(Delivery("1", "mailgun", body, 0, FORM), Rules(), 1_767_225_600.0)
    assert await desk.look(form(), "mailgun", FORM) == "true"
    assert "replay" in await desk.look(body, "mailgun", FORM)


async def test_json_that_is_called_a_form_is_json(desk: Desk) -> None:
    """As its source decides it: a token in an address that somebody clicked is not Mailgun's."""
    link = "https://example.com/?a=b&token=abc&c=d"
    for n in (1, 2):
        body = mailgun(n, token=TOKEN[:-1] + str(n), url=link)
        assert await desk.look(body, "mailgun", FORM) == "true"
    assert "replay" in await desk.look(mailgun(3, token=TOKEN[:-1] + "1"), "mailgun", FORM)


async def test_without_the_key_no_token_is_remembered(make_desk: Callable[..., Desk]) -> None:
    """Where nobody checks the signature, its token says nothing."""
    desk = make_desk(mailgun_signing_key=None)
    assert await desk.look(mailgun(1), "mailgun") == "true"
    assert await desk.look(mailgun(2), "mailgun") == "true"
    assert await desk.redis.keys("{relay}:proof:*") == []


async def test_the_receiver_says_that_a_signature_was_checked(
    make_desk: Callable[..., Desk],
) -> None:
    """What it noted with the delivery counts, so only receivers need the key."""
    desk = make_desk(mailgun_signing_key=None)
    signed = {SIGNED: "yes"}
    assert await desk.look(mailgun(1), "mailgun", headers=signed) == "true"
    assert await desk.look(mailgun(1), "mailgun", headers=signed) == "true"
    assert "replay" in await desk.look(mailgun(2), "mailgun", headers=signed)


@pytest.mark.parametrize("content_type", ["application/json", FORM, "multipart/form-data"])
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
async def test_a_body_without_a_token_is_not_a_replay(
    desk: Desk, body: bytes, content_type: str
) -> None:
    """Whatever it is, the source says what is wrong with it, and nothing trips."""
    for _ in range(2):
        assert await desk.look(body, "mailgun", content_type) == "true"


async def test_a_full_server_still_proves(redis: Redis) -> None:
    """What could not be kept for want of memory would keep a full server from draining: it is kept all the same."""
    keep = script(redis, "proof")
    async with full(redis):
        answers = [await keep(args=["kind:1", value, 60_000, 0]) for value in ("a", "b")]
        answers += [await keep(args=["kind:1", value, 60_000, 1]) for value in ("c", "d")]
    assert answers == [None, b"a", b"a", b"c"]
    assert await redis.get("{relay}:proof:kind:1") == b"d"

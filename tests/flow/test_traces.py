"""Traces: from a request that comes in to the calls that go out, told to a collector over HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette

from console.redis_server import EmbeddedRedis
from pipeline import keys, pauses
from pipeline.addresses import digest
from pipeline.connections import receiver_redis
from pipeline.dead_letters import retry
from pipeline.deliveries import Delivery
from pipeline.moves import Move
from pipeline.origins import Form, Origin
from pipeline.outcomes import MailEvent, Outcome, Stage
from pipeline.queues import fields
from pipeline.traces import is_wanted, open_spans
from receiver.app import make_app
from sandbox import crm
from sandbox.faults import poisoned
from sandbox.samples import SAMPLES, Sample, fresh
from tests.chaos.test_nothing_is_lost import free_port
from tests.collector import CLIENT, INTERNAL, SERVER, Collector, Told, collecting
from tests.patience import patient_receiver
from tests.vendors import KEY, Sandbox
from tests.workbench import PATIENCE_S, TOKEN, Workbench, mail_event, mail_events, settings_for
from workers import handing_over, reading
from workers.fates import BUG_TRIES

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
AGENT = "Unmistakable-Agent/1.0"
# uvicorn tells its parent by which signal it ended
ENDED = {"receiver": -signal.SIGTERM, "worker": 0}
MakeBench = Callable[..., Workbench]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave none of OpenTelemetry's variables, and no proxy on the way to the collector."""
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Run a collector, and have everything tell it."""
    with collecting() as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


@asynccontextmanager
async def receiving(bench: Workbench) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a receiver in this process, as `receiver.main` makes it."""
    app: Starlette = patient_receiver(bench.settings, spans=open_spans("receiver"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://relay.test",
            headers={"user-agent": AGENT},
        ) as client,
    ):
        yield client


async def post(
    bench: Workbench, source: str, *bodies: bytes, parent: str | None = None, query: str = ""
) -> list[httpx.Response]:
    """Post each of *bodies* to a receiver, which ends then."""
    headers = {"traceparent": parent} if parent is not None else {}
    url = f"/hooks/{source}/{TOKEN}{query}"
    async with receiving(bench) as client:
        return [await client.post(url, content=body, headers=headers) for body in bodies]


def only(spans: list[Told]) -> Told:
    """Return the one that there is."""
    (span,) = spans
    return span


# processes -------------------------------------------------------------------------------------------


class Processes:
    """A receiver and a worker as the Procfile starts them, against the test's Redis and vendors."""

    def __init__(self, redis_url: str, box: Sandbox, home: Path, more: dict[str, str]) -> None:
        self.port, self._logs = free_port(), home
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "REDIS_URL": redis_url,
            "RELAY_HOME": str(home / "home"),
            "HOOK_TOKENS": TOKEN,
            "AUDIENCEPOINT_API_KEY": KEY,
            "AUDIENCEPOINT_BASE_URL": box.audiencepoint_url,
            "AUDIENCEPOINT_RATE": "0",
            **more,
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start `receiver` or `worker`."""
        command = {
            "receiver": ["uvicorn", "receiver.main:app", "--port", str(self.port)],
            "worker": ["arq", "workers.main.WorkerSettings"],
        }[name]
        with (self._logs / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, env=self._environment, stderr=log
            )

    async def stop(self) -> dict[str, int]:
        """Ask all to end; return how they did."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        return {
            name: await asyncio.to_thread(process.wait, PATIENCE_S)
            for name, process in self._running.items()
        }

    def kill(self) -> None:
        """End what is left."""
        for process in self._running.values():
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        """Return what one of them said."""
        return (self._logs / f"{name}.log").read_text(encoding="utf-8")

    async def post(self, body: bytes) -> int:
        """Post to the receiver, once it takes it; return the status."""
        url = f"http://127.0.0.1:{self.port}/hooks/events/{TOKEN}"
        async with (
            asyncio.timeout(PATIENCE_S),
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client,
        ):
            while True:
                try:
                    answer = await client.post(url, content=body, headers={"user-agent": AGENT})
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code != 503:
                    return answer.status_code


@pytest.fixture
def start(redis_url: str, box: Sandbox, tmp_path: Path) -> Iterator[Callable[..., Processes]]:
    """Give a starter of processes; keywords are variables."""
    made: list[Processes] = []

    def make(**more: str) -> Processes:
        made.append(Processes(redis_url, box, tmp_path, more))
        return made[-1]

    yield make
    for each in made:
        each.kill()


async def test_two_posts_in_one_batch_both_show_a_way_out(
    bench: Workbench, collector: Collector, start: Callable[..., Processes]
) -> None:
    """Real processes: each request is a trace to its `forward`, the call belongs to one and links to the other."""
    # both wait when the worker starts, and leave together
    processes = start(FORWARD_MAX_WAIT_S="2", **collector.environment())
    processes.start("receiver")
    assert [await processes.post(mail_events(1, n)) for n in (1, 2)] == [202, 202]
    processes.start("worker")
    await bench.until(lambda: len(bench.arrived) == 2)
    assert await processes.stop() == ENDED

    assert len(bench.box.memory.batches) == 1
    asked, unpack, forward = map(collector.named, ("POST /hooks/{source}", "unpack", "forward"))
    # what a busy receiver answered 503 was posted again
    server = [span for span in asked if span.attributes["http.response.status_code"] == 202]
    assert [span.kind for span in server] == [SERVER, SERVER]
    assert {span.service for span in server} == {"audience-relay-receiver"}
    assert {span.service for span in unpack + forward} == {"audience-relay-worker"}
    parents = {span.id: span for span in server + unpack}
    for each in unpack + forward:
        assert each.trace == parents[each.parent].trace
    assert len({span.trace for span in forward}) == 2
    call = only([span for span in forward if span.kind == CLIENT])
    other = only([span for span in forward if span.kind == INTERNAL])
    assert other.links == [(call.trace, call.id)]
    assert call.links == [(other.trace, other.parent)]
    assert call.attributes["relay.items"] == 2
    assert len(collector.spans) - len(asked) == 4


async def test_a_collector_that_hangs_delays_nothing(
    bench: Workbench, collector: Collector, start: Callable[..., Processes]
) -> None:
    """While no span is taken, deliveries are answered and arrive, and SIGTERM ends both processes cleanly."""
    collector.open.clear()
    patient = {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
    processes = start(OTEL_EXPORTER_OTLP_TIMEOUT="600", **patient, **collector.environment())
    processes.start("receiver")
    processes.start("worker")
    statuses = [await processes.post(mail_events(1, n)) for n in range(20)]
    await bench.until(lambda: len(bench.arrived) == 20)

    assert statuses == [202] * 20
    assert collector.asked.is_set()
    assert await processes.stop() == ENDED
    assert not collector.bodies
    assert "Traceback" not in processes.log("receiver") + processes.log("worker")


async def test_without_the_extra_there_is_one_warning(
    bench: Workbench, collector: Collector, start: Callable[..., Processes], tmp_path: Path
) -> None:
    """An endpoint without OpenTelemetry installed: each process says so once and works as ever."""
    # what stands in its place cannot be imported
    missing = tmp_path / "missing" / "opentelemetry"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ImportError\n", encoding="utf-8")
    processes = start(PYTHONPATH=str(missing.parent), **collector.environment())
    processes.start("receiver")
    processes.start("worker")
    assert await processes.post(mail_events(1)) == 202
    await bench.until(lambda: len(bench.arrived) == 1)
    assert await processes.stop() == ENDED

    for name in ("receiver", "worker"):
        warnings = [line for line in processes.log(name).splitlines() if " WARNING " in line]
        assert ["no traces" in line and "[otel]" in line for line in warnings] == [True], name
    assert not collector.asked.is_set()


# one trace -------------------------------------------------------------------------------------------


async def test_one_post_gives_one_trace(bench: Workbench, collector: Collector) -> None:
    """The request, taking it apart and the call are one line of parents, with names, ids and numbers."""
    (answer,) = await post(bench, "events", mail_events(3))
    await bench.work()

    server, unpack, forward = collector.spans
    assert len({span.trace for span in collector.spans}) == 1
    assert (server.parent, unpack.parent, forward.parent) == ("", server.id, unpack.id)
    assert (server.kind, unpack.kind, forward.kind) == (SERVER, INTERNAL, CLIENT)
    about = {"relay.source": "events", "relay.delivery": answer.json()["id"]}
    assert server.attributes == about | {
        "http.request.method": "POST",
        "http.route": "/hooks/{source}",
        "http.response.status_code": 202,
    }
    assert unpack.attributes == about | {"relay.fate": "done", "relay.outcomes": 3}
    batch = forward.attributes.pop("relay.batch")
    assert batch
    assert forward.attributes == {
        "peer.service": "audiencepoint",
        "relay.stage": "forward",
        "relay.items": 3,
    }
    assert not any(span.is_failed or span.links for span in collector.spans)
    assert all(span.ended_ns > span.began_ns for span in collector.spans)


async def test_a_visitor_goes_on_in_its_trace(make_bench: MakeBench, collector: Collector) -> None:
    """Sightings are looked up and subscribed in the trace of their request."""
    bench = make_bench(enrich="always")
    (sample, *_) = samples("pixel")
    await post(bench, "pixel", sample.body)
    await bench.work_until(bench.is_idle)

    assert bench.box.memory.subscribed
    assert len({span.trace for span in collector.spans}) == 1
    unpack = only(collector.named("unpack"))
    calls = [span for span in collector.spans if span.kind == CLIENT]
    assert {span.name for span in calls} == {"enrich", "subscribe"}
    assert {span.parent for span in calls} == {unpack.id}


async def test_a_change_of_scores_is_told_in_its_trace(
    make_bench: MakeBench, box: Sandbox, collector: Collector
) -> None:
    """The call to the CRM belongs to the trace in which the change came."""
    bench = make_bench(scores_webhook_url=f"{box.url}/crm", scores_webhook_secret=crm.KEY)
    (sample,) = samples("scores")
    await post(bench, "scores", sample.body)
    await bench.work_until(bench.is_idle)

    assert len(bench.box.memory.told) == 1
    assert len({span.trace for span in collector.spans}) == 1
    assert only(collector.named("notify")).parent == only(collector.named("unpack")).id


async def test_a_job_in_bulk_shows_in_each_trace(
    make_bench: MakeBench, collector: Collector
) -> None:
    """One job asks about visitors of several requests: each of their traces has its `enrich`."""
    bench = make_bench(enrich_bulk_from=2, subscribe="off")
    await pauses.pause(bench.redis, Stage.ENRICH, "until all have come")
    people = [{"uuid": f"u-{n}", "personal_emails": f"p{n}@example.com"} for n in range(3)]
    await post(bench, "audience", *(orjson.dumps([person]) for person in people))
    await bench.work()
    await pauses.resume(bench.redis, Stage.ENRICH)
    await bench.work_until(bench.is_idle)

    assert not bench.box.memory.enrich_requests
    spans = collector.named("enrich")
    assert len({span.trace for span in spans}) == len(spans) == 3
    assert only([span for span in spans if span.kind == CLIENT]).attributes["relay.items"] == 3


async def test_what_was_refused_goes_out_again_in_its_trace(
    bench: Workbench, collector: Collector
) -> None:
    """A call that fails is told as failed; a retry from the dead letters goes on in the same trace."""
    bench.box.faults.add(poisoned("events", "person1@example.com"))
    await post(bench, "events", mail_events(1, 1))
    await bench.work_until(bench.is_idle)
    bench.box.faults.clear()
    (letter,) = await bench.dead(Stage.FORWARD)
    await retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)

    assert len(bench.arrived) == 1
    *failed, last = collector.named("forward")
    assert failed
    assert all(span.is_failed and span.attributes["error.type"] for span in failed)
    assert not last.is_failed
    assert len({span.trace for span in collector.spans}) == 1


async def test_what_was_wrong_is_read_again_in_its_trace(
    bench: Workbench, collector: Collector
) -> None:
    """An event that was dead in its sender's words keeps its trace through the reading."""
    await post(bench, "events", orjson.dumps([mail_event(1, type="Bounce")]))
    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead(Stage.FORWARD)
    # what a new version's source would make of it
    mended = {"payload": orjson.dumps(mail_event(1))}
    await bench.redis.hset(keys.letter(letter.id), mapping=mended)
    await retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)

    assert len(bench.arrived) == 1
    assert only(collector.named("forward")).parent == only(collector.named("unpack")).id


async def test_each_try_of_a_delivery_that_our_code_fails_on_is_told(
    bench: Workbench, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try that failed is a span with its error, in the sender's trace; every call is below a span that was told."""
    hand_over_one = handing_over.hand_over_one

    def failing(move: Move, delivery: Delivery, outcome: Outcome, email_format: Any) -> None:
        if isinstance(outcome, MailEvent) and outcome.email == "person700@example.com":
            raise ZeroDivisionError
        hand_over_one(move, delivery, outcome, email_format)

    monkeypatch.setattr(handing_over, "hand_over_one", failing)
    await post(bench, "events", mail_events(800), parent=f"00-{TRACE}-{SPAN}-01")
    await bench.work_until(bench.is_idle)

    assert len(bench.arrived) == 500  # a slice that had left
    *tries, last = collector.named("unpack")
    assert [(one.is_failed, one.attributes["error.type"]) for one in tries] == [
        (True, "ZeroDivisionError")
    ] * len(tries)
    assert len(tries) >= BUG_TRIES
    assert (last.is_failed, last.attributes["relay.fate"]) == (False, "dead")
    assert {one.trace for one in collector.spans} == {TRACE}
    told = {one.id for one in collector.spans}
    assert {one.parent for one in collector.named("forward")} <= told


async def test_each_try_to_read_is_told(
    bench: Workbench, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is one that never came to an event."""
    read = reading.read

    def failing(
        context: Any, delivery: Delivery, found: reading.Proofs, faults: Mapping[str, str]
    ) -> reading.Read:
        if delivery.id not in faults:
            raise reading.OurFault(delivery.id) from ZeroDivisionError()
        return read(context, delivery, found, faults)

    monkeypatch.setattr(reading, "read", failing)
    await post(bench, "events", mail_events(2))
    await bench.work_until(bench.is_idle)

    *tries, last = collector.named("unpack")
    assert [one.is_failed for one in tries] == [True] * BUG_TRIES
    assert (last.is_failed, last.attributes["relay.fate"]) == (False, "dead")
    assert len({one.trace for one in collector.spans}) == 1


# the sender's trace ----------------------------------------------------------------------------------

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("parent", [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-more"])
async def test_a_senders_trace_is_continued(
    bench: Workbench, collector: Collector, parent: str
) -> None:
    """The request is a child of the sender's span, also of one that a later version wrote."""
    await post(bench, "events", mail_events(1), parent=parent)
    await bench.work()

    assert {span.trace for span in collector.spans} == {TRACE}
    assert only(collector.named("POST /hooks/{source}")).parent == SPAN
    assert len(collector.spans) == 3


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "garbage",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\xff",
        "0" * 5000,
    ],
)
async def test_a_malformed_traceparent_is_a_new_trace(
    bench: Workbench, collector: Collector, parent: str
) -> None:
    """Nobody is refused for the form of a header that we do not need."""
    async with receiving(bench) as client:
        headers = [(b"traceparent", parent.encode("latin-1"))]
        answer = await client.post(f"/hooks/events/{TOKEN}", content=b"[]", headers=headers)

    assert answer.status_code == 202
    span = only(collector.spans)
    assert span.parent == ""
    assert span.trace != TRACE


async def test_what_a_sender_does_not_record_is_not_recorded(
    bench: Workbench, collector: Collector
) -> None:
    """The sender's own decision holds: nothing is told, and events carry not one byte of it."""
    await post(bench, "events", mail_events(1), parent=f"00-{TRACE}-{SPAN}-00")
    await pauses.pause(bench.redis, Stage.FORWARD, "to look")
    await bench.work()

    assert [origin.count(b"|") for origin in await origins(bench.redis, Stage.FORWARD)] == [3]
    await pauses.resume(bench.redis, Stage.FORWARD)
    await bench.work_until(bench.is_idle)
    assert len(bench.arrived) == 1
    assert not collector.bodies


async def test_the_sampler_is_opentelemetrys_own(
    bench: Workbench, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With always_off nothing is told, whatever the sender says."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    await post(bench, "events", mail_events(1), parent=f"00-{TRACE}-{SPAN}-01")
    await bench.work_until(bench.is_idle)

    assert len(bench.arrived) == 1
    assert not collector.bodies


# what is told ----------------------------------------------------------------------------------------


async def test_no_personal_data_is_told(make_bench: MakeBench, collector: Collector) -> None:
    """In no exported byte: an address or its hash, a token, a key, a tag, a browser, a body's words."""
    bench = make_bench(enrich="always")
    event = mail_event(1, email="Ada.Secret@Example.com", user_agent=AGENT, subject="Wordy")
    refused = mail_event(2, email="refused@example.com")
    words = "Verbatim: no such address as refused@example.com"
    bench.box.faults.add(poisoned("events", digest("refused@example.com"), words=words))
    visits = samples("pixel")
    await post(bench, "events", orjson.dumps([event, refused]), b"{", query="?tag=tagged-so")
    await post(bench, "pixel", *(sample.body for sample in visits))
    async with receiving(bench) as client:
        await client.post("/hooks/events/wrong-token-0123456789", content=b"{}")
    await bench.work_until(bench.is_idle)

    told = b"".join(collector.bodies) + "".join(collector.heads).encode()
    assert {"forward", "enrich", "subscribe"} <= {span.name for span in collector.spans}
    assert any(span.is_failed for span in collector.spans)
    secrets = {TOKEN, KEY, "wrong-token", "tagged-so", AGENT, "Wordy", "Verbatim", "@example"}
    secrets |= {digest(mail) for mail in ("ada.secret@example.com", "refused@example.com")}
    secrets |= set(bench.box.memory.addresses)
    lower = told.lower()
    assert [secret for secret in secrets if secret.lower().encode() in lower] == []


async def test_what_is_refused_is_no_span(bench: Workbench, collector: Collector) -> None:
    """Only who was let in and understood makes spans: others could fill the collector."""
    async with receiving(bench) as client:
        answers = [
            await client.post("/hooks/events/wrong-token-0123456789", content=b"{}"),
            await client.post(f"/hooks/nothing/{TOKEN}", content=b"{}"),
            await client.post(f"/hooks/events/{TOKEN}", content=b"{"),
            await client.get(f"/hooks/events/{TOKEN}"),
        ]

    assert [answer.status_code for answer in answers] == [401, 404, 400, 200]
    assert not collector.bodies


async def test_closing_does_not_wait_for_a_collector_that_hangs(collector: Collector) -> None:
    """What is not told by then is given up, by a thread that the process does not wait for."""
    collector.open.clear()
    spans = open_spans("test")
    assert spans is not None
    from opentelemetry.trace import SpanKind

    spans.begin("one", SpanKind.INTERNAL, None, {}, time.time_ns()).end()
    await asyncio.to_thread(spans.close)

    closing = [thread for thread in threading.enumerate() if thread.name == "traces"]
    assert closing
    assert all(thread.daemon for thread in closing)


# switched off ----------------------------------------------------------------------------------------


async def origins(redis: Redis, stage: Stage) -> list[bytes]:
    """Return the packed origins of what waits in *stage*."""
    text = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    rows = await redis.eval(text, 1, keys.queue(stage))
    return [origin for row in rows for origin in fields(row[1])[1]]


def samples(source: str) -> list[Sample]:
    """Return the samples of *source* as if they had happened now."""
    return [fresh(sample, time.time()) for sample in SAMPLES[source]]


async def test_switched_off_nothing_is_kept_of_it(bench: Workbench) -> None:
    """Without an endpoint a delivery and its events are stored byte for byte as they always were."""
    parent = f"00-{TRACE}-{SPAN}-01"
    await post(bench, "events", mail_events(1))
    await post(bench, "events", mail_events(1, 1), parent=parent)
    text = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    rows = await bench.redis.eval(text, 1, keys.queue(Stage.UNPACK))
    heads = [orjson.loads(one.partition(b"\n")[0]) for row in rows for one in fields(row[1])[0]]
    assert [head.get("h") for head in heads] == [None, {"traceparent": parent}]
    assert [set(head) for head in heads] == [{"i", "s", "t"}, {"i", "s", "t", "h"}]
    await pauses.pause(bench.redis, Stage.FORWARD, "to look")
    await bench.work()

    expected = [f"events|{head['t']}|o|".encode() for head in heads]
    assert await origins(bench.redis, Stage.FORWARD) == expected


def test_the_stored_forms_are_those_of_before() -> None:
    """What is packed without a trace is what versions without traces wrote; with one, it is one word more."""
    delivery = Delivery("i" * 24, "events", b"{}", 7, "application/json", "tag", trace="t")
    about = b'{"i":"%b","s":"events","t":7,"c":"application/json","g":"tag"}\n{}' % (b"i" * 24)
    assert delivery.pack() == about
    assert Delivery.unpack(about).trace is None
    assert Origin("events", 7, Form.HASHED, "tag").pack() == "events|7|h|tag"
    mark = f"{TRACE}-{SPAN}"
    marked = Origin("events", 7, trace=mark)
    assert marked.pack() == f"events|7|o||{mark}"
    assert Origin.unpack(marked.pack().encode()) == marked
    assert Origin.unpack(b"events|7|h|tag") == Origin("events", 7, Form.HASHED, "tag")
    assert Origin.unpack(b"events|7|o|||of a later version") == Origin("events", 7)


def test_switched_off_opentelemetry_is_not_even_imported() -> None:
    """Receiver and worker import nothing of it unless an endpoint is set."""
    program = (
        "import sys, receiver.main, workers.app, workers.enrich, workers.forward, pipeline.traces as t;"
        "assert t.open_spans('x') is None; sys.exit('opentelemetry' in sys.modules)"
    )
    plain = {"PATH": os.environ["PATH"], "OTEL_SERVICE_NAME": "relay"}
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=plain, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_TRACES_EXPORTER": "a, otlp"}, True),
        ({"OTEL_SERVICE_NAME": "relay"}, False),
    ],
)
def test_opentelemetrys_variables_decide(variables: dict[str, str], wanted: bool) -> None:
    """Traces are on where an endpoint is set, and neither the SDK nor its exporter is switched off."""
    assert is_wanted(variables) is wanted


def test_a_variable_that_cannot_be_read_is_a_warning(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenTelemetry that does not start keeps no process from starting."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    assert open_spans("test") is None
    assert [record.message for record in caplog.records if "no traces" in record.message] == [
        "no traces: OpenTelemetry does not start error=ValueError"
    ]


async def test_a_collector_that_is_gone_is_one_warning(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Spans that nobody takes are lost with a line of ours; work goes on."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    await post(bench, "events", mail_events(1))
    await bench.work_until(bench.is_idle)

    def told() -> list[str]:
        ours = [record for record in caplog.records if record.name == "pipeline.spans"]
        return [record.getMessage() for record in ours]

    await bench.until(lambda: len(told()) == 2)
    # the receiver's, and the worker's own; of the worker's two there may be one at a time
    assert told()[0] == "the collector takes no traces spans_lost=1"


async def test_what_was_not_stored_says_so(box: Sandbox, collector: Collector) -> None:
    """A delivery that could not be kept has a span with the 503, and failed."""
    settings = settings_for(f"redis://127.0.0.1:{free_port()}", box, spill_max_bytes=0)
    app = make_app(settings, receiver_redis(settings), spans=open_spans("receiver"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay") as client,
    ):
        answer = await client.post(f"/hooks/events/{TOKEN}", content=b"[]")

    assert answer.status_code == 503
    span = only(collector.spans)
    assert span.is_failed
    assert span.attributes["http.response.status_code"] == 503


async def test_what_was_spilled_keeps_its_trace(
    bench: Workbench, box: Sandbox, collector: Collector, tmp_path: Path
) -> None:
    """A delivery that went by the disk is taken apart in the trace of its request."""
    with EmbeddedRedis(tmp_path / "r", appendfsync="no") as other:
        # on the same machine: with the same home
        away = settings_for(other.url, box, relay_home=tmp_path / "home")
        async with receiving(Workbench(bench.redis, box, away)) as client:
            await asyncio.to_thread(other.stop)
            answer = await client.post(f"/hooks/events/{TOKEN}", content=mail_events(1))
    assert answer.headers["relay-ack"] == "spilled"
    # the next receiver on this machine takes the files over
    async with receiving(bench), bench.at_work():
        await bench.until(lambda: len(bench.arrived) == 1)

    server = only(collector.named("POST /hooks/{source}"))
    assert only(collector.named("unpack")).parent == server.id
    assert only(collector.named("forward")).trace == server.trace

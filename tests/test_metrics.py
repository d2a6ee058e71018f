"""What Prometheus is told by receiver, worker and console, and that alarms and dashboard ask for nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from console.web.app import make_app as make_console
from pipeline import keys, metrics, pauses
from pipeline.connections import Role, connection_pool
from pipeline.outcomes import Stage
from pipeline.settings import Settings
from pipeline.wake import arq_redis
from sandbox.faults import broken, slow
from tests.flow.conftest import box, make_bench
from tests.flow.test_two_workers import holders
from tests.patience import patient_receiver
from tests.pipeline.burials import bury
from tests.workbench import PATIENCE_S, TOKEN, Workbench, mail_events
from workers.metrics import Metrics, answer_to, served

__all__ = ["box", "make_bench"]

pytestmark = pytest.mark.anyio

DEPLOY = Path(__file__).parents[1] / "deploy"
ALARMS = Path(__file__).parent / "alerts.test.yml"
PROMTOOL = shutil.which("promtool")
CONSOLE_TOKEN = "console-token-0123456789"
Numbers = dict[str, float]


def read(text: str) -> Numbers:
    """Return every sample as `name{value,…}` -> value, label values in the order of their labels' names."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(value for _, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def names_of(numbers: Numbers) -> set[str]:
    """Return the names alone."""
    return {name.partition("{")[0] for name in numbers}


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def of_console(settings: Settings, token: str | None = None) -> httpx.Response:
    """Ask the console's page, as a program on this machine."""
    app = make_console(settings, arq_redis(connection_pool(settings, Role.CONSOLE)))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8001", headers=headers
        ) as client,
    ):
        return await client.get("/metrics")


async def of_receiver(settings: Settings) -> str:
    """Send a receiver a delivery of two events, a wrong token, and ask its page."""
    app = patient_receiver(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://relay.test"
        ) as client,
    ):
        await client.post(f"/hooks/events/{TOKEN}", content=mail_events(2))
        await client.post("/hooks/events/a-wrong-token-012345", content=b"{}")
        return (await client.get("/metrics")).text


async def of_worker(bench: Workbench) -> str:
    """Let a worker do what waits; return what it tells then, over the network."""
    url = f"http://127.0.0.1:{bench.settings.worker_metrics_port}/metrics"
    text = ""
    async with bench.at_work(), httpx.AsyncClient() as client:

        async def is_told() -> bool:
            nonlocal text
            text = (await client.get(url)).text
            return "relay_end_to_end_seconds_bucket" in text

        # a batch is counted right after it was written down
        await bench.until(bench.is_idle)
        await bench.until(is_told)
    return text


@pytest.fixture
def make_told(make_bench: Callable[..., Workbench]) -> Callable[..., Workbench]:
    """Give a maker of workbenches whose worker tells its numbers."""
    return lambda **changed: make_bench(worker_metrics_port=free_port(), **changed)


async def test_alarms_and_dashboard_ask_for_what_is_told(
    make_told: Callable[..., Workbench], redis: Redis
) -> None:
    """Every metric in an expression of deploy/ is told by a receiver, a worker or the console; `up` is Prometheus's."""
    bench = make_told(audiencepoint_rate=100)
    told = names_of(read(await of_receiver(bench.settings)))
    told |= names_of(read(await of_worker(bench)))
    await bury(redis)
    told |= names_of(read((await of_console(bench.settings)).text))
    expressions = [rule["expr"] for rule in rules()] + dashboard_expressions()
    assert all(expressions)
    asked = {name for each in expressions for name in re.findall(r"\brelay_\w+", each)}
    assert len(asked) > 15
    assert asked - told == set()


def rules() -> list[dict[str, Any]]:
    """Return the rules of deploy/alerts.yml."""
    loaded = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Return deploy/grafana.json."""
    loaded: dict[str, Any] = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    return loaded


def dashboard_expressions() -> list[str]:
    """Return what the panels ask for."""
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def test_rules_and_panels_are_whole() -> None:
    """Each rule has a name of its own, a severity and a sentence; brackets of expressions close; no panels overlap."""
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    for expression in [rule["expr"] for rule in found] + dashboard_expressions():
        assert all(expression.count(a) == expression.count(b) for a, b in ("()", "[]", "{}"))
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


def test_every_alarm_is_tried_loud_and_quiet() -> None:
    """The cases that promtool runs have one in which it fires and one in which it does not, for each rule."""
    told = yaml.safe_load(ALARMS.read_text(encoding="utf-8"))
    cases = [case for test in told["tests"] for case in test["alert_rule_test"]]
    named = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == named
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == named


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "what",
    [("check", "rules", DEPLOY / "alerts.yml"), ("test", "rules", ALARMS)],
    ids=["check", "test"],
)
def test_prometheus_itself_reads_and_runs_the_rules(what: tuple[str | Path, ...]) -> None:
    """Where promtool is installed it finds no fault, and every case comes out as it says."""
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, *what], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_operations_names_every_alarm() -> None:
    """Who is woken by an alarm finds its name in docs/operations.md."""
    text = (DEPLOY.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [rule["alert"] for rule in rules() if rule["alert"] not in text] == []


async def test_the_console_tells_what_lives_in_redis(
    make_told: Callable[..., Workbench], redis: Redis
) -> None:
    """Books, their balance, pauses, dead letters by kind and events by source are told as they stand."""
    bench = make_told()
    await bench.put("events", mail_events(3))
    await bench.work_until(bench.is_idle)
    await bury(redis, payloads=[b"1", b"2"])
    await pauses.pause(redis, Stage.ENRICH, "lunch")
    found = read((await of_console(bench.settings)).text)
    assert found["relay_redis_up{}"] == 1
    assert found["relay_stage_items{forward,done}"] == 3
    assert found["relay_stage_imbalance{forward}"] == 0
    assert paused_in(found) == {"operator,enrich,asked"}
    assert found["relay_workers{}"] == 0
    assert found["relay_spilled_waiting{}"] == 0
    assert found["relay_stage_oldest_seconds{forward}"] == 0
    assert found["relay_events_total{taken,events,Open}"] == 3
    assert found["relay_sender_deliveries_total{done,events}"] == 1
    assert sum(n for name, n in found.items() if name.startswith("relay_dead_letters{")) == 2


async def test_the_console_tells_calls_of_all_workers_there_ever_were(
    make_told: Callable[..., Workbench],
) -> None:
    """Calls by outcome, and how long they took, add up over workers that have ended; what never was is 0."""
    bench = make_told(audiencepoint_rate=0)
    bench.box.faults.add(broken("events", times=1))
    for n in range(2):
        await bench.put("events", mail_events(30, first=30 * n))
        await bench.work_until(bench.is_idle)
    found = read((await of_console(bench.settings)).text)
    assert found["relay_calls_total{forward,ok,forward}"] == 2
    assert found["relay_calls_total{forward,failed,forward}"] == 1
    assert found["relay_calls_total{forward,throttled,forward}"] == 0
    assert found["relay_calls_total{enrich,ok,enrich}"] == 0
    assert found["relay_calls_total{polling,ok,}"] == 0  # no stage's
    assert found["relay_call_seconds_count{forward,forward}"] == 3
    assert found["relay_call_seconds_bucket{forward,+Inf,forward}"] == 3
    assert found["relay_call_seconds_sum{forward,forward}"] > 0


def paused_in(found: Numbers) -> set[str]:
    """Return by whom, which stage and why, of the pauses that there are now."""
    told = {name: n for name, n in found.items() if name.startswith("relay_stage_paused{")}
    return {name.partition("{")[2][:-1] for name, n in told.items() if n}


async def test_a_pause_tells_why_in_a_word_of_ours(
    make_told: Callable[..., Workbench], redis: Redis
) -> None:
    """A key that is missing and calls that fail are told apart; a reason's own words are no label."""
    await pauses.pause_without_key(redis, Stage.ENRICH, f"{pauses.NO_KEY}: set IT")
    await pauses.pause(redis, Stage.FORWARD, "everything is refused: <ann>", by="relay")
    await pauses.pause(redis, Stage.SCORES, f"{pauses.NO_KEY} here, says an operator")
    found = read((await of_console(make_told().settings)).text)
    assert paused_in(found) == {
        *("relay,enrich,no_key", "relay,forward,calls", "operator,scores,asked")
    }
    assert sum(name.startswith("relay_stage_paused{") for name in found) == 3 * len(Stage)


async def test_a_paused_task_is_told(make_told: Callable[..., Workbench], redis: Redis) -> None:
    """What is no stage and can be paused is told beside the stages, by its own name."""
    await pauses.pause(redis, "polling", "everything is refused", by="relay")
    await pauses.pause(redis, "imports", "asked")
    found = read((await of_console(make_told().settings)).text)
    told = {name: n for name, n in found.items() if name.startswith("relay_task_paused{")}
    assert {name.partition("{")[2][:-1] for name, n in told.items() if n} == {
        *("relay,polling,calls", "operator,imports,asked")
    }


async def test_books_out_of_balance_are_told(
    make_told: Callable[..., Workbench], redis: Redis
) -> None:
    """The imbalance is what the stage took in less its fates, also when that is less than nothing."""
    await redis.hincrby(keys.BOOKS, "forward:done", 2)
    found = read((await of_console(make_told().settings)).text)
    assert found["relay_stage_imbalance{forward}"] == -2
    assert found["relay_stage_imbalance{enrich}"] == 0


async def test_the_console_tells_only_who_shows_its_token(
    make_told: Callable[..., Workbench],
) -> None:
    """With CONSOLE_TOKEN set it is shown as bearer; nobody else is told a number."""
    settings = make_told(console_token=CONSOLE_TOKEN).settings
    assert (await of_console(settings)).status_code == 401
    assert (await of_console(settings, "another-token-0123456789")).status_code == 401
    answer = await of_console(settings, CONSOLE_TOKEN)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE


async def test_the_console_answers_without_redis(tmp_path: Path) -> None:
    """Without Redis the page says so instead of failing."""
    settings = Settings.model_validate(
        {"redis_url": "redis://127.0.0.1:1/0", "relay_home": tmp_path / "home"}
    )
    found = read((await of_console(settings)).text)
    assert found["relay_redis_up{}"] == 0
    assert "relay_workers" not in names_of(found)


async def test_a_worker_tells_batches_unpacking_and_the_whole_way(
    make_told: Callable[..., Workbench],
) -> None:
    """A batch of three counts once by its size, three times by how long its items were on their way."""
    bench = make_told()
    await bench.put("events", mail_events(3))
    found = read(await of_worker(bench))
    assert found["relay_batch_items_count{forward}"] == 1
    assert found["relay_batch_items_sum{forward}"] == 3
    assert found["relay_end_to_end_seconds_count{forward}"] == 3
    assert found["relay_end_to_end_seconds_bucket{+Inf,forward}"] == 3
    assert found["relay_end_to_end_seconds_sum{forward}"] > 0
    assert found["relay_unpack_seconds_count{}"] == 1


async def test_a_batch_that_somebody_else_has_settled_is_not_counted_here(
    make_told: Callable[..., Workbench], redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Who finds its batch gone, answered as it was, leaves counting to the one who has taken it over."""
    caplog.set_level(logging.INFO, "workers.dispatch")
    bench = make_told()
    bench.box.faults.add(slow("events", 0.5, times=1))
    await bench.put("events", mail_events(30))
    queue = keys.queue(keys.batches(Stage.FORWARD))
    url = f"http://127.0.0.1:{bench.settings.worker_metrics_port}/metrics"

    async def is_called() -> bool:
        return bool(await holders(bench))

    async with bench.at_work(), httpx.AsyncClient() as client:
        await bench.until(is_called)
        (batch,) = await redis.xrange(queue)
        await redis.xack(queue, keys.GROUP, batch[0])
        await redis.xdel(queue, batch[0])
        await bench.until(lambda: any(each.startswith("attempt ") for each in caplog.messages))
        found = read((await client.get(url)).text)
    assert found["relay_unpack_seconds_count{}"] == 1
    assert "relay_batch_items_count{forward}" not in found
    assert "relay_end_to_end_seconds_count{forward}" not in found


async def test_a_taken_port_is_one_warning(
    make_told: Callable[..., Workbench],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker whose port another program has says once that nobody can ask it, and works."""
    monkeypatch.setattr("workers.metrics.AGAIN_S", 0.01)
    bench = make_told()
    port = bench.settings.worker_metrics_port

    def warnings() -> list[str]:
        return [each for each in caplog.messages if each.startswith("no metrics of this worker")]

    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        caplog.set_level(logging.WARNING, "workers.metrics")
        await bench.put("events", mail_events(1))
        async with bench.at_work():
            await bench.until(lambda: bool(warnings()))
            await bench.until(bench.is_idle)
        assert await bench.count(Stage.FORWARD, "done") == 1
    (warning,) = warnings()
    assert str(port) in warning


async def test_a_host_that_is_no_name_is_one_warning(
    make_told: Callable[..., Workbench],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that cannot be written as one of the network keeps no worker from starting."""
    monkeypatch.setattr("workers.metrics.AGAIN_S", 0.01)
    bench = make_told()
    settings = bench.settings.model_copy(update={"worker_metrics_host": "a" * 64})
    caplog.set_level(logging.WARNING, "workers.metrics")
    async with asyncio.timeout(PATIENCE_S), served(Metrics(), settings):
        await bench.until(lambda: "no metrics of this worker" in caplog.text)


async def test_who_asks_nothing_does_not_hold_up_the_end(
    make_told: Callable[..., Workbench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without a request is closed when the worker ends."""
    monkeypatch.setattr("workers.metrics.HEAD_WITHIN_S", 3600.0)
    settings = make_told().settings
    async with asyncio.timeout(PATIENCE_S), served(Metrics(), settings):
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.worker_metrics_port)
        writer.write(b"GET /met")
        await writer.drain()
        async with httpx.AsyncClient() as client:  # it was let in before this one
            await client.get(f"http://127.0.0.1:{settings.worker_metrics_port}/metrics")
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /metrics?name=x HTTP/1.1\r\n\r\n", b"200"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /secrets HTTP/1.1\r\n\r\n", b"404"),
        (b"\r\n\r\n", b"404"),
    ],
)
def test_a_worker_answers_one_page(head: bytes, status: bytes) -> None:
    """Its page is told by GET; everything else is refused in a word."""
    assert answer_to(head, b"x 1\n").split(b" ", 2)[1] == status


def test_head_has_no_body() -> None:
    """HEAD answers as GET does, its length too, without the text."""
    whole = answer_to(b"GET /metrics HTTP/1.1\r\n\r\n", b"x 1\n")
    head = answer_to(b"HEAD /metrics HTTP/1.1\r\n\r\n", b"x 1\n")
    assert head == whole[: whole.index(b"\r\n\r\n") + 4]


def test_a_batch_of_unknown_origin_is_counted_all_the_same() -> None:
    """What does not say when it arrived counts by its size alone."""
    numbers = Metrics()
    numbers.accepted(Stage.FORWARD, [b"2", b"events|soon|o|", b"a|1|o|", b"a|1|o|", b"a|2|o|"])
    found = read(metrics.page(numbers).decode())
    assert found["relay_batch_items_sum{forward}"] == 5
    assert found["relay_end_to_end_seconds_count{forward}"] == 3


def test_buckets_hold_what_is_at_most_their_bound() -> None:
    """A value that equals a bound is in its bucket, one above the last only in +Inf; several count as often."""
    buckets = metrics.Buckets(1, 2)
    buckets.observe(1)
    buckets.observe(3, times=2)
    told = {sample.labels.get("le"): sample.value for sample in buckets.told("x", "y").samples}
    assert (told["1.0"], told["2.0"], told["+Inf"]) == (1, 1, 3)

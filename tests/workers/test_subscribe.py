"""Subscribe, scores, sweep and drains: the smaller verbs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest
from arq import ArqRedis

from pipeline import dead_letters, keys, visitors
from pipeline.addresses import digest
from pipeline.outcomes import Person, Stage
from pipeline.wake import Bell
from sandbox import audiencepoint
from tests.workbench import Workbench, mail_events
from tests.workers.test_enrich import named, score_of, see
from workers import drains
from workers.context import BellsSeen, Context
from workers.sweep import sweep

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]


async def test_an_address_is_subscribed_once(bench: Workbench) -> None:
    """The same person seen again only makes a duplicate."""
    for _ in range(2):
        await see(bench, named("a@example.com", "U"))
        await bench.work_until(bench.is_idle)
    assert bench.box.memory.addresses == ["a@example.com"]
    assert await bench.row(Stage.SUBSCRIBE) == {"in": 2, "done": 1, "duplicate": 1}
    assert await bench.redis.hget(keys.address(digest("a@example.com")), "subscription") == (
        b"subscribed"
    )


async def test_addresses_leave_thirty_a_call(bench: Workbench) -> None:
    """Forty addresses make two calls."""
    await see(bench, *(named(f"p{n}@example.com", f"U-{n}") for n in range(10)))
    people = [
        Person(uuid=f"V-{n}", hem_sha256=digest(f"q{n}@example.com"), fields={"FIRST_NAME": "A"})
        for n in range(9)
    ]
    await see(bench, *people)
    await bench.work_until(bench.is_idle)

    calls = bench.box.memory.calls_to("list-subscription")
    assert len(bench.box.memory.subscribed) == 19
    assert 2 <= calls <= 4  # plain and hashed ones never share a call
    assert bench.box.memory.counts["largest_subscription"] <= 30


async def test_an_invalid_address_is_isolated_by_halving(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer counts invalid addresses without naming them; the others are subscribed."""
    monkeypatch.setattr(audiencepoint, "is_valid", lambda address: address != "p3@example.com")
    await see(bench, *(named(f"p{n}@example.com", f"U-{n}") for n in range(8)))
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.SUBSCRIBE) == {"in": 8, "done": 7, "dead": 1}
    (letter,) = await bench.dead()
    assert letter.payload == b"p3@example.com"
    assert "invalid" in letter.error
    assert await bench.redis.hget(keys.address(digest("p3@example.com")), "subscription") == b"dead"


async def test_scores_are_kept_with_the_visitor(bench: Workbench) -> None:
    """Changed scores are written to whoever has the address; the same again are ignored."""
    await see(bench, named("ada@example.com", "U"))
    await bench.work_until(bench.is_idle)
    for _ in range(2):
        await bench.put("scores", orjson.dumps([score_of("ada@example.com")]))
        await bench.work_until(bench.is_idle)

    found = await visitors.find(bench.redis, "ada@example.com")
    assert found is not None
    assert found.id == "U"
    assert found.scores
    assert await bench.row(Stage.SCORES) == {"in": 2, "done": 1, "ignored": 1}


async def test_a_dead_score_is_read_again(bench: Workbench) -> None:
    """A wrong score change is buried in `scores`, and a retry has its source read it again."""
    await bench.put(
        "scores", orjson.dumps([{**score_of("ada@example.com"), "emailAddress": "nonsense"}])
    )
    await bench.work_until(bench.is_idle)
    letters = await bench.dead()
    for letter in letters:
        await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)
    assert len(await bench.dead()) == len(letters) == 1
    await bench.assert_balanced()


async def test_the_sweep_drops_old_letters_and_wakes_forgotten_work(make_bench: MakeBench) -> None:
    """Letters leave by age into `dropped`; work whose bell was lost is taken up."""
    bench = make_bench(dead_keep_d=1e-9)
    await bench.put("events", b'{"what": "is this"}')  # nobody rings for it
    await bench.work_until(lambda: _is_dropped(bench))
    assert await bench.row(Stage.UNPACK) == {"in": 1, "dropped": 1}
    await bench.assert_balanced()


async def _is_dropped(bench: Workbench) -> bool:
    return await bench.count(Stage.UNPACK, "dropped") == 1


async def test_the_sweep_gives_back_what_a_dead_worker_held(bench: Workbench) -> None:
    """Entries of a consumer without a heartbeat are anyone's, and are worked on."""
    await bench.put("events", mail_events(3))
    await bench.redis.xreadgroup(keys.GROUP, "killed", {keys.queue("unpack"): ">"})
    await bench.work_until(bench.is_idle)
    assert len(bench.arrived) == 3


async def test_one_sweep_a_second_is_enough(bench: Workbench) -> None:
    """When somebody else holds the lock, a sweep does nothing."""
    async with bench.at_work() as worker:
        context: Context = worker.ctx["context"]
        await bench.redis.set("{relay}:sweeping", "other", px=60_000)
        # a bell of its own, because the worker goes on ringing the usual one
        arq = ArqRedis(bench.redis.connection_pool, default_queue_name="another")
        await bench.redis.hset("{relay}:paused", "unpack", '{"by": "operator"}')
        await bench.put("events", mail_events(1))
        await sweep(replace(context, bell=Bell(arq)))
        assert await bench.redis.zcard("another") == 0
        await bench.redis.delete("{relay}:sweeping")
        await bench.until(lambda: swept(replace(context, bell=Bell(arq)), bench))


async def swept(context: Context, bench: Workbench) -> bool:
    """Sweep; tell whether a bell was rung for what waits."""
    await sweep(context)
    return bool(await bench.redis.zcard("another"))


def test_a_bell_number_that_stays_is_stale() -> None:
    """The number of a stage that has work must change; without work there is nothing to change."""
    seen = BellsSeen()
    assert not seen.is_stale(Stage.FORWARD, 1, 0.0)
    assert seen.is_stale(Stage.FORWARD, 1, 0.0)
    assert not seen.is_stale(Stage.FORWARD, 2, 0.0)
    assert not seen.is_stale(Stage.FORWARD, None, 0.0)
    assert not seen.is_stale(Stage.FORWARD, 2, 60.0)
    assert not seen.is_stale(Stage.FORWARD, 2, 60.0)


async def test_a_bell_during_a_run_is_not_lost(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever rings while a stage is drained makes it look once more, under a raised number."""
    numbers: list[int] = []

    async def verb(context: Context, wake: asyncio.Event, until: float) -> None:
        numbers.append(int(await context.redis.hget(keys.BELLS, "scores") or 0))
        if len(numbers) == 1:
            await drain.drain(Stage.SCORES)

    async with bench.at_work() as worker:
        monkeypatch.setitem(drains.VERBS, Stage.SCORES, verb)
        drain: drains.Drains = worker.ctx["drains"]
        await drain.drain(Stage.SCORES)
    assert numbers == [1, 2]


async def test_a_failing_drain_leaves_the_stage_usable(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a verb raises ends its drain only; the next one runs."""
    runs = 0

    async def verb(context: Context, wake: asyncio.Event, until: float) -> None:
        nonlocal runs
        runs += 1
        raise ZeroDivisionError if runs == 1 else ConnectionError

    async with bench.at_work() as worker:
        monkeypatch.setitem(drains.VERBS, Stage.SCORES, verb)
        for _ in range(3):
            await worker.ctx["drains"].drain(Stage.SCORES)
    assert runs == 3

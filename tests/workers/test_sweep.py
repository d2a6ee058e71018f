"""Sweep: whatever nobody else would notice, and whom it does not ring for."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from pipeline import keys, pauses
from pipeline.clock import HOUR_MS, redis_now_ms
from pipeline.moves import Mover
from pipeline.outcomes import Stage
from pipeline.queues import Queues
from pipeline.tombstones import Tombstones
from pipeline.wake import QUEUE_NAME, Bell, arq_redis
from tests.workbench import Workbench, mail_events
from workers.context import BellsSeen, Context
from workers.ringing import ring_for_work
from workers.sweep import sweep

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]


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


async def test_an_idle_sweep_asks_three_times(bench: Workbench) -> None:
    """Who sweeps, what dead workers hold, how everything stands: one question each, and nothing more is asked."""
    context = context_of(bench)
    await sweep(context)  # pauses what has no key
    await bench.redis.delete("{relay}:sweeping")
    await bench.redis.config_resetstat()
    await sweep(context)
    asked = await bench.redis.info("commandstats")
    assert asked["cmdstat_evalsha"]["calls"] == 3
    assert not {"cmdstat_script|exists", "cmdstat_script|load", "cmdstat_multi"} & set(asked)
    assert await bench.is_paused(Stage.FORWARD)


async def test_the_sweep_lets_go_of_what_is_too_old(bench: Workbench) -> None:
    """Visitors and slots of the seen window go by age; younger ones stay."""
    context = context_of(bench)
    now = await redis_now_ms(bench.redis)
    old, window = now - context.visitor_keep_ms - 1, context.window_ms
    await bench.redis.zadd(keys.VISITORS, {"old": old, "young": now})
    slots = {str(now - window * 2): "1:9", str(now - window): "1:9"}
    await bench.redis.hset(keys.SEEN, mapping=slots)
    await sweep(context)
    assert await bench.redis.zrange(keys.VISITORS, 0, -1) == [b"young"]
    assert await bench.redis.hkeys(keys.SEEN) == [str(now - window).encode()]


async def test_a_sweep_clears_so_many_visitors_at_a_time(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest go first and the rest with the next sweeps: Redis is never held up by all of a year."""
    monkeypatch.setattr("workers.sweep.MOST_VISITORS", 2)
    context = context_of(bench)
    now = await redis_now_ms(bench.redis)
    old = now - context.visitor_keep_ms - 10
    names = {f"old-{n}": old + n for n in range(5)} | {"young": now}
    await bench.redis.zadd(keys.VISITORS, names)
    left = []
    for _ in range(3):
        await bench.redis.delete("{relay}:sweeping")
        await sweep(context)
        left.append(await bench.redis.zcard(keys.VISITORS))
    assert left == [4, 2, 1]
    assert await bench.redis.zrange(keys.VISITORS, 0, -1) == [b"young"]


async def test_the_sweep_makes_missing_queues_anew(bench: Workbench) -> None:
    """A server that was emptied while workers ran gets its queues back."""
    await bench.redis.flushall()
    await sweep(context_of(bench))
    for name in keys.ALL_QUEUES:
        assert [row["name"] for row in await bench.redis.xinfo_groups(keys.queue(name))] == [
            keys.GROUP.encode()
        ]


async def test_one_sweep_a_second_is_enough(bench: Workbench) -> None:
    """When somebody else holds the lock, a sweep does nothing."""
    context = context_of(bench)
    await bench.put("events", mail_events(1))
    await bench.redis.set("{relay}:sweeping", "other", px=60_000)
    await sweep(context)
    assert not await rung(bench)

    await bench.redis.delete("{relay}:sweeping")
    await sweep(context)
    assert await rung(bench) == {Stage.UNPACK}


def context_of(bench: Workbench) -> Context:
    """Return the tools of a worker that takes no jobs and calls nobody."""
    redis = bench.redis
    return Context(
        settings=bench.settings,
        redis=redis,
        consumer="test",
        mover=Mover(redis, "test", 3_600_000),
        queues=Queues(redis, "test"),
        bell=Bell(arq_redis(redis.connection_pool)),
        tombstones=Tombstones(redis),
        audiencepoint=None,
        audiencelab=None,
        timing=bench.timing,
    )


async def rung(bench: Workbench) -> set[str]:
    """Return the stages for which a bell was rung."""
    jobs = await bench.redis.zrange(QUEUE_NAME, 0, -1)
    return {job.decode().split(":")[1] for job in jobs}


def test_a_bell_number_that_stays_is_stale() -> None:
    """The number of a stage that has work must change; without work there is nothing to change."""
    seen = BellsSeen()
    assert not seen.is_stale(Stage.FORWARD, 1, 0.0)
    assert seen.is_stale(Stage.FORWARD, 1, 0.0)
    assert not seen.is_stale(Stage.FORWARD, 2, 0.0)
    assert not seen.is_stale(Stage.FORWARD, None, 0.0)
    assert not seen.is_stale(Stage.FORWARD, 2, 60.0)
    assert not seen.is_stale(Stage.FORWARD, 2, 60.0)


# whom to ring for ----------------------------------------------------------------------------------

#: milliseconds from now until the relay's own pause ends; a drain waits for `patience_s` by itself
ENDED, SOON, LATE, NEVER = -1, 100, HOUR_MS, None


@pytest.mark.parametrize("queue", keys.ALL_QUEUES)
async def test_work_of_any_queue_is_rung_for_unless_an_operator_paused_it(
    bench: Workbench, queue: str
) -> None:
    """What waits is looked for in every queue; a stage that an operator paused would take nothing."""
    stage = Stage(queue.split(":")[0])
    await wait_in(bench, queue)
    await pauses.pause(bench.redis, stage, "moving house")
    await ring_for_work(context_of(bench))
    assert not await rung(bench)

    await pauses.resume(bench.redis, stage)
    await ring_for_work(context_of(bench))
    assert await rung(bench) == {stage}


@pytest.mark.parametrize(
    ("queue", "ends_in_ms", "is_rung"),
    [
        ("forward", LATE, False),
        ("forward:batches", LATE, False),
        ("forward:held", NEVER, False),
        ("subscribe", NEVER, False),
        ("enrich:batches", LATE, False),
        ("forward:batches", SOON, True),
        ("forward:held", ENDED, True),
        # no call is needed for these
        ("enrich", NEVER, True),
        ("enrich:raw", LATE, True),
        ("forward:raw", LATE, True),
    ],
)
async def test_a_stage_that_the_relay_paused_is_rung_for_when_a_call_is_due(
    bench: Workbench, queue: str, ends_in_ms: int | None, *, is_rung: bool
) -> None:
    """Nobody looks again and again at calls that may not be made; a probe that is due, and other work, is."""
    stage = Stage(queue.split(":")[0])
    await wait_in(bench, queue)
    now = await redis_now_ms(bench.redis)
    until = None if ends_in_ms is None else now + ends_in_ms
    pause = {"by": "relay", "reason": "down", "since_ms": now, "until_ms": until}
    await bench.redis.hset(keys.PAUSED, stage, orjson.dumps(pause))
    await ring_for_work(context_of(bench))
    assert await rung(bench) == ({stage} if is_rung else set())


async def test_a_stage_that_backs_off_is_left_alone(bench: Workbench) -> None:
    """A vendor that asked for an hour's patience before the stage was paused is not looked at each second."""
    await wait_in(bench, "forward:batches")
    due = await redis_now_ms(bench.redis) + HOUR_MS
    await bench.redis.hset(keys.destination(Stage.FORWARD), "due", due)
    await ring_for_work(context_of(bench))
    assert not await rung(bench)


async def test_what_is_switched_off_is_rung_for_whatever_the_vendor_said(
    make_bench: MakeBench,
) -> None:
    """Work that is finished without a call waits for no pause of the relay's."""
    bench = make_bench(enrich="off")
    await wait_in(bench, "enrich:batches")
    await pauses.pause(bench.redis, Stage.ENRICH, "down", by="relay")
    await ring_for_work(context_of(bench))
    assert await rung(bench) == {Stage.ENRICH}


async def test_a_resume_is_felt_by_a_worker_at_work(bench: Workbench) -> None:
    """Nobody rings for a resumed stage but the sweep."""
    await pauses.pause(bench.redis, Stage.FORWARD, "moving house")
    await bench.put("events", mail_events(5))
    async with bench.at_work():
        await bench.until(lambda: _waits(bench, Stage.FORWARD, 5))
        await pauses.resume(bench.redis, Stage.FORWARD)
        await bench.until(bench.is_idle)
    assert len(bench.arrived) == 5


async def _waits(bench: Workbench, stage: Stage, n: int) -> bool:
    return await bench.count(stage, "waiting") == n


async def wait_in(bench: Workbench, queue: str) -> None:
    """Put something into *queue*."""
    await bench.redis.xadd(keys.queue(queue), {"p": b"{}", "m": b"events|0|o|"})

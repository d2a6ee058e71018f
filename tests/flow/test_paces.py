"""Paces on the whole way: a vendor that asks for fewer requests is asked less often, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
import pytest

from pipeline import books, dead_letters, keys, pauses
from pipeline.addresses import digest
from pipeline.dead_letters import Filter
from pipeline.moves import Move, Mover
from pipeline.origins import Origin
from pipeline.outcomes import Reason, Stage
from pipeline.queues import Entry, Queues
from sandbox.faults import poisoned, quota_exceeded, refused_alike, reset, throttled
from tests.workbench import Workbench, close, mail_event, mail_events
from workers import dispatch
from workers.width import WIDTH

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]
PACE = keys.pace("audiencepoint")
#: fast enough for a test, and a rate all the same
RATE = 500


async def share_of(bench: Workbench) -> float:
    """Return the part of the configured rate that is used."""
    return float(await bench.redis.hget(PACE, "share") or 1)


async def test_a_429_halves_the_rate_and_loses_nothing(make_bench: MakeBench) -> None:
    """After one 429 about half the rate is used, the stage is not paused, and every event arrives."""
    bench = make_bench(email_format="plain", audiencepoint_rate=RATE)
    bench.box.faults.add(throttled("events", times=1))
    await bench.put("events", mail_events(90))
    await bench.work_until(bench.is_idle)
    assert 0.5 <= await share_of(bench) < 0.51
    pace = (await books.snapshot(bench.redis, settings=bench.settings))["rates"]["audiencepoint"]
    assert pace["why"].startswith("AudiencePoint asks for fewer requests")
    assert pace["configured"] == RATE
    assert sorted(bench.arrived) == sorted(f"person{n}@example.com" for n in range(90))
    await bench.assert_balanced()


async def test_retry_after_is_honoured_beside_it(make_bench: MakeBench) -> None:
    """The wait that a vendor asks for puts off the next call, whatever the pace is."""
    bench = make_bench(email_format="plain", audiencepoint_rate=RATE)
    bench.box.faults.add(throttled("events", times=1, retry_after="3600"))
    await bench.put("events", mail_events(1))

    async def is_put_off() -> bool:
        seconds, _ = await bench.redis.time()
        due = await bench.redis.hget(keys.destination(Stage.FORWARD), "due")
        return bool(float(due or 0) / 1000 - seconds > 3_000)

    await bench.work_until(is_put_off)
    assert await share_of(bench) == 0.5
    assert bench.arrived == []
    await bench.assert_balanced()


async def test_the_quota_is_no_matter_of_pace(make_bench: MakeBench) -> None:
    """429 "Limit Exceeded" pauses the stage; asking more slowly would not help, so the rate stays."""
    bench = make_bench(email_format="plain", audiencepoint_rate=RATE)
    bench.box.faults.add(quota_exceeded("events", times=1))
    await bench.put("events", mail_events(1))
    await bench.work_until(lambda: bench.is_paused(Stage.FORWARD))
    assert not await bench.redis.exists(PACE)


async def test_without_a_rate_a_429_backs_off_and_nothing_more(make_bench: MakeBench) -> None:
    """No limit has no half: it goes on after the back-off, and everything arrives."""
    bench = make_bench(email_format="plain", audiencepoint_rate=0)
    bench.box.faults.add(throttled("events", times=2))
    await bench.put("events", mail_events(60))
    await bench.work_until(bench.is_idle)
    assert not await bench.redis.exists(PACE)
    assert len(bench.arrived) == 60


async def test_two_workers_share_the_pace_and_a_death_locks_nothing(make_bench: MakeBench) -> None:
    """What one worker was told holds for the other, also after the first is gone, and no call is lost."""
    bench = make_bench(email_format="plain", audiencepoint_rate=RATE)
    workers = [bench.worker(burst=True), bench.worker(burst=True)]
    bench.box.faults.add(throttled("events", times=1))
    await bench.put("events", mail_events(300))
    try:
        await asyncio.gather(*(worker.async_run() for worker in workers))
    finally:
        for worker in workers:
            await close(worker)
    share = await share_of(bench)
    assert 0.5 <= share < 0.52
    await bench.put("events", mail_events(30, first=300))
    await bench.work_until(bench.is_idle)  # a third one, who was told nothing
    assert share < await share_of(bench) < share + 0.01
    assert len(set(bench.arrived)) == 330
    await bench.assert_balanced()


async def test_new_work_is_not_kept_waiting_by_a_thousand_letters(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While new events wait, a batch of what was retried leaves for four of the new ones, and then the rest of it.

    One call at a time, so that batches arrive in the order in which they were claimed.
    """
    monkeypatch.setattr(dispatch, "WIDTH", 1)
    bench = make_bench(email_format="plain")
    for first in range(0, 1_000, 250):
        await bury(bench, first, 250)
    await pauses.pause(bench.redis, Stage.FORWARD, "until all is there")
    letters = await dead_letters.newest(bench.redis, Filter(), limit=2_000)
    await dead_letters.retry_all(bench.redis, [letter.id for letter in letters])
    await bench.put("events", *(mail_events(300, first=at) for at in range(5_000, 6_200, 300)))

    async def is_there() -> bool:
        return await bench.count(Stage.FORWARD, "waiting") == 2_200

    await bench.work_until(is_there)
    await pauses.resume(bench.redis, Stage.FORWARD)
    await bench.work_until(bench.is_idle)
    is_new = [int(mail[6:].split("@")[0]) >= 5_000 for mail in bench.arrived]
    assert len(is_new) == 2_200
    # forty batches of new ones, and after each four of them one of the others
    assert is_new[: 50 * 30 : 30] == ([True] * 4 + [False]) * 10
    assert not any(is_new[50 * 30 :])
    await bench.assert_balanced()


async def test_letters_of_one_stage_leave_a_slow_rate_to_the_new_work_of_another(
    make_bench: MakeBench,
) -> None:
    """Five calls of `subscribe` do not wait for the thirty-four that a thousand letters of `forward` need."""
    bench = make_bench(email_format="plain", audiencepoint_rate=10)
    for first in range(0, 1_000, 250):
        await bury(bench, first, 250)
    for stage in (Stage.FORWARD, Stage.SUBSCRIBE):
        await pauses.pause(bench.redis, stage, "until all is there")
    letters = await dead_letters.newest(bench.redis, Filter(), limit=2_000)
    await dead_letters.retry_all(bench.redis, [letter.id for letter in letters])
    move = Move("unpack", [(await taken(bench)).id])
    for n in range(150):
        mail = f"new{n}@example.com"
        move.subscribe(digest(mail), mail, Origin("pixel", 5))
    move.settle(Stage.UNPACK, "done")
    await Mover(bench.redis, "one", 3_600_000).apply([move])
    for stage in (Stage.FORWARD, Stage.SUBSCRIBE):
        await pauses.resume(bench.redis, stage)
    async with bench.at_work():
        await bench.until(lambda: len(bench.box.memory.addresses) == 150)
        assert await bench.count(Stage.FORWARD, "waiting") > 0
        await bench.until(bench.is_idle)
    assert await bench.count(Stage.FORWARD, "done") == 1_000
    await bench.assert_balanced()


async def bury(bench: Workbench, first: int, count: int) -> None:
    """Let *count* events die in `forward`."""
    move = Move("unpack", [(await taken(bench)).id])
    for n in range(first, first + count):
        payload = orjson.dumps(mail_event(n))
        move.bury(Stage.FORWARD, Reason.REFUSED, "no", payload, Origin("events", 5))
        move.new_dead(Stage.FORWARD)
    move.settle(Stage.UNPACK, "done")
    await Mover(bench.redis, "one", 3_600_000).apply([move])


async def taken(bench: Workbench) -> Entry:
    """Return a delivery in a worker's hands."""
    await bench.put("events", b"[]")
    queues = Queues(bench.redis, "one")
    return (await queues.take("unpack", Stage.UNPACK, most=1)).entries[0]


async def test_what_is_split_and_held_keeps_to_its_line(make_bench: MakeBench) -> None:
    """A batch of letters that is refused again, half by half, never gets into the line of the new work."""
    bench = make_bench(email_format="plain")
    await bury(bench, 0, 25)
    bench.box.faults.add(refused_alike("events"))
    letters = await bench.dead()
    await dead_letters.retry_all(bench.redis, [letter.id for letter in letters])
    await bench.work_until(lambda: bench.is_paused(Stage.FORWARD))
    assert await bench.count(Stage.FORWARD, "waiting") == 25
    for name in (keys.batches(Stage.FORWARD), keys.held(Stage.FORWARD)):
        assert await bench.redis.xlen(keys.queue(name)) == 0
    await bench.assert_balanced()


async def test_letters_that_are_refused_again_are_dead_again(make_bench: MakeBench) -> None:
    """The culprits are found by halves and buried, the others arrive, and nothing is left in either line."""
    bench = make_bench(email_format="plain")
    await bury(bench, 0, 5)
    bench.box.faults.add(poisoned("events", *(f"person{n}@example.com" for n in range(3))))
    letters = await bench.dead()
    await dead_letters.retry_all(bench.redis, [letter.id for letter in letters])
    await bench.put("events", mail_events(30, first=100))
    await bench.work_until(bench.is_idle)
    assert len(await bench.dead()) == 3
    assert await bench.count(Stage.FORWARD, "done") == 32
    await bench.assert_balanced()


async def test_a_refusal_teaches_nothing_of_how_long_answers_take(make_bench: MakeBench) -> None:
    """A refusal comes at once; answers of success that take longer are not late because of it."""
    bench = make_bench(email_format="plain")
    bench.box.faults.add(poisoned("events", "person0@example.com"))
    await bench.put("events", mail_events(1))
    async with bench.at_work() as worker:
        await bench.until(bench.is_idle)
        width = worker.ctx["context"].widths[Stage.FORWARD]
        assert (width.usual_s, width.calls) == (0, WIDTH)
        await bench.put("events", mail_events(1, first=1))
        await bench.until(bench.is_idle)
        assert width.usual_s > 0


async def test_no_answer_narrows_the_width_of_its_worker(make_bench: MakeBench) -> None:
    """A call that is torn down after it was sent halves what the worker sends at a time; status is told so."""
    bench = make_bench(email_format="plain")
    bench.box.faults.add(reset("events", "after", times=1))
    await bench.put("events", mail_events(1))
    async with bench.at_work() as worker:
        await bench.until(bench.is_idle)
        width = worker.ctx["context"].widths[Stage.FORWARD]
        assert 4 <= width.calls < WIDTH

        async def is_told() -> bool:
            told = await books.snapshot(bench.redis, settings=bench.settings)
            calls = told["calls"]["forward"]
            return bool(calls["now"] == width.calls and calls["why"])

        await bench.until(is_told)

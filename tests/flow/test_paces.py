"""Paces on the whole way: a vendor that asks for fewer requests is asked less often, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pipeline import keys, paces
from pipeline.outcomes import Stage
from sandbox.faults import quota_exceeded, throttled
from tests.workbench import Workbench, close, mail_events

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
    pace = (await paces.read(bench.redis, bench.settings))["audiencepoint"]
    assert pace.why is not None
    assert pace.why.startswith("AudiencePoint asks for fewer requests")
    assert pace.configured == RATE
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

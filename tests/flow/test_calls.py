"""Calls on the whole way: what a vendor does to a worker's calls is what the console's page tells of them."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from pipeline import calls
from pipeline.outcomes import Stage
from sandbox.faults import broken, slow
from tests.console.web.conftest import Open, open_console
from tests.workbench import Workbench, mail_events
from workers.clients.audiencepoint import AudiencePoint, Receipt

pytestmark = pytest.mark.anyio

__all__ = ["open_console"]


async def test_a_failure_and_a_slow_answer_arrive_on_the_page(
    bench: Workbench, open_console: Open, redis: Redis
) -> None:
    """A 500 and an answer after half a second stand there while the worker still works, the percentile behind it."""
    bench.box.faults.add(broken("events", times=1), slow("events", 0.5, times=1))
    await bench.put("events", mail_events(30))

    async def is_told() -> bool:
        known = (await calls.read(redis, [Stage.FORWARD]))[Stage.FORWARD]
        return known.hour.outcomes["ok"] >= 1

    await bench.work_until(is_told)
    console = await open_console()
    told = (await console.get("/api/destinations")).json()["forward"]
    assert told["hour"]["outcomes"]["failed"] == 1
    assert told["hour"]["outcomes"]["ok"] == 1
    assert told["hour"]["seconds"]["p99"] >= 0.5
    assert [(failure["outcome"], failure["status"]) for failure in told["failures"]] == [
        ("failed", 500)
    ]
    text = (await console.get("/destinations")).text
    assert 'data-figure="forward-hour-failed">1<' in text
    assert told["failures"][0]["words"].split('"')[0].split("'")[0] in text


async def test_a_worker_that_ends_tells_what_it_counted(bench: Workbench, redis: Redis) -> None:
    """No call of a worker that stops is missing, however soon after its last heartbeat that is."""
    await bench.put("events", mail_events(60))
    await bench.work()
    known = (await calls.read(redis, [Stage.FORWARD]))[Stage.FORWARD]
    assert known.day.outcomes["ok"] == 2


async def test_what_was_answered_counts_also_when_our_own_code_fails_then(
    bench: Workbench, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that the vendor answered is counted, whatever became of its answer here."""
    posted = AudiencePoint.post_events

    async def trips(client: AudiencePoint, body: bytes) -> Receipt:
        await posted(client, body)
        raise ZeroDivisionError

    monkeypatch.setattr(AudiencePoint, "post_events", trips)
    await bench.put("events", mail_events(1))
    await bench.work_until(bench.is_idle)
    made = bench.box.memory.calls_to("events")
    assert made == 3
    known = (await calls.read_all(redis, [Stage.FORWARD]))[Stage.FORWARD]
    assert known.calls.outcomes["ok"] == sum(known.calls.buckets) == made

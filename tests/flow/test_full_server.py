"""A Redis that is filled as far as the receiver may fill it drains by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

import sandbox.samples
from pipeline.outcomes import Stage
from pipeline.wake import DRAIN
from receiver.room import FULL_AT
from tests.workbench import Workbench, mail_events
from workers import room

pytestmark = pytest.mark.anyio

MEGABYTE = 1_000_000
SAMPLES = Path(sandbox.samples.__path__[0])


@pytest.fixture
async def small(redis: Redis) -> AsyncIterator[Redis]:
    """Give the server little memory, for this test only: but room for the 1 MB of a worker that waits for nothing.

    Half of it is taken by what stays, as visitors do, so that what is to be drained is little.
    """
    before = (await redis.config_get("maxmemory"))["maxmemory"]
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used + 10 * MEGABYTE)
    # not sent as a value: the connection's buffer would hold as much again
    await redis.setrange("kept", 5 * MEGABYTE, b"!")
    yield redis
    await redis.config_set("maxmemory", before)


async def share(redis: Redis) -> float:
    """Return how full the server is."""
    memory = await redis.info("memory")
    return float(memory["used_memory"] / memory["maxmemory"])


async def test_what_the_receiver_may_store_is_drained(
    small: Redis, make_bench: Callable[..., Workbench]
) -> None:
    """Filled to 85 % with deliveries of thirty events, the server drains, and is never over-full."""
    bench = make_bench(email_format="plain")
    stored = 0
    while await share(small) < FULL_AT:
        await bench.put("events", mail_events(30, first=stored))
        stored += 30
    fullest = 0.0

    async def is_idle() -> bool:
        nonlocal fullest
        fullest = max(fullest, await share(small))
        return await bench.is_idle()

    await bench.work_until(is_idle)

    assert (await bench.row(Stage.FORWARD))["done"] == stored
    assert fullest < 1.0
    await bench.assert_balanced()


async def test_nothing_is_unpacked_while_others_must_leave_first(
    small: Redis, make_bench: Callable[..., Workbench]
) -> None:
    """On a nearly full server `unpack` waits for what is on its way, and goes on alone when nothing is."""
    bench = make_bench()
    while await share(small) < room.FULL_AT:
        await bench.put("events", mail_events(30))
    assert await room.Room(small).bytes_to_unpack() == 1
    await small.xadd("{relay}:queue:forward", {"p": "{}", "m": "events|0|h|"})
    assert await room.Room(small).bytes_to_unpack() == 0


async def test_a_worker_starts_on_a_full_server_and_drains_it(
    small: Redis, make_bench: Callable[..., Workbench]
) -> None:
    """On a server that uses more than it may, a worker that is started takes all of the work out."""
    bench = make_bench()
    for n in range(3):
        await bench.put("events", mail_events(30, first=30 * n))
        await bench.put("pixel", (SAMPLES / "pixel-two-people.json").read_bytes())
    used = (await small.info("memory"))["used_memory"]
    await small.config_set("maxmemory", int(used * 0.97))

    await bench.work_until(bench.is_idle)

    assert (await bench.row(Stage.FORWARD))["done"] == 90
    assert await bench.count(Stage.SUBSCRIBE, "done") == 2
    await bench.assert_balanced()


async def test_what_fills_a_server_may_be_no_work(
    small: Redis, make_bench: Callable[..., Workbench]
) -> None:
    """Where draining makes no room, each stage wakes the next all the same: nothing waits for another sweep."""
    bench = make_bench()
    # only the sweep of the start; and `unpack` waits for what is on its way, however slow the machine is
    bench.timing = replace(bench.timing, sweep_s=3600.0, patience_s=30.0)
    for n in range(5):
        await bench.put("events", mail_events(30, first=30 * n))
        await bench.put("pixel", (SAMPLES / "pixel-two-people.json").read_bytes())
    await small.config_set("maxmemory", (await small.info("memory"))["used_memory"] // 2)

    await bench.work_until(bench.is_idle)

    assert (await bench.row(Stage.FORWARD))["done"] == 150
    await bench.assert_balanced()


async def test_a_full_server_does_not_end_a_worker(
    small: Redis, make_bench: Callable[..., Workbench]
) -> None:
    """A job that arq has begun when the server becomes full is carried out; arq ends of nothing it would count."""
    bench = make_bench()
    async with bench.at_work() as worker:
        await worker.pool.enqueue_job(DRAIN, Stage.UNPACK, _job_id="begun", _defer_by=3600)
        await small.config_set("maxmemory", 1)
        await worker.run_job("begun", 0)

    assert worker.jobs_complete == 1
    assert not await small.exists("arq:job:begun")

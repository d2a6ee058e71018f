"""What we rely on of arq 0.28, pinned: when one of these fails, an upgrade changed something that matters.

The design rests on it: a job is a wake-up whose loss is harmless (it may be swallowed or lost), whose id
may be used again, and which a crash locks for a known time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import redis as sync_redis
from arq import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq.worker import Retry, Worker, create_worker, func, get_kwargs
from redis.asyncio import ConnectionPool

from pipeline import keys, wake

pytestmark = pytest.mark.anyio

QUEUE = wake.QUEUE_NAME


@pytest.fixture
async def arq(redis_url: str) -> AsyncIterator[ArqRedis]:
    """Give our own client of arq on an emptied server."""
    client = wake.arq_redis(ConnectionPool.from_url(redis_url))
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


def settings(arq: ArqRedis, **more: Any) -> dict[str, Any]:
    """Return settings as our workers have them."""
    return {
        "redis_pool": arq,
        "queue_name": QUEUE,
        "job_serializer": wake.serialize,
        "job_deserializer": wake.deserialize,
        "keep_result": 0,
        "max_tries": 1_000_000,
        "burst": True,
        "poll_delay": 0.01,
        "handle_signals": False,
        "job_timeout": 60,
        **more,
    }


async def run(arq: ArqRedis, *functions: Any, **more: Any) -> Worker:
    """Run a worker until its queue is empty; return it, to see what it counted."""
    worker = Worker(functions=functions, **settings(arq, **more))
    try:
        await worker.main()
    finally:
        await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
    return worker


async def idle(ctx: dict[str, Any], *args: Any) -> None:
    """Do nothing."""


async def test_an_id_that_is_queued_makes_no_second_job(arq: ArqRedis) -> None:
    """While a job waits, the same id answers None and changes nothing."""
    assert await arq.enqueue_job("idle", _job_id="one") is not None
    assert await arq.enqueue_job("idle", "other", _job_id="one") is None
    assert await arq.zcard(QUEUE) == 1
    assert orjson.loads(await arq.get(f"{job_key_prefix}one"))["a"] == []


async def test_an_id_is_locked_while_its_job_runs(arq: ArqRedis) -> None:
    """A bell with the same id rung during the run is lost: hence the number in our ids."""
    answers = []

    async def ring(ctx: dict[str, Any]) -> None:
        for name in ("one", "two"):
            answers.append(await arq.enqueue_job("idle", _job_id=name) is not None)

    await arq.enqueue_job("ring", _job_id="one")
    worker = await run(arq, func(ring, name="ring"), func(idle, name="idle"))
    assert answers == [False, True]
    assert worker.jobs_complete == 2


async def test_a_finished_id_can_be_used_again(arq: ArqRedis) -> None:
    """With keep_result 0 on the worker nothing of a job stays that would block its id."""
    for _ in range(2):
        assert await arq.enqueue_job("idle", _job_id="one") is not None
        assert (await run(arq, func(idle, name="idle"))).jobs_complete == 1
        assert await arq.keys("arq:*") == []


@pytest.mark.parametrize("failure", [ValueError("bad"), TimeoutError()])
async def test_a_job_that_raises_is_over_and_leaves_nothing(
    arq: ArqRedis, failure: Exception
) -> None:
    """An exception is final, without a retry or a dead letter: hence our drains let none out."""

    async def fail(ctx: dict[str, Any]) -> None:
        raise failure

    await arq.enqueue_job("fail", _job_id="one")
    worker = await run(arq, func(fail, name="fail"))
    assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)
    assert await arq.keys("arq:*") == []
    assert await arq.zcard(QUEUE) == 0


async def test_a_name_nobody_knows_is_failed_and_deleted(arq: ArqRedis) -> None:
    """Workers are deployed before whoever rings: an unknown job is gone at once."""
    await arq.enqueue_job("misspelt", _job_id="one")
    assert (await run(arq, func(idle, name="idle"))).jobs_failed == 1
    assert await arq.keys("arq:*") == []


async def test_the_stored_form_of_a_job(arq: ArqRedis) -> None:
    """One string in our JSON, with a time to live, and one member of the queue scored by its due time."""
    job = await arq.enqueue_job(wake.DRAIN, "forward", _job_id="one")
    assert job is not None
    stored = orjson.loads(await arq.get(f"{job_key_prefix}one"))
    enqueued_ms = stored.pop("et")
    assert stored == {"t": None, "f": "drain", "a": ["forward"], "k": {}}
    assert await arq.zrange(QUEUE, 0, -1, withscores=True) == [(b"one", enqueued_ms)]
    assert 0 < await arq.pttl(f"{job_key_prefix}one") <= wake.EXPIRES_MS
    assert {name.decode() for name in await arq.keys("*")} == {
        QUEUE,
        f"{job_key_prefix}one",
        keys.RUNG,
    }


async def test_an_expired_job_fails_without_its_function(arq: ArqRedis) -> None:
    """A job whose data has expired is thrown away: hence the sweep rings again, and data is never in it."""
    await arq.enqueue_job("idle", _job_id="one")
    await arq.delete(f"{job_key_prefix}one")
    worker = await run(arq, func(idle, name="idle"))
    assert (worker.jobs_failed, worker.jobs_complete) == (1, 0)
    assert await arq.zcard(QUEUE) == 0


async def test_only_the_named_queue_is_served(arq: ArqRedis) -> None:
    """The queue's name is set on the client and on the worker; what lies in another one stays."""
    await arq.enqueue_job("idle", _job_id="one", _queue_name="other")
    assert (await run(arq, func(idle, name="idle"))).jobs_complete == 0
    assert await arq.zcard("other") == 1


async def test_both_sides_must_use_one_serializer(arq: ArqRedis) -> None:
    """A worker that reads another form fails the job for good."""
    await arq.enqueue_job("idle", _job_id="one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wake, "deserialize", lambda stored: 1 / 0)
        worker = await run(arq, func(idle, name="idle"))
    assert (worker.jobs_failed, worker.jobs_complete) == (1, 0)


async def test_exceptions_pass_through_the_serializer(
    arq: ArqRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """A result is serialized even when it is not kept, so ours must take whatever there is."""

    async def fail(ctx: dict[str, Any]) -> None:
        raise ValueError("bad")

    await arq.enqueue_job("fail", _job_id="one")
    await run(arq, func(fail, name="fail"))
    assert not [record for record in caplog.records if "serial" in record.getMessage()]


async def test_every_stop_counts_as_a_try(arq: ArqRedis) -> None:
    """A cancelled job runs again and its tries add up: hence an unreachable max_tries."""
    tries = []

    async def stopped(ctx: dict[str, Any]) -> None:
        tries.append(ctx["job_try"])
        if len(tries) < 3:
            raise asyncio.CancelledError

    await arq.enqueue_job("stopped", _job_id="one")
    worker = await run(arq, func(stopped, name="stopped"))
    assert tries == [1, 2, 3]
    assert (worker.jobs_retried, worker.jobs_complete, worker.jobs_failed) == (2, 1, 0)


async def test_too_many_tries_are_noticed_before_the_next_run(arq: ArqRedis) -> None:
    """When tries run out the function is not called again, and the job is deleted."""
    tries = []

    async def again(ctx: dict[str, Any]) -> None:
        tries.append(ctx["job_try"])
        raise Retry

    await arq.enqueue_job("again", _job_id="one")
    worker = await run(arq, func(again, name="again"), max_tries=2)
    assert (tries, worker.jobs_failed) == ([1, 2], 1)
    assert await arq.keys("arq:*") == []


async def test_a_crash_locks_a_job_for_a_known_time(arq: ArqRedis) -> None:
    """A job in progress holds a key for the longest job_timeout and ten seconds, and nobody else takes it."""
    left = []

    async def look(ctx: dict[str, Any]) -> None:
        left.append(await arq.pttl(f"{in_progress_key_prefix}one"))
        left.append(await arq.ttl(f"{retry_key_prefix}one"))

    await arq.enqueue_job("look", _job_id="one")
    await run(arq, func(look, name="look"))
    assert 60_000 < left[0] <= 70_000
    assert 88_000 < left[1] <= 88_400
    await arq.enqueue_job("look", _job_id="one")
    await arq.set(f"{in_progress_key_prefix}one", b"1")  # as a killed worker leaves it
    worker = Worker([func(look, name="look")], **settings(arq))
    await worker.start_jobs([b"one"])
    assert not worker.tasks
    assert await arq.zcard(QUEUE) == 1
    # another number is another id: the stage's next bell is not locked
    assert await arq.enqueue_job("look", _job_id="two") is not None


async def test_a_lost_connection_also_answers_none(arq: ArqRedis, redis_url: str) -> None:
    """When the connection dies between looking and writing, arq says None as if the job were there, and it is not."""

    def kill_then_serialize(job: dict[str, Any]) -> bytes:
        with sync_redis.Redis.from_url(redis_url) as killer:
            killer.client_kill_filter(_type="normal", skipme=True)
        return wake.serialize(job)

    arq.job_serializer = kill_then_serialize
    assert await arq.enqueue_job("idle", _job_id="one") is None
    assert await arq.exists(f"{job_key_prefix}one", QUEUE) == 0


async def test_a_full_server_takes_no_job_and_starts_none(arq: ArqRedis) -> None:
    """arq's own writes are refused on a full server: a bell raises, and a waiting job is left where it is."""
    await arq.enqueue_job("idle", _job_id="one")
    limit = (await arq.config_get("maxmemory"))["maxmemory"]
    await arq.config_set("maxmemory", 1)
    try:
        with pytest.raises(sync_redis.ResponseError, match=r"OOM|memory"):
            await arq.enqueue_job("idle", _job_id="two")
        worker = Worker([func(idle, name="idle")], **settings(arq))
        await worker.start_jobs([b"one"])
        assert not worker.tasks
    finally:
        await arq.config_set("maxmemory", limit)
    assert await arq.zcard(QUEUE) == 1


async def test_settings_may_be_a_dictionary(arq: ArqRedis) -> None:
    """The worker takes a dictionary and leaves out what it does not know."""
    given = settings(arq, functions=[func(idle, name="idle")], our_own="note")
    assert "our_own" not in get_kwargs(given)
    worker = create_worker(given)
    assert (worker.queue_name, worker.keep_result_s, worker.max_tries) == (QUEUE, 0, 1_000_000)
    assert worker.in_progress_timeout_s == 70

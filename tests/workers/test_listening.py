"""How arq waits for a job: it is told, and never later than it would have asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from arq import ArqRedis
from redis.asyncio import ConnectionPool, Redis

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.wake import QUEUE_NAME, Bell, arq_redis
from tests.workbench import Workbench, mail_events
from workers import patience
from workers.patience import Patience, arqs_redis

pytestmark = pytest.mark.anyio

NEVER_S = 3600.0
FORWARD_1, FORWARD_2 = b"drain:forward:1", b"drain:forward:2"


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker that is not told of a job never look for one."""
    monkeypatch.setattr(patience, "LISTENS_S", NEVER_S)


@pytest.fixture
async def asker(redis: Redis, redis_url: str) -> AsyncIterator[ArqRedis]:
    """Give a worker's own client of arq on an emptied server."""
    client = arqs_redis(ConnectionPool.from_url(redis_url), Patience())
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
async def bell(redis_url: str) -> AsyncIterator[Bell]:
    """Give a bell, as any process has one."""
    client = arq_redis(ConnectionPool.from_url(redis_url))
    yield Bell(client)
    await client.aclose(close_connection_pool=True)


async def jobs(asker: ArqRedis) -> list[bytes]:
    """Ask for jobs as arq does it each time it polls."""
    found: list[bytes] = await asker.zrangebyscore(
        QUEUE_NAME, min=float("-inf"), max=0, start=0, num=250
    )
    return found


async def listening(redis: Redis) -> str:
    """Wait until somebody listens; return that connection's number."""
    async with asyncio.timeout(30):
        while True:
            for client in await redis.client_list():
                if "b" in client["flags"]:
                    return str(client["id"])
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("endless")
async def test_an_idle_worker_hears_of_a_delivery(bench: Workbench) -> None:
    """A bell wakes it, for each delivery again; and it stops although it listens."""
    async with bench.at_work() as worker:
        context = worker.ctx["context"]
        for number in range(3):
            await listening(bench.redis)
            await bench.put("events", mail_events(1, first=number))
            bells = await bench.redis.hget(keys.BELLS, Stage.UNPACK)
            await context.bell.ring(Stage.UNPACK, int(bells or 0))
            await bench.until(lambda n=number: len(bench.arrived) == n + 1)  # type: ignore[misc]
            await bench.until(bench.is_idle)


@pytest.mark.usefixtures("endless")
async def test_a_job_is_seen_that_came_between_two_questions(asker: ArqRedis, bell: Bell) -> None:
    """A note is heard that was left after the last answer, whenever the next question is asked."""
    assert await jobs(asker) == []
    await bell.ring(Stage.FORWARD, 1)
    async with asyncio.timeout(30):
        assert await jobs(asker) == [FORWARD_1]


@pytest.mark.usefixtures("endless")
async def test_while_there_is_a_job_nobody_listens(asker: ArqRedis, bell: Bell) -> None:
    """A job that another worker runs, or that a dead one has locked, is asked for as often as arq likes."""
    await bell.ring(Stage.FORWARD, 1)
    async with asyncio.timeout(30):
        assert [await jobs(asker) for _ in range(5)] == [[FORWARD_1]] * 5


@pytest.mark.usefixtures("endless")
async def test_a_job_of_a_clock_that_is_ahead_counts(asker: ArqRedis, redis: Redis) -> None:
    """A job that is not due yet by this clock is no reason to wait for another one: arq looks at its time."""
    await redis.zadd(QUEUE_NAME, {"later": 9e15})
    async with asyncio.timeout(30):
        assert [await jobs(asker) for _ in range(3)] == [[b"later"]] * 3


async def test_a_job_without_a_note_is_found_a_little_later(asker: ArqRedis, redis: Redis) -> None:
    """An older version rings without a note."""
    assert await jobs(asker) == []
    await redis.zadd(QUEUE_NAME, {"old": 1})
    async with asyncio.timeout(30):
        assert await jobs(asker) == [b"old"]


async def test_notes_may_begin_anew(
    asker: ArqRedis, bell: Bell, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fail-over to a clock that is behind, one job at most is found late."""
    await redis.xadd(keys.RUNG, {"job": "none"}, id="99999999999999-0")
    assert await jobs(asker) == []
    assert await jobs(asker) == []  # that note is read now
    await redis.delete(keys.RUNG)
    await bell.ring(Stage.FORWARD, 1)
    monkeypatch.setattr(patience, "LISTENS_S", 0.01)
    assert await jobs(asker) == [FORWARD_1]  # not told of, but found
    await redis.delete(QUEUE_NAME)
    assert await jobs(asker) == []
    monkeypatch.setattr(patience, "LISTENS_S", NEVER_S)
    async with asyncio.timeout(30):
        await bell.ring(Stage.FORWARD, 2)
        while await jobs(asker) != [FORWARD_2]:
            pass


@pytest.mark.usefixtures("endless")
async def test_a_master_that_becomes_a_replica_sends_listeners_away(
    asker: ArqRedis, redis: Redis
) -> None:
    """The error it does so with is no reason to end: arq goes on asking."""
    assert await jobs(asker) == []
    asking = asyncio.create_task(jobs(asker))
    await redis.execute_command("CLIENT", "UNBLOCK", await listening(redis), "ERROR")
    async with asyncio.timeout(30):
        assert await asking == []


async def test_a_note_comes_with_a_job_only(bell: Bell, redis: Redis, redis_url: str) -> None:
    """The last one is kept; a number that somebody rang already leaves none."""
    for number in (1, 2):
        await bell.ring(Stage.FORWARD, number)
    (note,) = await redis.xrange(keys.RUNG)
    assert note[1] == {b"job": FORWARD_2}
    other = arq_redis(ConnectionPool.from_url(redis_url))
    await Bell(other).ring(Stage.FORWARD, 1)
    await other.aclose(close_connection_pool=True)
    assert await redis.xrange(keys.RUNG) == [note]

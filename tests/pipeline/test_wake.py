"""The bell: one job for each number, and nothing that goes wrong with it matters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from arq import ArqRedis
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as NoConnection

from pipeline.outcomes import Stage
from pipeline.wake import QUEUE_NAME, Bell, arq_redis, deserialize, serialize

pytestmark = pytest.mark.anyio


@pytest.fixture
async def arq(redis_url: str) -> AsyncIterator[ArqRedis]:
    """Give arq's client on an emptied server."""
    client = arq_redis(ConnectionPool.from_url(redis_url))
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


class Arq:
    """Stands for a connection in some state: answers or raises what it is given, and counts."""

    def __init__(self, *answers: BaseException | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def enqueue_job(self, *args: Any, **options: Any) -> None:
        """Take a job."""
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, asyncio.CancelledError):
            await asyncio.Event().wait()
        if answer is not None:
            raise answer


def bell(arq: Arq) -> Bell:
    """Return a bell on *arq*."""
    return Bell(cast("ArqRedis", arq))


async def test_a_bell_is_one_job_for_each_number(arq: ArqRedis) -> None:
    """A number that was rung already makes no second job, in this process or in another; a new one does."""
    bell = Bell(arq)
    for number in (1, 1, 2):
        await bell.ring(Stage.FORWARD, number)
        await Bell(arq).ring(Stage.FORWARD, number)
    await bell.ring(Stage.ENRICH, 1)
    jobs = {name async for name in arq.scan_iter("arq:job:*")}
    assert jobs == {
        b"arq:job:drain:forward:1", b"arq:job:drain:forward:2", b"arq:job:drain:enrich:1",
    }  # fmt: skip
    assert await arq.zcard(QUEUE_NAME) == 3
    job = deserialize(await arq.get("arq:job:drain:enrich:1"))
    assert (job["f"], job["a"], job["k"]) == ("drain", ["enrich"], {})
    assert 6 * 86_400_000 < await arq.pttl("arq:job:drain:enrich:1") <= 7 * 86_400_000


async def test_a_process_rings_a_number_once(caplog: pytest.LogCaptureFixture) -> None:
    """Further rings cost nothing, until the sweep sees that nobody takes the work up."""
    arq = Arq(None, None)
    once = bell(arq)
    await once.ring(Stage.FORWARD, 1)
    await once.ring(Stage.FORWARD, 1)
    assert arq.asked == 1
    once.forget(Stage.FORWARD)
    once.forget(Stage.SCORES)
    await once.ring(Stage.FORWARD, 1)
    assert arq.asked == 2
    assert not caplog.records


async def test_a_bell_that_gets_lost_is_harmless() -> None:
    """arq says None when its connection died and nothing was stored; the next number rings as ever."""
    arq = Arq(None, None)
    lost = bell(arq)
    await lost.ring(Stage.FORWARD, 1)
    await lost.ring(Stage.FORWARD, 2)
    assert arq.asked == 2


@pytest.mark.parametrize("failure", [NoConnection("gone"), OSError("refused")])
async def test_a_bell_that_cannot_ring_never_raises(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis being away is a line in the log, and the same number may be rung again."""
    arq = Arq(failure, None)
    broken = bell(arq)
    with caplog.at_level(logging.WARNING):
        await broken.ring(Stage.FORWARD, 1)
    assert "stage=forward" in caplog.text
    await broken.ring(Stage.FORWARD, 1)
    assert arq.asked == 2


async def test_a_bell_on_a_silent_network_gives_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that never answers holds nobody up for long."""
    timeout = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda seconds: timeout(seconds / 1000))
    await bell(Arq(asyncio.CancelledError())).ring(Stage.FORWARD, 1)
    assert "TimeoutError" in caplog.text


async def test_all_stages_of_a_move_are_rung() -> None:
    """Exactly the stages that got work are rung, each with its own number."""
    arq = Arq(None, None)
    await bell(arq).ring_all(dict.fromkeys(Stage, 3), {Stage.FORWARD, Stage.ENRICH})
    assert arq.asked == 2


def test_a_job_is_json_whatever_it_holds() -> None:
    """arq passes results and exceptions through the serializer: what has no JSON is written as its repr."""
    stored = serialize({"a": (1, "x"), "r": ValueError("no")})
    assert deserialize(stored) == {"a": [1, "x"], "r": "ValueError('no')"}

"""/healthz lives, /readyz tells what is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from pipeline import heartbeats, keys
from receiver import health
from receiver.group_commit import GroupCommit
from tests.receiver.conftest import TOKEN, MakeClient

pytestmark = pytest.mark.anyio


async def test_ready_needs_redis_room_and_a_worker(client: AsyncClient, redis: Redis) -> None:
    """With all three it is 200."""
    await heartbeats.beat(redis, "w1")
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True}


async def test_no_worker_is_named(client: AsyncClient, redis: Redis) -> None:
    """No heartbeat at all, or none for 60 s, is 503 and says so."""
    for score in (None, 1_000):
        if score is not None:
            await redis.zadd(keys.WORKERS, {"w1": score})
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "no worker" in answer.json()["detail"]
        assert "retry-after" in answer.headers


async def test_a_worker_that_was_just_there_is_not_missed_yet(
    client: AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stops takes its heartbeat with it: 503 follows after 60 s, so that the next may start meanwhile."""
    await heartbeats.beat(redis, "w1")
    assert (await client.get("/readyz")).status_code == 200
    await redis.delete(keys.WORKERS)
    assert (await client.get("/readyz")).status_code == 200

    later = time.monotonic() + health.WORKER_SILENT_S
    monkeypatch.setattr(health, "monotonic", lambda: later)
    assert (await client.get("/readyz")).status_code == 503


@pytest.fixture
async def without_spill(make_client: MakeClient) -> AsyncIterator[AsyncClient]:
    """Give a client of a receiver that keeps nothing on disk."""
    async with make_client(spill_max_bytes=0) as client:
        yield client


async def test_a_full_redis_is_named(without_spill: AsyncClient, redis: Redis) -> None:
    """Nearly full is 503 and says so, where nothing is spilled."""
    client = without_spill
    await heartbeats.beat(redis, "w1")
    used = int((await redis.info("memory"))["used_memory"])
    before = (await redis.config_get("maxmemory"))["maxmemory"]
    try:
        await redis.config_set("maxmemory", int(used / 0.86))
        answer = await client.get("/readyz")
    finally:
        await redis.config_set("maxmemory", before)
    assert answer.status_code == 503
    assert answer.json()["detail"] == "Redis is nearly full"


async def test_no_redis_is_named_and_the_process_lives(make_client: MakeClient) -> None:
    """Redis away and no spill: 503 on /readyz, 200 on /healthz."""
    async with make_client(redis_url="redis://127.0.0.1:1/0", spill_max_bytes=0) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "unreachable" in answer.json()["detail"]
        assert (await client.get("/healthz")).json() == {"alive": True}


async def test_who_spills_says_so(make_client: MakeClient) -> None:
    """Redis away: 503 also while the disk keeps what comes, told beside the reason; beyond the limit hooks are 503."""
    async with make_client(redis_url="redis://127.0.0.1:1/0", spill_max_bytes=500) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        told = "Redis is unreachable; deliveries are kept on disk meanwhile"
        assert answer.json()["detail"] == told
        hook = f"/hooks/events/{TOKEN}"
        statuses = [(await client.post(hook, content=b"[]")).status_code for _ in range(10)]
        assert statuses == sorted(statuses)
        assert {202, 503} == set(statuses)


async def test_a_disk_that_takes_nothing_is_no_spill(
    make_client: MakeClient, tmp_path: Path
) -> None:
    """Where the folder cannot be made, Redis away is 503, on /readyz and on hooks."""
    (tmp_path / "home").write_text("a file where the folder should be")
    async with make_client(redis_url="redis://127.0.0.1:1/0") as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "Redis is unreachable")
        assert (await client.post(f"/hooks/events/{TOKEN}", content=b"[]")).status_code == 503


async def test_a_redis_that_takes_no_writes_is_named(
    without_spill: AsyncClient, redis: Redis
) -> None:
    """A replica answers every question and stores nothing: 503 with its own words, until a write succeeds."""
    client = without_spill
    await heartbeats.beat(redis, "w1")
    hook = f"/hooks/events/{TOKEN}"
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        assert (await client.post(hook, content=b"[]")).status_code == 503
        answer = await client.get("/readyz")
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert answer.status_code == 503
    assert "read only replica" in answer.json()["detail"]
    assert (await client.post(hook, content=b"[]")).status_code == 202
    assert (await client.get("/readyz")).status_code == 200


async def test_who_spills_says_why_redis_takes_no_writes(client: AsyncClient, redis: Redis) -> None:
    """The same with a spill: 202 and spilled, 503 on /readyz in Redis's own words, and 200 once it is drained."""
    await heartbeats.beat(redis, "w1")
    hook = f"/hooks/events/{TOKEN}"
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        spilled = await client.post(hook, content=b"[]")
        async with asyncio.timeout(60):
            while "read only replica" not in (refused := await client.get("/readyz")).text:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.01)
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert (spilled.status_code, spilled.headers["relay-ack"]) == (202, "spilled")
    assert refused.status_code == 503
    assert refused.json()["detail"].endswith("deliveries are kept on disk meanwhile")
    async with asyncio.timeout(60):
        while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.01)


async def test_a_part_that_fails_closes_the_receiver(
    make_client: MakeClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background task that ends by a fault of ours is no silence: 503 on hooks and on /readyz."""
    await heartbeats.beat(redis, "w1")

    async def fail(self: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(GroupCommit, "run", fail)
    async with make_client() as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "a part of the receiver has failed" in answer.json()["detail"]
        assert (await client.post(f"/hooks/events/{TOKEN}", content=b"[]")).status_code == 503


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_the_pages_are_read_only(client: AsyncClient, redis: Redis, path: str) -> None:
    """HEAD works, other methods are refused with `Allow`."""
    await heartbeats.beat(redis, "w1")
    assert (await client.head(path)).status_code == 200
    answer = await client.post(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"

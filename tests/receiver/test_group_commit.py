"""Group commit: many travel together, nobody is promised anything too early, nobody waits too long."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest
from redis.asyncio import Redis

from console.redis_server import EmbeddedRedis
from pipeline.connections import receiver_redis
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox, NoAnswer, NotStored
from pipeline.settings import Settings
from pipeline.wake import Bell, arq_redis
from receiver.group_commit import GroupCommit
from receiver.limits import Limits
from receiver.metrics import Metrics

pytestmark = pytest.mark.anyio


class Watched(Inbox):
    """The real inbox, which notes what it was given, and can be held, or told to refuse bodies."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.entries: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()
        self.refuses: bytes | None = None

    async def put_entries(
        self, entries: Sequence[Sequence[Delivery]], within_s: float
    ) -> list[int | NotStored]:
        """Store, once the gate is open."""
        self.entries += [[delivery.body for delivery in entry] for entry in entries]
        self.called.set()
        await self.gate.wait()
        return [await self._put_unless_refused(entry, within_s) for entry in entries]

    async def _put_unless_refused(
        self, entry: Sequence[Delivery], within_s: float
    ) -> int | NotStored:
        if self.refuses in [delivery.body for delivery in entry]:
            return NotStored("refused on purpose")
        (stored,) = await super().put_entries([entry], within_s)
        return stored


def delivery(body: bytes = b"{}") -> Delivery:
    """Return a fresh delivery."""
    return Delivery(new_delivery_id(), "pixel", body, 1_700_000_000_000)


@pytest.fixture
def inbox(redis: Redis) -> Watched:
    """Give an inbox that can be watched and held."""
    return Watched(redis)


@pytest.fixture
async def commit(redis: Redis, inbox: Watched) -> AsyncIterator[GroupCommit]:
    """Give a running group commit with small stream entries."""
    # a busy machine must not make these tests fail: time is the subject of others
    limits = Limits(4, 100, entries_per_flush=2, answer_within_s=10)
    commit = GroupCommit(inbox, Bell(arq_redis(redis.connection_pool)), Metrics(), limits)
    flusher = asyncio.create_task(commit.run())
    yield commit
    flusher.cancel()
    await asyncio.wait([flusher])
    await commit.finish()


async def test_what_arrives_during_a_flush_travels_together(
    commit: GroupCommit, inbox: Watched
) -> None:
    """A single delivery leaves at once; those that come meanwhile share the next write."""
    inbox.gate.clear()
    first = commit.put(delivery(b"1"))
    await inbox.called.wait()
    rest = [commit.put(delivery(b"%d" % n)) for n in range(2, 5)]
    await asyncio.sleep(0)
    inbox.gate.set()
    await asyncio.gather(first, *rest)
    assert inbox.entries == [[b"1"], [b"2", b"3", b"4"]]


async def test_entries_are_bounded_in_number_and_bytes(commit: GroupCommit, inbox: Watched) -> None:
    """No stream entry holds more deliveries or bytes than allowed, but a large body still travels."""
    bodies = [b"a", b"b", b"c", b"d", b"e", b"f" * 99, b"g" * 500, b"h"]
    await asyncio.gather(*(commit.put(delivery(body)) for body in bodies))
    assert [body for entry in inbox.entries for body in entry] == bodies
    for entry in inbox.entries:
        assert len(entry) <= 4
        assert len(entry) == 1 or sum(map(len, entry)) <= 100


async def test_a_failed_write_fails_exactly_its_own(commit: GroupCommit, inbox: Watched) -> None:
    """Another entry of the same flush, and the next flush, are stored all the same."""
    inbox.refuses = b"3"
    results = await asyncio.gather(
        *(commit.put(delivery(b"%d" % n)) for n in range(8)), return_exceptions=True
    )
    assert [isinstance(result, NotStored) for result in results] == [True] * 4 + [False] * 4
    await commit.put(delivery())


async def test_a_fault_of_ours_answers_everybody(
    commit: GroupCommit, inbox: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception nobody thought of fails its deliveries and leaves the flusher alive."""

    async def fail(*_: object) -> int:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(inbox, "put_entries", fail)
        with pytest.raises(NotStored, match="ZeroDivisionError"):
            await commit.put(delivery())
    await commit.put(delivery())


async def test_a_client_that_goes_away_harms_nobody(commit: GroupCommit, inbox: Watched) -> None:
    """A cancelled request, waiting or in mid-write, leaves the others' answers alone."""
    inbox.gate.clear()
    writing = commit.put(delivery(b"writing"))
    await inbox.called.wait()
    waiting = commit.put(delivery(b"waiting"))
    other = commit.put(delivery(b"other"))
    await asyncio.sleep(0)
    writing.cancel()
    waiting.cancel()
    inbox.gate.set()
    await other
    assert inbox.entries == [[b"writing"], [b"other"]]


async def in_mid_write(
    redis: Redis, inbox: Watched
) -> tuple[GroupCommit, asyncio.Task[None], Awaitable[object]]:
    """Return a commit, its flusher, which is in the middle of a write, and the answer to what it writes."""
    commit = GroupCommit(inbox, Bell(arq_redis(redis.connection_pool)), Metrics())
    flusher = asyncio.create_task(commit.run())
    inbox.gate.clear()
    put = commit.put(delivery())
    await inbox.called.wait()
    return commit, flusher, put


async def test_a_stopped_flusher_promises_nothing(redis: Redis, inbox: Watched) -> None:
    """Cancelled in mid-write, it answers "not stored": never a 202 that nobody vouches for."""
    _, flusher, put = await in_mid_write(redis, inbox)
    flusher.cancel()
    with pytest.raises(NotStored, match="stopping"):
        await put


async def test_a_redis_that_hangs_fails_everybody_in_time_and_recovers(
    redis: Redis, redis_server: EmbeddedRedis
) -> None:
    """With Redis stopped (SIGSTOP) all waiters are refused; when it goes on, so does storing."""
    client = receiver_redis(
        Settings.model_validate({"redis_url": redis_server.url, "hook_tokens": "t" * 16})
    )
    inbox = Inbox(client)
    commit = GroupCommit(inbox, Bell(arq_redis(client.connection_pool)), Metrics())
    flusher = asyncio.create_task(commit.run())
    await commit.put(delivery())
    process_id = int((await redis.info("server"))["process_id"])
    os.kill(process_id, signal.SIGSTOP)
    try:
        puts = []
        for _ in range(20):  # some with the first flush, the others behind it
            puts.append(commit.put(delivery()))
            await asyncio.sleep(0.005)
        async with asyncio.timeout(60):
            results = await asyncio.gather(*puts, return_exceptions=True)
    finally:
        os.kill(process_id, signal.SIGCONT)
    assert all(isinstance(result, NotStored) for result in results)
    await redis.ping()
    await commit.put(delivery())
    flusher.cancel()
    await asyncio.wait([flusher])
    await commit.finish()
    await client.aclose()


@pytest.fixture
async def hanging(redis: Redis, redis_server: EmbeddedRedis) -> AsyncIterator[Watched]:
    """Give the inbox of a receiver whose Redis has been stopped (SIGSTOP) after its first answer."""
    client = receiver_redis(
        Settings.model_validate({"redis_url": redis_server.url, "hook_tokens": "t" * 16})
    )
    inbox = Watched(client)
    await inbox.put([delivery()])
    process_id = int((await redis.info("server"))["process_id"])
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield inbox
    finally:
        os.kill(process_id, signal.SIGCONT)
        await client.aclose()


async def test_a_backlog_behind_a_redis_that_hangs_is_refused_at_once(hanging: Watched) -> None:
    """One write finds it out; those who waited behind it get no try of their own, however many."""
    limits = Limits(entries_per_flush=2, deliveries_per_entry=5)
    commit = GroupCommit(
        hanging, Bell(arq_redis(hanging._redis.connection_pool)), Metrics(), limits
    )
    flusher = asyncio.create_task(commit.run())
    puts = [commit.put(delivery()) for _ in range(500)]
    results = await asyncio.gather(*puts, return_exceptions=True)
    assert {type(result) for result in results} == {NoAnswer}
    assert len(hanging.entries[1:]) == 2
    assert commit.trouble() == "Redis did not answer in time"
    flusher.cancel()
    await asyncio.wait([flusher])


async def test_what_was_answered_for_in_time_is_stored(
    commit: GroupCommit, inbox: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a write that was given up, the entries that Redis had answered for are acknowledged."""

    async def put_entries(
        entries: Sequence[Sequence[Delivery]], within_s: float
    ) -> list[int | NotStored]:
        return [0, *[NoAnswer("late")] * (len(entries) - 1)]

    monkeypatch.setattr(inbox, "put_entries", put_entries)
    results = await asyncio.gather(
        *(commit.put(delivery()) for _ in range(8)), return_exceptions=True
    )
    assert [result is False for result in results] == [True] * 4 + [False] * 4


async def test_a_flush_is_bounded_and_a_larger_body_travels_alone(
    redis: Redis, inbox: Watched
) -> None:
    """No write holds more than its limit, but for a single body that is larger by itself."""
    writes: list[list[int]] = []
    put_entries = inbox.put_entries

    async def note(entries: Sequence[Sequence[Delivery]], within_s: float) -> list[int | NotStored]:
        writes.append([len(one.body) for entry in entries for one in entry])
        return await put_entries(entries, within_s)

    inbox.put_entries = note  # type: ignore[method-assign]
    limits = Limits(bytes_per_entry=1000, bytes_per_flush=2000)
    commit = GroupCommit(inbox, Bell(arq_redis(redis.connection_pool)), Metrics(), limits)
    flusher = asyncio.create_task(commit.run())
    sizes = [600, 600, 600, 5000, 10, 600, 600, 600, 600]
    await asyncio.gather(*(commit.put(delivery(b"x" * size)) for size in sizes))
    flusher.cancel()
    await asyncio.wait([flusher])
    await commit.finish()
    assert [size for write in writes for size in write] == sizes
    assert all(sum(write) <= 2000 or len(write) == 1 for write in writes)


async def test_nobody_waits_for_a_flusher_that_has_ended(redis: Redis, inbox: Watched) -> None:
    """When it ends, who waits behind its last write is refused too, and who comes later at once."""
    commit, flusher, first = await in_mid_write(redis, inbox)
    behind = commit.put(delivery())
    flusher.cancel()
    await asyncio.wait([flusher])
    later = commit.put(delivery())
    for put in (first, behind, later):
        with pytest.raises(NotStored, match="stopping"):
            await put


async def test_the_bell_is_rung_for_what_was_stored(commit: GroupCommit, redis: Redis) -> None:
    """After a write arq holds one job that says: unpack has work."""
    await commit.put(delivery())
    await commit.finish()
    jobs = [key async for key in redis.scan_iter(match="arq:job:drain:unpack:*")]
    assert len(jobs) == 1

"""Queues: who holds an entry, and that nothing is ever held by nobody for ever."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from pipeline import heartbeats, keys, pauses
from pipeline.clock import HOUR_MS, redis_now_ms
from pipeline.moves import Move, Result
from pipeline.outcomes import Stage
from pipeline.queues import Queues, create_groups, fields
from tests.pipeline.work import add, apply, check_books, put, seal, take

pytestmark = pytest.mark.anyio

UNPACK = keys.queue("unpack")


async def held_by(redis: Redis, queue: str = "unpack") -> dict[str, int]:
    """Return how many entries each consumer of *queue* holds; only those that are known."""
    rows = await redis.xinfo_consumers(keys.queue(queue), keys.GROUP)
    return {row["name"].decode(): row["pending"] for row in rows}


async def test_an_entry_carries_its_payloads_and_origins(redis: Redis) -> None:
    """All deliveries of one flush come as one entry, in their order, with no attempt counted."""
    await put(redis, 3)
    (entry,) = await take(redis)
    assert (len(entry.payloads), entry.origins, entry.cursor, entry.attempts) == (3, [], "", 0)
    assert fields([b"p", b"1", b"m", b"2", b"g", b"3", b"p", b"4"]) == ([b"1", b"4"], [b"2"])


async def test_a_take_is_bounded(redis: Redis) -> None:
    """A take ends at its number of entries or with the entry that reaches its bytes, oldest first."""
    await add(redis, Stage.FORWARD, [b"x" * 100] * 6)
    queues = Queues(redis, "one")
    taken = await queues.take("forward", Stage.FORWARD, most=2)
    assert len(taken.entries) == 2
    taken = await queues.take("forward", Stage.FORWARD, most=9, most_bytes=150)
    assert len(taken.entries) == 2
    ids = [row[0].decode() for row in await redis.xrange(keys.queue("forward"))]
    assert [entry.id for entry in taken.entries] == ids[2:4]


async def test_a_huge_entry_is_taken_alone(redis: Redis) -> None:
    """The first entry comes whatever its size; when it fills the take, the others stay for the next one."""
    await add(redis, Stage.FORWARD, [b"x" * 10_000, *[b"small"] * 200])
    queues = Queues(redis, "one")
    huge = await queues.take("forward", Stage.FORWARD, most=300, most_bytes=5_000)
    assert [len(entry.payloads[0]) for entry in huge.entries] == [10_000]
    others = await queues.take("forward", Stage.FORWARD, most=300)
    assert len(others.entries) == 200  # handful after handful, until the queue is empty
    assert (await queues.take("forward", Stage.FORWARD, most=300)).entries == []


async def test_a_slice_that_was_given_back_tells_how_far_it_came(redis: Redis) -> None:
    """Released entries come before new ones, each with its cursor and its attempts."""
    for _ in range(3):
        await put(redis)
    (first,) = await take(redis)
    queues = Queues(redis, "one")
    await apply(redis, Move("unpack", [first.id], "", "500"))
    await queues.failed(first)
    await queues.give_back("unpack", [first.id])
    entries = await take(redis, most=9, consumer="two")
    assert [(entry.cursor, entry.attempts) for entry in entries] == [("500", 1), ("", 0), ("", 0)]
    assert entries[0].id == first.id


async def test_a_paused_stage_gives_nothing(redis: Redis) -> None:
    """An operator's pause stops taking; the relay's own, which is about the vendor, does not."""
    await put(redis)
    await pauses.pause(redis, Stage.UNPACK, "lunch")
    taken = await Queues(redis, "one").take("unpack", Stage.UNPACK, most=1)
    assert (taken.entries, taken.is_paused) == ([], True)
    await pauses.pause(redis, Stage.UNPACK, "vendor is down", by="relay")
    assert len(await take(redis)) == 1


async def test_what_is_given_back_comes_first(redis: Redis) -> None:
    """Entries that were given back are taken before new ones, by anyone, with their attempts."""
    for _ in range(3):
        await put(redis)
    first, second = await take(redis, most=2)
    one = Queues(redis, "one")
    assert await one.failed(first) == 1
    assert await one.failed(first) == 2
    await one.give_back("unpack", [first.id])
    await one.give_back("unpack", [])
    (again, third) = await take(redis, most=2, consumer="two")
    assert (again.id, again.attempts) == (first.id, 2)
    assert third.id > second.id
    assert await held_by(redis) == {"one": 1, "two": 2, "released": 0}


async def test_nothing_is_given_back_that_another_holds(redis: Redis) -> None:
    """A worker that was thought dead can neither give back nor count what another took over."""
    await put(redis)
    (entry,) = await take(redis, consumer="slow")
    await Queues(redis, "other").adopt()
    await take(redis, consumer="other")
    slow = Queues(redis, "slow")
    await slow.give_back("unpack", [entry.id])
    assert await slow.failed(entry) == 0
    assert await held_by(redis) == {"slow": 0, "other": 1, "released": 0}
    assert not await redis.exists(keys.ATTEMPTS)


async def test_attempts_end_with_the_entry(redis: Redis) -> None:
    """What was counted about an entry leaves with it, and nothing is counted afterwards."""
    await put(redis)
    (entry,) = await take(redis)
    queues = Queues(redis, "one")
    await queues.failed(entry)
    move = Move("unpack", [entry.id])
    move.settle(Stage.UNPACK, "done")
    await apply(redis, move)
    assert await queues.failed(entry) == 0
    assert not await redis.exists(keys.ATTEMPTS)


async def test_work_of_a_dead_worker_is_taken_over(redis: Redis) -> None:
    """Without a fresh heartbeat a worker's entries are given back; a living one keeps its own."""
    for _ in range(4):
        await put(redis)
    await heartbeats.beat(redis, "living")
    await take(redis, most=1, consumer="living")
    await take(redis, most=2, consumer="dead")
    await redis.zadd(keys.WORKERS, {"dead": 1})  # it did beat, long ago
    assert await Queues(redis, "living").adopt() == 2
    assert await held_by(redis) == {"living": 1, "dead": 0, "released": 2}
    assert await Queues(redis, "living").adopt() == 0
    assert await held_by(redis) == {"living": 1, "released": 2}  # nothing was left in its hands
    assert len(await take(redis, most=9, consumer="living")) == 3
    await check_books(redis)


async def test_a_heartbeat_from_the_future_is_no_sign_of_life(redis: Redis) -> None:
    """A worker that died before the clock was set back by an hour is not taken for alive until then."""
    await put(redis)
    await take(redis, consumer="dead")
    await redis.zadd(keys.WORKERS, {"dead": await redis_now_ms(redis) + HOUR_MS})
    assert await Queues(redis, "living").adopt() == 1


async def test_more_than_a_page_is_given_back_of_many_queues(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many entries a dead worker held, and a living one gives back, and in whichever queues."""
    monkeypatch.setattr("pipeline.queues.A_PAGE", 2)
    one, two = Queues(redis, "one"), Queues(redis, "two")
    await add(redis, Stage.FORWARD, [b"x"] * 5)
    await add(redis, Stage.SCORES, [b"x"] * 4)
    for queues in (one, two):
        for stage in (Stage.FORWARD, Stage.SCORES):
            await queues.take(stage, stage, most=9)
        if queues is one:
            assert await two.adopt() == 9
    assert await two.release(Stage.FORWARD) == 5
    assert (await held_by(redis, "scores"))["two"] == 4
    assert await two.release_all("forward", "scores") == 4


async def test_a_take_looks_into_another_queue(redis: Redis) -> None:
    """It says how many entries lie there, whatever it finds itself."""
    retried = keys.retried(Stage.FORWARD)
    queues = Queues(redis, "one")

    async def others(most: int = 1) -> tuple[int, int]:
        taken = await queues.take("forward", Stage.FORWARD, most=most, other=retried)
        return len(taken.entries), taken.others

    assert await others() == (0, 0)
    await redis.xadd(keys.queue(retried), {"p": b"1"})
    assert await others() == (0, 1)
    await add(redis, Stage.FORWARD, [b"x"])
    assert await others() == (1, 1)
    await pauses.pause(redis, Stage.FORWARD, "lunch")
    assert await others() == (0, 1)
    assert (await queues.take("forward", Stage.FORWARD, most=1)).others == 0


async def test_an_idle_consumer_that_lives_stays(redis: Redis) -> None:
    """Only dead consumers are removed, and `released`, which is nobody, never is."""
    await put(redis)
    await heartbeats.beat(redis, "living")
    (entry,) = await take(redis, consumer="living")
    living = Queues(redis, "living")
    await living.give_back("unpack", [entry.id])
    await take(redis, consumer="living")
    assert await living.adopt() == 0
    assert await held_by(redis) == {"living": 1, "released": 0}


async def test_a_worker_that_slept_keeps_its_own(redis: Redis) -> None:
    """Whoever looks for dead workers lives, although its own heartbeat is late."""
    await put(redis)
    await redis.zadd(keys.WORKERS, {"slept": 1})
    await take(redis, consumer="slept")
    assert await Queues(redis, "slept").adopt() == 0
    assert await held_by(redis) == {"slept": 1}


async def test_a_worker_releases_its_leftovers(redis: Redis) -> None:
    """What a drain that failed left in a worker's hands, in any queue of the stage, can be taken again."""
    await seal(redis, Stage.FORWARD, [b"1"])
    await add(redis, Stage.FORWARD, [b"2", b"3"])
    await take(redis, Stage.FORWARD, most=2)
    batches = Queues(redis, "one")
    assert len((await batches.take("forward:batches", Stage.FORWARD, most=1)).entries) == 1
    assert await batches.release(Stage.FORWARD) == 3
    assert await batches.release(Stage.FORWARD) == 0
    assert await held_by(redis, "forward") == {"one": 0, "released": 2}


async def test_missing_groups_are_made_again(redis: Redis) -> None:
    """Whoever first meets a queue without its group makes the groups and goes on."""
    await put(redis)
    assert len(await take(redis)) == 1  # a server that was never started on
    await redis.delete(UNPACK)
    await put(redis)
    queues = Queues(redis, "one")
    assert len(await take(redis)) == 1
    await redis.flushall()
    assert await queues.adopt() == 0
    await redis.flushall()
    assert await queues.release(Stage.UNPACK) == 0
    await redis.flushall()
    await queues.give_back("unpack", ["1-1"])
    assert await held_by(redis) == {}


async def test_groups_are_made_where_they_are_missing(redis: Redis) -> None:
    """A stream that has other people's groups gets ours, from its very first entry."""
    await redis.xadd(UNPACK, {"p": b"x"})
    await redis.xgroup_create(UNPACK, "others", id="$")
    await create_groups(redis)
    await create_groups(redis)
    assert len(await take(redis)) == 1
    names = keys.ALL_QUEUES
    assert sorted(await redis.keys("*queue*")) == sorted(keys.queue(n).encode() for n in names)


async def test_other_errors_are_not_hidden(redis: Redis) -> None:
    """Only a missing group is mended: a key of another type is an error."""
    await redis.set(UNPACK, "text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await take(redis)


async def test_a_deleted_entry_is_not_waited_for(redis: Redis) -> None:
    """An entry that was deleted while pending is let go of; 6.2 keeps it pending, 7 does not."""
    for _ in range(3):
        await put(redis)
    entries = await take(redis, most=3)
    one = Queues(redis, "one")
    await one.give_back("unpack", [entry.id for entry in entries])
    await redis.xdel(UNPACK, entries[0].id, entries[1].id)
    assert [entry.id for entry in await take(redis, most=3)] == [entries[2].id]
    await redis.xdel(UNPACK, entries[2].id)
    assert await one.release(Stage.UNPACK) == 1
    assert await take(redis, most=3) == []
    await put(redis)
    (last,) = await take(redis, consumer="dead")
    await redis.xdel(UNPACK, last.id)
    await one.adopt()
    assert await take(redis, most=3) == []
    await put(redis)  # the next take steps over what 6.2 still keeps
    assert len(await take(redis, most=3)) == 1
    assert (await redis.xpending(UNPACK, keys.GROUP))["pending"] == 1


async def test_finishing_a_deleted_entry_leaves_nothing_pending(redis: Redis) -> None:
    """A move acknowledges as well as deletes, so an entry that is deleted already does not stay pending."""
    await put(redis)
    (entry,) = await take(redis)
    await redis.xdel(UNPACK, entry.id)
    move = Move("unpack", [entry.id])
    move.settle(Stage.UNPACK, "done")
    assert (await apply(redis, move)).results == [Result.DONE]
    assert (await redis.xpending(UNPACK, keys.GROUP))["pending"] == 0

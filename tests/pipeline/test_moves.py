"""Moves: what leaves a queue leaves it once, with everything that follows, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from pipeline import dead_letters, heartbeats, keys, pauses, seen, visitors
from pipeline.clock import HOUR_MS
from pipeline.inbox import Inbox, NotStored
from pipeline.moves import Move, Mover, Result
from pipeline.outcomes import Reason, Stage
from pipeline.queues import Queues, create_groups
from pipeline.tombstones import Tombstones
from tests.pipeline.work import (
    META,
    ORIGIN,
    add,
    apply,
    check_books,
    claim,
    delivery,
    full,
    image,
    numbers,
    put,
    refuse,
    seal,
    set_back,
    succeed,
    take,
)

pytestmark = pytest.mark.anyio


async def test_a_move_happens_once(redis: Redis) -> None:
    """The second run of a move answers GONE and changes nothing at all."""
    await put(redis, 2)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    move.append(Stage.FORWARD, b"event", ORIGIN)
    move.append_fresh(Stage.FORWARD, "one", b"event", META)
    move.bury(Stage.UNPACK, Reason.INVALID, "wrong", delivery().pack(), ORIGIN, digest="d")
    move.settle(Stage.UNPACK, "done")
    move.settle(Stage.UNPACK, "dead")
    assert (await apply(redis, move)).results == [Result.DONE]
    await check_books(redis)
    before = await image(redis)
    assert (await apply(redis, move)).results == [Result.GONE]
    assert await image(redis) == before


async def test_nothing_to_do_answers_the_bells(redis: Redis) -> None:
    """A call without moves only tells the number of each stage's bell."""
    await redis.hset(keys.BELLS, "forward", 7)
    moved = await apply(redis)
    assert moved.results == []
    assert moved.bells == {stage: 7 * (stage is Stage.FORWARD) for stage in Stage}


async def test_a_changed_visitor_stops_the_move(redis: Redis) -> None:
    """A move that rests on an older version of a visitor answers CHANGED, and the entry stays."""
    await add(redis, Stage.ENRICH, [b"first", b"second"])
    first, second = await take(redis, Stage.ENRICH, most=2)
    for entry, version, expected in (
        (first, "", Result.DONE),
        (second, "", Result.CHANGED),
        (second, "1", Result.DONE),
    ):
        move = Move(entry.queue, [entry.id], versions={"v": version})
        move.save_visitor("v", str(int(version or 0) + 1), b'{"uuid":"v"}', 5, HOUR_MS)
        move.settle(Stage.ENRICH, "done")
        assert (await apply(redis, move)).results == [expected]
    assert (await visitors.fetch(redis, ["v"]))["v"].version == "2"
    await check_books(redis)


async def test_a_tombstone_stops_the_move(redis: Redis) -> None:
    """A move about somebody who must be forgotten answers TOMBSTONE, and writes nothing of them."""
    tombstones = Tombstones(redis)
    await tombstones.put(["somebody"])
    await add(redis, Stage.ENRICH, [b"event"])
    (entry,) = await take(redis, Stage.ENRICH)
    macs = await tombstones.macs(["nobody", "somebody"])
    move = Move(entry.queue, [entry.id], macs=macs)
    move.save_visitor("somebody", "1", b"{}", 5, HOUR_MS)
    move.settle(Stage.ENRICH, "done")
    assert (await apply(redis, move)).results == [Result.TOMBSTONE]
    assert not await redis.exists(keys.visitor("somebody"))
    assert await numbers(redis, Stage.ENRICH) == {"in": 1, "waiting": 1}
    await check_books(redis)


async def test_a_move_that_does_not_happen_disturbs_no_other(redis: Redis) -> None:
    """In one call, skipped moves of every length lie between those that happen, and only they are skipped."""
    await add(redis, Stage.ENRICH, [b"%d" % n for n in range(6)])
    entries = await take(redis, Stage.ENRICH, most=6)
    await Tombstones(redis).put(["forgotten"])
    mac = await Tombstones(redis).macs(["forgotten"])
    gone = Move(Stage.ENRICH, ["1-1"])
    moves = []
    for n, entry in enumerate(entries):
        move = Move(entry.queue, [entry.id])
        if n == 1:
            move.macs = mac
        if n == 3:
            move.versions = {"v": "9", "w": ""}
        for extra in range(n):
            move.append(Stage.FORWARD, b"count", ORIGIN)
            move.remember(keys.enrichment(f"{n}-{extra}"), HOUR_MS)
            move.pass_on(keys.batches(Stage.ENRICH), ["p", b"7", "m", META])
            move.settle(Stage.ENRICH, "waiting", 0)
            move.count(Stage.ENRICH, "in")
            move.count(Stage.ENRICH, "waiting")
        move.settle(Stage.ENRICH, "done")
        moves.append(move)
        gone.append(Stage.SCORES, b"never", ORIGIN)
        moves.append(gone)
    results = (await apply(redis, *moves)).results
    assert results[::2] == [
        Result.DONE, Result.TOMBSTONE, Result.DONE, Result.CHANGED, Result.DONE, Result.DONE,
    ]  # fmt: skip
    assert results[1::2] == [Result.GONE] * 6
    assert await numbers(redis, Stage.FORWARD) == {"in": 11, "waiting": 11}
    assert await numbers(redis, Stage.SCORES) == {}
    assert await redis.keys("*enrichment:[13]-*") == []
    await check_books(redis)


# slices -------------------------------------------------------------------------------------------


def slices(entry_id: str, sizes: list[int], start: int = 0) -> list[Move]:
    """Return the moves that take an entry out in slices of *sizes* events, from slice *start* on."""
    moves = []
    for n in range(start, len(sizes)):
        is_last = n == len(sizes) - 1
        move = Move("unpack", [entry_id], str(n) if n else "", "" if is_last else str(n + 1))
        for event in range(sizes[n]):
            move.append_fresh(Stage.FORWARD, f"{n}-{event}", b"%d-%d" % (n, event), META)
        if is_last:
            move.settle(Stage.UNPACK, "done")
        moves.append(move)
    return moves


async def forwarded(redis: Redis) -> list[bytes]:
    """Return the payloads that wait in `forward`, in their order."""
    return [row[b"p"] for _, row in await redis.xrange(keys.queue("forward"))]


async def test_events_of_one_origin_leave_together(redis: Redis) -> None:
    """What stands between them parts them no more than it changes their order; each keeps its own origin."""
    await put(redis)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    for n, meta in enumerate((META, "other|1|o|", META, "other|1|o|", META)):
        move.append_fresh(Stage.FORWARD, f"fresh {n}", b"%d" % n, meta)
    move.append_fresh(Stage.FORWARD, "fresh 2", b"again", META)
    move.settle(Stage.UNPACK, "done")
    assert (await apply(redis, move)).results == [Result.DONE]
    assert move.pack("one").count("fresh") == 1
    rows = [row for _, row in await redis.xrange(keys.queue("forward"))]
    assert [row[b"p"] for row in rows] == [b"0", b"2", b"4", b"1", b"3"]
    assert [row[b"m"].decode() for row in rows] == [META] * 3 + ["other|1|o|"] * 2
    assert await numbers(redis, Stage.FORWARD) == {"in": 6, "waiting": 5, "duplicate": 1}
    await check_books(redis)


async def test_a_crash_between_slices_loses_and_doubles_nothing(redis: Redis) -> None:
    """Whoever takes an entry over goes on at the slice where the dead worker stopped."""
    await put(redis)
    await heartbeats.beat(redis, "two")
    (entry,) = await take(redis, consumer="dead")
    moves = slices(entry.id, [2, 3, 1])
    assert (await apply(redis, *moves[:2], consumer="dead")).results == [Result.DONE] * 2
    await check_books(redis)
    assert await Queues(redis, "two").adopt() == 1
    (again,) = await take(redis, consumer="two")
    assert again.cursor == "2"
    rest = slices(again.id, [2, 3, 1], int(again.cursor))
    assert (await apply(redis, *rest, consumer="two")).results == [Result.DONE]
    assert await forwarded(redis) == [b"0-0", b"0-1", b"1-0", b"1-1", b"1-2", b"2-0"]
    assert not await redis.exists(keys.CURSORS)
    await check_books(redis)


async def test_two_workers_at_one_entry_share_its_slices(redis: Redis) -> None:
    """A worker thought dead that wakes again finds its next slice done, and does not do it twice."""
    await put(redis)
    (entry,) = await take(redis, consumer="slow")
    await heartbeats.beat(redis, "quick")
    moves = slices(entry.id, [2, 2, 2])
    await apply(redis, moves[0], consumer="slow")
    await Queues(redis, "quick").adopt()
    assert (await take(redis, consumer="quick"))[0].cursor == "1"
    assert (await apply(redis, moves[1], consumer="quick")).results == [Result.DONE]
    assert (await apply(redis, *moves, consumer="slow")).results == [
        Result.GONE, Result.GONE, Result.DONE,
    ]  # fmt: skip
    assert (await apply(redis, moves[2], consumer="quick")).results == [Result.GONE]
    assert len(await forwarded(redis)) == 6
    assert await numbers(redis, Stage.UNPACK) == {"in": 1, "done": 1}
    await check_books(redis)


async def test_a_slice_of_an_entry_that_is_gone_does_nothing(redis: Redis) -> None:
    """A first slice finds no entry to leave its cursor in."""
    await create_groups(redis)
    assert (await apply(redis, slices("1-1", [1, 1])[0])).results == [Result.GONE]
    assert await redis.keys("*cursors") == []


# sealing ------------------------------------------------------------------------------------------


def sealing(ids: list[str]) -> Move:
    """Return a move that seals *ids* into one batch."""
    move = Move(Stage.FORWARD, ids)
    move.pass_on(keys.batches(Stage.FORWARD), [w for _ in ids for w in ("p", b"x", "m", META)])
    return move


async def test_a_batch_is_sealed_whole_or_not(redis: Redis) -> None:
    """When one of its entries is finished, nothing is sealed, and the others can be taken at once."""
    await add(redis, Stage.FORWARD, [b"a", b"b", b"c"])
    entries = await take(redis, Stage.FORWARD, most=3, consumer="one")
    done = Move(Stage.FORWARD, [entries[0].id])
    done.settle(Stage.FORWARD, "done")
    await apply(redis, done)
    ids = [entry.id for entry in entries]
    assert (await apply(redis, sealing(ids))).results == [Result.GONE]
    assert await redis.xlen(keys.queue("forward:batches")) == 0
    rest = await take(redis, Stage.FORWARD, most=3, consumer="two")
    assert [entry.id for entry in rest] == ids[1:]
    assert (await apply(redis, sealing(ids[1:]), consumer="two")).results == [Result.DONE]
    assert await redis.xlen(keys.queue("forward")) == 0
    await check_books(redis)


# visitors and addresses -----------------------------------------------------------------------------


async def test_an_address_is_queued_once(redis: Redis) -> None:
    """An address that waits or is watched counts as a duplicate, and is queued no second time."""
    await add(redis, Stage.ENRICH, [b"1", b"2"])
    first, second = await take(redis, Stage.ENRICH, most=2)
    for entry in (first, second):
        move = Move(entry.queue, [entry.id])
        move.alias("digest", "v", HOUR_MS)
        move.subscribe("digest", "ann@example.com", ORIGIN)
        move.settle(Stage.ENRICH, "done")
        await apply(redis, move)
    assert await numbers(redis, Stage.SUBSCRIBE) == {"in": 2, "waiting": 1, "duplicate": 1}
    (address,) = await take(redis, Stage.SUBSCRIBE)
    assert address.payloads == [b"ann@example.com"]
    move = Move(address.queue, [address.id])
    move.subscription("digest", "new", HOUR_MS)
    move.settle(Stage.SUBSCRIBE, "done")
    await apply(redis, move)
    known = await redis.hgetall(keys.address("digest"))
    assert known == {b"visitor": b"v", b"subscription": b"new"}
    assert 0 < await redis.pttl(keys.address("digest")) <= HOUR_MS
    await check_books(redis)


async def test_an_address_in_the_dead_letters_is_not_queued_again(redis: Redis) -> None:
    """Its person's next visit is a duplicate: the letter is its work in the books, until it is retried or dropped."""

    async def visit() -> None:
        await add(redis, Stage.ENRICH, [b"event"])
        (entry,) = await take(redis, Stage.ENRICH)
        move = Move(entry.queue, [entry.id])
        move.subscribe("digest", "ann@example.com", ORIGIN)
        move.settle(Stage.ENRICH, "done")
        await apply(redis, move)

    await visit()
    (address,) = await take(redis, Stage.SUBSCRIBE)
    move = Move(address.queue, [address.id])
    payload = address.payloads[0]
    move.bury(Stage.SUBSCRIBE, Reason.REFUSED, "no", payload, ORIGIN, dead_id="1", digest="digest")
    move.subscription("digest", "dead", HOUR_MS)
    move.settle(Stage.SUBSCRIBE, "dead")
    await apply(redis, move)
    await visit()
    assert await numbers(redis, Stage.SUBSCRIBE) == {"in": 2, "dead": 1, "duplicate": 1}
    await dead_letters.drop(redis, ["1"])
    await visit()
    assert await numbers(redis, Stage.SUBSCRIBE) == {
        "in": 3, "waiting": 1, "duplicate": 1, "dropped": 1,
    }  # fmt: skip
    await check_books(redis)


async def test_an_absorbed_visitor_is_gone(redis: Redis) -> None:
    """A visitor whose facts went to another one leaves the visitors and their list."""
    await add(redis, Stage.ENRICH, [b"1", b"2"])
    first, second = await take(redis, Stage.ENRICH, most=2)
    move = Move(first.queue, [first.id])
    move.save_visitor("old", "1", b"{}", 5, HOUR_MS)
    move.new_ignored(Stage.SUBSCRIBE)
    move.settle(Stage.ENRICH, "done")
    await apply(redis, move)
    assert [name async for name in visitors.ids(redis)] == ["old"]
    move = Move(second.queue, [second.id], versions={"old": "1"})
    move.absorb_visitor("old")
    move.settle(Stage.ENRICH, "done")
    await apply(redis, move)
    assert [name async for name in visitors.ids(redis)] == []
    assert not await redis.exists(keys.visitor("old"))
    await check_books(redis)


async def test_a_marker_lives_at_least_a_moment(redis: Redis) -> None:
    """A marker without time to live is no error that would break the move in its middle."""
    await put(redis)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    move.remember(keys.enrichment("d"), 0)
    move.settle(Stage.UNPACK, "done")
    assert move.weight == 1
    assert (await apply(redis, move)).results == [Result.DONE]
    await check_books(redis)


async def test_an_error_without_utf8_is_kept_all_the_same(redis: Redis) -> None:
    """A vendor's words with half a character in them must not keep the letter from being written."""
    await put(redis)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    payload = delivery().pack()
    move.bury(Stage.UNPACK, Reason.BUG, "half \ud83d", payload, ORIGIN, dead_id="one")
    move.settle(Stage.UNPACK, "dead")
    await apply(redis, move)
    letter = await dead_letters.fetch(redis, "one")
    assert letter is not None
    assert letter.error == "half ?"
    await check_books(redis)


# seen marks ---------------------------------------------------------------------------------------


async def mark_all(redis: Redis, fingerprints: list[str], window_ms: int = HOUR_MS) -> int:
    """Append an event for each fingerprint; return how many were new."""
    fresh = 0
    await create_groups(redis)
    for start in range(0, len(fingerprints), 500):
        await redis.xadd(keys.queue("unpack"), {"p": b"x"})
        (entry,) = await take(redis)
        move = Move(entry.queue, [entry.id])
        for fingerprint in fingerprints[start : start + 500]:
            move.append_fresh(Stage.FORWARD, fingerprint, b"e", META)
        before = await redis.xlen(keys.queue("forward"))
        await Mover(redis, "one", window_ms).apply([move])
        fresh += await redis.xlen(keys.queue("forward")) - before
    return fresh


async def age(redis: Redis, by_ms: int) -> None:
    """Let every slot have begun *by_ms* earlier."""
    for name, state in (await redis.hgetall(keys.SEEN)).items():
        slot, earlier = name.decode(), str(int(name) - by_ms)
        await redis.hdel(keys.SEEN, slot)
        await redis.hset(keys.SEEN, earlier, state)
        for bucket in range(int(state.partition(b":")[0])):
            if await redis.exists(f"{keys.SEEN}:{slot}:{bucket}"):
                await redis.rename(
                    f"{keys.SEEN}:{slot}:{bucket}", f"{keys.SEEN}:{earlier}:{bucket}"
                )


async def test_an_event_is_fresh_once(redis: Redis) -> None:
    """The first sighting waits, every other one in the window counts as a duplicate."""
    assert await mark_all(redis, ["a", "b", "a"]) == 2
    assert await mark_all(redis, ["b", "c"]) == 1
    assert await seen.remembered(redis) == 3
    assert await numbers(redis, Stage.FORWARD) == {"in": 5, "waiting": 3, "duplicate": 2}


async def test_a_mark_outlives_its_slot(redis: Redis) -> None:
    """After half a window a new slot begins, and marks of the old one are still recognised."""
    await mark_all(redis, ["old"])
    await age(redis, HOUR_MS // 2 + 1)
    assert await mark_all(redis, ["old", "new"]) == 1
    assert await redis.hlen(keys.SEEN) == 2
    await age(redis, HOUR_MS // 2)
    assert await mark_all(redis, ["old", "new", "newest"]) == 1
    assert await redis.hlen(keys.SEEN) == 3


async def test_a_mark_expires(redis: Redis) -> None:
    """An event that comes again after one and a half windows is new, and the sweep removes its slot."""
    await mark_all(redis, [f"{n}" for n in range(1000)])
    await age(redis, HOUR_MS * 2)
    assert await mark_all(redis, ["1", "2"]) == 2
    old, young = sorted(await redis.hkeys(keys.SEEN))
    buckets = int((await redis.hget(keys.SEEN, old)).partition(b":")[0])
    assert await seen.forget_old_slots(redis, HOUR_MS, most=2) == 2
    assert await redis.hget(keys.SEEN, old) == b"%d:%d" % (
        buckets - 2, 1000 * (buckets - 2) // buckets,
    )  # fmt: skip
    assert await seen.forget_old_slots(redis, HOUR_MS) == buckets - 2
    assert await seen.forget_old_slots(redis, HOUR_MS) == 0
    assert await redis.hkeys(keys.SEEN) == [young]
    assert len(await redis.keys(f"{keys.SEEN}:*")) == 1
    assert await mark_all(redis, ["1", "2"]) == 0


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(n=st.integers(1, 4_000), seed=st.integers())
async def test_every_mark_is_found_however_many_there_are(redis: Redis, n: int, seed: int) -> None:
    """Buckets split as marks come in; each mark stays findable and each bucket a packed set of integers."""
    await redis.flushall()
    fingerprints = [f"{seed}-{i}" for i in range(n)]
    assert await mark_all(redis, fingerprints) == n
    assert await mark_all(redis, fingerprints) == 0
    assert await seen.remembered(redis) == n
    names = await redis.keys(f"{keys.SEEN}:*")
    for name in names:
        assert await redis.object("ENCODING", name) == b"intset"
        assert await redis.scard(name) <= 512
    assert n < 192 or len(names) >= n // 192


def test_a_mark_is_one_integer_whatever_the_text() -> None:
    """Also a fingerprint with half a character has a mark, and it fits a signed 64-bit integer."""
    assert 0 <= seen.mark("half \ud83d") < 1 << 63


# a full server ------------------------------------------------------------------------------------


@pytest.fixture
async def filled(redis: Redis) -> AsyncIterator[Redis]:
    """Give a server with work in each kind of queue that then became full."""
    await create_groups(redis)
    await add(redis, Stage.FORWARD, [b"%d" % n for n in range(8)])
    await seal(redis, Stage.SUBSCRIBE, [b"ann@example.com", b"bob@example.com"])
    await seal(redis, Stage.SUBSCRIBE, [b"cid@example.com"])
    await put(redis, 3)
    await put(redis, 3)
    async with full(redis):
        yield redis


async def test_a_full_server_still_drains(filled: Redis) -> None:
    """What is full refuses new deliveries, and every step by which a worker drains it still passes."""
    with pytest.raises(ResponseError, match=r"OOM|memory"):
        await filled.set("anything", "1")
    with pytest.raises(NotStored):
        await put(filled)
    with pytest.raises(NotStored):
        await Inbox(filled).bury(delivery(b"<"), Reason.MALFORMED, "not JSON")
    await create_groups(filled)
    await heartbeats.beat(filled, "one")
    first, second = await take(filled, most=2)
    sliced = Move("unpack", [first.id], "", "1")
    sliced.append_fresh(Stage.FORWARD, "a", b"event", META)
    final = Move("unpack", [first.id], "1")
    final.append_fresh(Stage.FORWARD, "b", b"event", META)
    final.settle(Stage.UNPACK, "done", 3)
    assert (await apply(filled, sliced, final)).results == [Result.DONE] * 2
    assert await Queues(filled, "one").failed(second) == 1
    whole = Move("unpack", [second.id])
    whole.settle(Stage.UNPACK, "done", 3)
    await apply(filled, whole)
    entries = await take(filled, Stage.FORWARD, most=30)
    assert len(entries) == 10
    assert (await apply(filled, sealing([e.id for e in entries]))).results == [Result.DONE]
    claimed = await claim(filled)
    assert (await succeed(filled, claimed)).results == [Result.DONE]
    await check_books(filled)


async def test_failures_are_written_down_on_a_full_server(filled: Redis) -> None:
    """Back-off, attempts, refusals, rates and pauses need a little memory, and get it."""
    claimed = await claim(filled, Stage.SUBSCRIBE, gap_ms=60_000)
    assert len(claimed.payloads) == 2
    assert (await claim(filled, Stage.SUBSCRIBE, gap_ms=60_000)).word == "wait"
    assert await refuse(filled, "words", "1-1", stage=Stage.SUBSCRIBE) == (1, 1)
    delay = await set_back(filled, claimed, stage=Stage.SUBSCRIBE, probe_ms=900, pauses_after=1)
    assert delay == (900, True)
    assert await pauses.resume(filled, Stage.SUBSCRIBE)
    assert (await claim(filled, Stage.SUBSCRIBE)).attempts.startswith("1:")
    await check_books(filled)


async def test_a_full_server_makes_missing_groups(filled: Redis) -> None:
    """A worker that starts on a full server after a group was lost still gets its work."""
    await filled.config_set("maxmemory", 0)  # 6.2 refuses even to destroy a group
    await filled.xgroup_destroy(keys.queue("forward"), keys.GROUP)
    await filled.config_set("maxmemory", 1)
    await filled.delete(keys.queue("enrich"))
    await create_groups(filled)
    assert len(await take(filled, Stage.FORWARD, most=30)) == 8
    await check_books(filled)

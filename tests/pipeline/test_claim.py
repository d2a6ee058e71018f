"""Claims: when a vendor may be called, with which batch, and what a failed call means for the next."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from pipeline import books, heartbeats, keys, pauses
from pipeline.clock import HOUR_MS, redis_now_ms
from pipeline.moves import Argument, Move, Result
from pipeline.outcomes import Stage
from pipeline.queues import Queues, create_groups
from pipeline.scripts import script
from pipeline.tombstones import Tombstones
from tests.pipeline.work import (
    Claimed,
    add,
    apply,
    batch,
    check_books,
    claim,
    full,
    numbers,
    refuse,
    seal,
    set_back,
    succeed,
)

pytestmark = pytest.mark.anyio

FORWARD = keys.destination(Stage.FORWARD)
RATE = keys.PREFIX + "rate:audiencepoint"


async def hold(redis: Redis, claimed: Claimed, *fields: Argument) -> None:
    """Put a failed batch aside until others have succeeded, as dispatch does."""
    tries, first, _ = claimed.attempts.split(":")
    move = Move(claimed.queue, [claimed.id])
    more = (*fields, "g", claimed.id, "t", f"{int(tries) + 1}:{first}:0")
    move.pass_on(keys.held(Stage.FORWARD), batch(claimed.payloads, *more))
    await apply(redis, move)
    await set_back(redis, held=1)
    await redis.hdel(FORWARD, "failures", "due")


async def test_batches_are_claimed_in_their_order(redis: Redis) -> None:
    """Each batch is given to one caller only, oldest first, and then there is none."""
    await create_groups(redis)
    assert (await claim(redis)).word == "empty"
    await seal(redis, Stage.FORWARD, [b"1", b"2"])
    await seal(redis, Stage.FORWARD, [b"3"])
    await add(redis, Stage.FORWARD, [b"raw"])
    first, second = await claim(redis), await claim(redis, consumer="two")
    assert (first.payloads, first.attempts, first.others) == ([b"1", b"2"], "0:0:0", 2)
    assert (second.payloads, second.others_held, second.has_tombstones) == ([b"3"], 0, False)
    assert (await claim(redis)).word == "empty"
    await succeed(redis, first)
    await seal(redis, Stage.FORWARD, [b"4"])
    third = await claim(redis)
    assert (third.attempts, third.successes) == ("0:1:0", 1)
    assert await numbers(redis, Stage.FORWARD) == {"in": 5, "waiting": 3, "done": 2}
    await check_books(redis)


async def test_a_claim_tells_of_tombstones(redis: Redis) -> None:
    """The caller learns that somebody is to be forgotten before it sends anything."""
    await Tombstones(redis).put(["somebody"])
    await seal(redis, Stage.FORWARD, [b"1"])
    assert (await claim(redis)).has_tombstones


# the rate -----------------------------------------------------------------------------------------


async def test_two_workers_share_one_rate(redis: Redis) -> None:
    """A call by one worker puts off the next call of every other."""
    for payload in (b"1", b"2", b"3"):
        await seal(redis, Stage.FORWARD, [payload])
    assert (await claim(redis, consumer="one", gap_ms=60_000)).word == "batch"
    for consumer in ("one", "two"):
        waiting = await claim(redis, consumer=consumer, gap_ms=60_000)
        assert waiting.word == "wait"
        assert 0 < waiting.wait_ms <= 60_000
    await redis.hset(RATE, "next", 1)  # its time has come
    assert (await claim(redis, consumer="two", gap_ms=60_000)).word == "batch"
    assert (await claim(redis, consumer="one", gap_ms=60_000)).word == "wait"
    assert 0 < await redis.pttl(RATE) <= 600_000


async def test_a_clock_that_was_set_back_holds_up_no_call(redis: Redis) -> None:
    """The next call, and somebody's turn, that a clock an hour ahead has written are as if they were not there."""
    ahead = await redis_now_ms(redis) + HOUR_MS
    await redis.hset(RATE, mapping={"next": ahead, "0": ahead})
    for payload in (b"1", b"2"):
        await seal(redis, Stage.FORWARD, [payload])
    assert (await claim(redis, rank=1, gap_ms=60_000)).word == "batch"
    assert 0 < (await claim(redis, rank=1, gap_ms=60_000)).wait_ms <= 60_000


async def test_without_a_limit_nobody_waits(redis: Redis) -> None:
    """A rate of zero is no limit, and keeps no record."""
    for payload in (b"1", b"2"):
        await seal(redis, Stage.FORWARD, [payload])
    assert [(await claim(redis)).word for _ in range(3)] == ["batch", "batch", "empty"]
    assert not await redis.exists(RATE)


async def test_the_higher_rank_is_served_first(redis: Redis) -> None:
    """While `forward` waits for its turn `subscribe` leaves the next call to it, and no longer."""
    for payload in (b"1", b"2"):
        await seal(redis, Stage.FORWARD, [payload])
        await seal(redis, Stage.SUBSCRIBE, [payload])
    subscribe, gap_ms = Stage.SUBSCRIBE, 50_000
    assert (await claim(redis, subscribe, rank=1, gap_ms=gap_ms)).word == "batch"
    assert (await claim(redis, gap_ms=gap_ms)).word == "wait"  # forward is the next
    await redis.hset(RATE, "next", 1)
    assert (await claim(redis, subscribe, rank=1, gap_ms=gap_ms)).wait_ms == gap_ms
    assert (await claim(redis, gap_ms=gap_ms)).word == "batch"
    assert (await claim(redis, gap_ms=gap_ms)).word == "wait"
    await redis.hset(RATE, mapping={"next": 1, "0": 1})  # forward did not come for its turn
    assert (await claim(redis, subscribe, rank=1, gap_ms=gap_ms)).word == "batch"
    await redis.hset(RATE, "next", 1)
    assert (await claim(redis, gap_ms=gap_ms)).word == "batch"  # a lower rank never blocks


# pauses and back-off ----------------------------------------------------------------------------------


async def test_an_operators_pause_stops_calls_until_resumed(redis: Redis) -> None:
    """A pause without an end gives no batch, whoever made it."""
    await seal(redis, Stage.FORWARD, [b"1"])
    for by in ("operator", "relay"):
        await pauses.pause(redis, Stage.FORWARD, "because", by=by)
        assert (await claim(redis)).word == "paused"
    assert await pauses.resume(redis, Stage.FORWARD)
    assert (await claim(redis)).word == "batch"


async def test_five_failures_in_a_row_pause_the_stage(redis: Redis) -> None:
    """Each failure doubles the back-off up to its cap; the fifth pauses, and probes grow apart to theirs."""
    await seal(redis, Stage.FORWARD, [b"1"])
    answers = []
    for _ in range(9):
        await redis.hset(FORWARD, "due", 1)
        await redis.hdel(keys.PAUSED, "forward")
        claimed = await claim(redis)
        answers.append(
            await set_back(
                redis, claimed, base_ms=200, cap_ms=700, probe_ms=1_000, probe_max_ms=3_000
            )
        )
    assert answers == [
        (200, False), (400, False), (700, False), (700, False),
        (1_000, True), (2_000, True), (3_000, True), (3_000, True), (3_000, True),
    ]  # fmt: skip
    assert (await claim(redis)).word == "wait"
    paused = (await books.snapshot(redis))["paused"]["forward"]
    assert (paused["by"], paused["reason"]) == ("relay", "down")
    assert paused["since"] < paused["until"]
    await check_books(redis)


async def test_a_pause_keeps_its_beginning(redis: Redis) -> None:
    """A failed probe moves the end of the relay's pause, not its beginning; an operator's stays as it is."""
    await create_groups(redis)
    await set_back(redis, at_once=1, reason="first", probe_ms=1_000)
    stored = (await books.snapshot(redis))["paused"]["forward"]
    await set_back(redis, at_once=1, reason="second", probe_ms=90_000)
    again = (await books.snapshot(redis))["paused"]["forward"]
    assert (again["since"], again["reason"]) == (stored["since"], "second")
    assert again["until"] > stored["until"]
    await pauses.pause(redis, Stage.FORWARD, "lunch")
    await set_back(redis, at_once=1, reason="third")
    assert (await books.snapshot(redis))["paused"]["forward"]["reason"] == "lunch"


async def test_calls_that_fail_together_are_one_failure(redis: Redis) -> None:
    """Eight calls in flight that meet the same outage count once, and the longest wait holds."""
    for n in range(4):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    flying = [await claim(redis) for _ in range(4)]
    for n, claimed in enumerate(flying):
        await set_back(redis, claimed, base_ms=60_000, cap_ms=60_000, at_least_ms=n * 50_000)
    assert await redis.hget(FORWARD, "failures") == b"1"
    waiting = await claim(redis)
    assert waiting.word == "wait"
    assert 100_000 < waiting.wait_ms <= 150_000


async def test_jitter_takes_a_share_of_the_wait(redis: Redis) -> None:
    """The wait is the drawn share of the back-off, but never shorter than the vendor asked for."""
    await create_groups(redis)
    assert await set_back(redis, share=0.5, base_ms=200) == (100, False)
    await redis.hset(FORWARD, "due", 1)
    assert await set_back(redis, share=0.25, base_ms=200, at_least_ms=3_000) == (3_000, False)


async def test_after_a_failure_one_call_finds_out(redis: Redis) -> None:
    """While a probe is out nobody else calls; its success opens the stage, and ends the relay's pause."""
    for n in range(3):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    failed = await claim(redis)
    await set_back(redis, failed, at_once=1)
    probe = await claim(redis)
    assert (probe.id, probe.attempts) == (failed.id, "1:0:0")
    waiting = await claim(redis, consumer="two")
    assert (waiting.word, waiting.wait_ms) == ("wait", 100)
    assert (await succeed(redis, probe)).results == [Result.DONE]
    assert not await redis.exists(keys.PAUSED)
    assert [(await claim(redis)).word for _ in range(3)] == ["batch", "batch", "empty"]


async def test_a_probe_that_never_ends_gives_its_place_to_another(redis: Redis) -> None:
    """A probe has a lease: when its worker hangs, another call is made once it is over."""
    for n in range(2):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    await set_back(redis, await claim(redis))
    assert (await claim(redis, lease_ms=60_000)).word == "batch"
    assert (await claim(redis)).word == "wait"
    await redis.hset(FORWARD, "probing", 1)
    assert (await claim(redis)).word == "batch"


async def test_a_probe_ends_with_its_batch(redis: Redis) -> None:
    """A probe whose batch is split, held, given back or adopted blocks nobody until its lease is over."""
    await seal(redis, Stage.FORWARD, [b"1"])
    await set_back(redis, await claim(redis))
    queues = Queues(redis, "one")
    probe = await claim(redis)
    await queues.give_back(probe.queue, [probe.id])
    assert (await claim(redis)).word == "batch"
    await queues.release(Stage.FORWARD)
    assert (await claim(redis, consumer="dead")).word == "batch"
    await heartbeats.beat(redis, "one")
    await queues.adopt()
    probe = await claim(redis)
    split = Move(probe.queue, [probe.id])
    split.pass_on(keys.batches(Stage.FORWARD), batch(probe.payloads, "g", probe.id, "t", "0:0:0"))
    await apply(redis, split)
    assert (await claim(redis)).word == "batch"
    await check_books(redis)


async def test_an_older_call_that_fails_does_not_end_the_probe(redis: Redis) -> None:
    """A call that was in flight before the back-off may fail late: still only one probe is out."""
    for n in range(3):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    early, late = await claim(redis), await claim(redis, consumer="two")
    await set_back(redis, early)
    assert (await claim(redis)).word == "batch"
    await set_back(redis, late, consumer="two")
    assert (await claim(redis)).word == "wait"


# attempts -----------------------------------------------------------------------------------------


async def test_a_call_that_may_have_arrived_is_counted_when_it_is_made_again(redis: Redis) -> None:
    """A worker killed in mid-call, or a time-out, makes each item of the batch a possible duplicate."""
    await seal(redis, Stage.FORWARD, [b"1", b"2", b"3"])
    await claim(redis, consumer="dead")
    await heartbeats.beat(redis, "one")
    await Queues(redis, "one").adopt()
    again = await claim(redis)
    assert again.attempts == "0:0:1"
    assert (await books.snapshot(redis))["maybe_duplicate"] == 3
    await set_back(redis, again, sent=0)
    last = await claim(redis)
    assert last.attempts == "1:0:0"
    assert (await books.snapshot(redis))["maybe_duplicate"] == 3
    await set_back(redis, last, sent=1)
    assert (await claim(redis)).attempts == "2:0:1"
    assert (await books.snapshot(redis))["maybe_duplicate"] == 6


async def test_attempts_travel_with_what_replaces_a_batch(redis: Redis) -> None:
    """A half or a held batch knows from its own fields how often, and since when, it was tried."""
    await seal(redis, Stage.FORWARD, [b"1", b"2"], "g", "1-1", "t", "4:7:1")
    claimed = await claim(redis)
    assert claimed.attempts == "4:7:1"
    assert (await books.snapshot(redis))["maybe_duplicate"] == 2  # two items: g and t are none
    await set_back(redis, claimed, sent=0)
    assert (await claim(redis)).attempts == "5:7:0"


async def test_a_batch_that_was_taken_over_is_left_alone(redis: Redis) -> None:
    """A worker thought dead neither takes a batch out of another's hands nor counts its attempts."""
    await seal(redis, Stage.FORWARD, [b"1"])
    stale = await claim(redis, consumer="slow")
    await heartbeats.beat(redis, "one")
    await Queues(redis, "one").adopt()
    mine = await claim(redis)
    await set_back(redis, stale, consumer="slow")
    assert (await claim(redis, consumer="two")).word == "empty"
    assert (await succeed(redis, mine)).results == [Result.DONE]
    await set_back(redis, stale, consumer="slow")
    assert not await redis.exists(keys.ATTEMPTS)
    await check_books(redis)


async def test_deleted_batches_are_stepped_over(redis: Redis) -> None:
    """A batch that was deleted while it was given back is nothing to wait for, on any Redis."""
    for n in range(2):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    first = await claim(redis)
    await Queues(redis, "one").give_back(first.queue, [first.id])
    await redis.xdel(keys.queue(first.queue), first.id)
    assert (await claim(redis)).payloads == [b"1"]
    assert (await claim(redis)).word == "empty"


# held batches -------------------------------------------------------------------------------------


async def test_a_full_server_notes_what_a_held_batch_waits_for(redis: Redis) -> None:
    """It is one step with the holding, so neither is without the other."""
    await seal(redis, Stage.FORWARD, [b"1"])
    claimed = await claim(redis)
    async with full(redis):
        move = Move(claimed.queue, [claimed.id])
        move.pass_on(keys.held(Stage.FORWARD), batch(claimed.payloads, "t", "1:7:0"))
        move.hold(Stage.FORWARD, 7, claimed.claimed_ms)
        await apply(redis, move)
    assert await redis.hget(keys.destination(Stage.FORWARD), "held") == b"7"
    assert await redis.xlen(keys.queue(keys.held(Stage.FORWARD))) == 1


async def test_held_batches_wait_until_others_have_succeeded(redis: Redis) -> None:
    """Others are tried first; after a success the held ones come, oldest first, before all others."""
    for n in range(5):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    await hold(redis, await claim(redis))
    await hold(redis, await claim(redis))
    other = await claim(redis)
    assert (other.payloads, other.others, other.others_held) == ([b"2"], 2, 2)
    await succeed(redis, other)
    first, second, third = [await claim(redis) for _ in range(3)]
    assert [first.payloads, second.payloads, third.payloads] == [[b"0"], [b"1"], [b"3"]]
    assert (first.queue, first.attempts, first.others_held) == ("forward:held", "1:0:0", 1)
    await check_books(redis)


async def test_held_batches_come_when_nothing_else_is_there(redis: Redis) -> None:
    """With nothing left to compare them with, held batches are tried again; not while work is on its way."""
    await seal(redis, Stage.FORWARD, [b"1"])
    await hold(redis, await claim(redis))
    await add(redis, Stage.FORWARD, [b"raw"])
    assert (await claim(redis)).word == "empty"
    (entry,) = (await Queues(redis, "one").take("forward", Stage.FORWARD, most=1)).entries
    move = Move("forward", [entry.id])
    move.settle(Stage.FORWARD, "ignored")
    await apply(redis, move)
    assert (await claim(redis)).payloads == [b"1"]
    await check_books(redis)


async def test_a_held_batch_rests_before_it_is_tried_again(redis: Redis) -> None:
    """Others go before it though some have succeeded; when nothing else is there it is told how long it rests."""
    for n in range(4):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    resting, other = await claim(redis), await claim(redis)
    await hold(redis, resting, "d", await redis_now_ms(redis) + 50_000)
    await succeed(redis, other)
    assert [(await claim(redis)).payloads for _ in range(2)] == [[b"2"], [b"3"]]
    empty = await claim(redis)
    assert empty.word == "empty"
    assert 40_000 < empty.wait_ms <= 50_000
    await check_books(redis)


async def test_a_held_batch_that_has_rested_is_the_next(redis: Redis) -> None:
    """The time that it rests until is over: it goes before all others, as some have succeeded."""
    for n in range(3):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    rested, other = await claim(redis), await claim(redis)
    await hold(redis, rested, "d", await redis_now_ms(redis) - 1)
    await succeed(redis, other)
    assert [(await claim(redis)).payloads for _ in range(2)] == [[b"0"], [b"2"]]


async def test_one_that_was_given_back_does_not_rest_behind_another(redis: Redis) -> None:
    """Which one is the next to be handed out decides: what a stopped worker gave back comes first."""
    for n in range(3):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    now_ms = await redis_now_ms(redis)
    first, second, other = [await claim(redis) for _ in range(3)]
    await hold(redis, first, "d", now_ms - 1)
    await succeed(redis, other)
    back = await claim(redis)
    await hold(redis, second, "d", now_ms + 50_000)
    assert (await claim(redis)).word == "empty"
    await Queues(redis, "one").give_back(back.queue, [back.id])
    assert (await claim(redis)).payloads == [b"0"]


async def test_a_clock_that_was_set_back_lets_nothing_rest_for_long(redis: Redis) -> None:
    """Nothing rests for longer than a batch ever may; what says so was written before the clock was set back."""
    await seal(redis, Stage.FORWARD, [b"1"])
    await hold(redis, await claim(redis), "d", await redis_now_ms(redis) + HOUR_MS)
    assert (await claim(redis, rest_ms=1_000)).payloads == [b"1"]


async def test_held_ones_of_both_lines_rest(redis: Redis) -> None:
    """What came back from the dead letters rests, too, and the shorter rest of both is told."""
    now_ms = await redis_now_ms(redis)
    for line, rest_ms in (("forward", 50_000), ("forward:retried", 20_000)):
        await seal(redis, Stage.FORWARD, [b"1"])
        claimed = await claim(redis)
        move = Move(claimed.queue, [claimed.id])
        more = ("d", now_ms + rest_ms, "t", "3:0:0")
        move.pass_on(keys.held(line), batch(claimed.payloads, *more))
        await apply(redis, move)
    assert 10_000 < (await claim(redis)).wait_ms <= 20_000


async def test_resuming_tries_held_batches_as_if_new(redis: Redis) -> None:
    """Attempts begin anew, but what may have been stored already stays known; a call in flight is left alone."""
    for n in range(4):
        await seal(redis, Stage.FORWARD, [b"%d" % n])
    for _ in range(3):
        await hold(redis, await claim(redis))
    await succeed(redis, await claim(redis))
    flying, unsure = await claim(redis), await claim(redis)
    await set_back(redis, unsure, sent=1, at_once=1)
    assert await pauses.resume(redis, Stage.FORWARD)
    assert not await pauses.resume(redis, Stage.FORWARD)
    rows = [await claim(redis, consumer="two") for _ in range(3)]
    assert [(row.payloads, row.attempts, row.queue) for row in rows[:2]] == [
        ([b"1"], "0:1:1", "forward:batches"),
        ([b"2"], "0:1:0", "forward:batches"),
    ]
    assert rows[2].word == "empty"
    assert (await books.snapshot(redis))["maybe_duplicate"] == 1
    assert (await succeed(redis, flying)).results == [Result.DONE]
    await check_books(redis)


# refusals -----------------------------------------------------------------------------------------


async def test_refusals_with_the_same_words_are_counted(redis: Redis) -> None:
    """Only first refusals count, batches count once each, and other words or a success begin anew."""
    assert await refuse(redis, "no", "11-1") == (1, 1)
    assert await refuse(redis, "no", "1-1") == (2, 2)  # part of another id, and yet another batch
    assert await refuse(redis, "no", "1-1") == (3, 2)
    assert await refuse(redis, "no", "1-1", is_first=0) == (3, 2)
    assert await refuse(redis, "other", "1-1") == (1, 1)
    await seal(redis, Stage.FORWARD, [b"1"])
    await succeed(redis, await claim(redis))
    assert await refuse(redis, "other", "2-1") == (1, 1)


async def test_very_many_refused_batches_are_at_least_several(redis: Redis) -> None:
    """The list of batches is cut, not endless, and still tells one from many."""
    for n in range(40):
        refusals, batches = await refuse(redis, "no", f"1700000000000-{n}")
    assert refusals == 40
    assert batches > 2
    assert len(await redis.hget(FORWARD, "roots")) <= 200


# how well the vendor is ----------------------------------------------------------------------------


async def unwell(redis: Redis, half_of: str = "") -> float:
    """Note a failure of a batch, an untried half of *half_of*; return how unwell the vendor is thought to be."""
    answer = await script(redis, "fault")(args=[Stage.FORWARD, "1-1", half_of, 0, 0])
    return float(answer[4])


async def test_a_vendor_that_fails_both_halves_of_a_batch_is_unwell(redis: Redis) -> None:
    """Where one item is to blame the other half passes: one half that fails says nothing, the second one does."""
    assert await unwell(redis) == 0
    assert await unwell(redis, "1-1") == 0
    assert await unwell(redis, "2-1") == 0
    assert await unwell(redis, "2-1") == 1 / 16
    assert await unwell(redis) == 1 / 16
    assert await unwell(redis, "1-1") == pytest.approx(1 - (15 / 16) ** 2, abs=1e-5)
    assert await redis.hget(FORWARD, "unwell") == b"0.12109"
    assert 0 < await redis.pttl(keys.PREFIX + "half:forward:1-1") <= 24 * HOUR_MS


async def test_what_is_to_blame_for_a_pause_ends_it_with_its_burial(redis: Redis) -> None:
    """The relay's pause and its failures are over; an operator's stays, and no call counts as one that passed."""
    for by, is_paused in (("relay", False), ("operator", True)):
        await seal(redis, Stage.FORWARD, [b"1"])
        claimed = await claim(redis)
        await redis.hset(FORWARD, mapping={"failures": 7, "due": await redis_now_ms(redis) + 9_999})
        await pauses.pause(redis, Stage.FORWARD, "because", by=by)
        move = Move(claimed.queue, [claimed.id])
        move.settle(Stage.FORWARD, "ignored")
        move.recovered(Stage.FORWARD)
        await apply(redis, move)
        assert bool(await redis.exists(keys.PAUSED)) is is_paused
        assert await redis.hmget(FORWARD, "failures", "due", "successes") == [None, None, None]

"""The line of what came back from the dead letters: one of five calls while other work waits, all of them otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from pipeline import books, dead_letters, keys, pauses
from pipeline.clock import redis_now_ms
from pipeline.dead_letters import Filter
from pipeline.moves import Move
from pipeline.origins import Form, Origin
from pipeline.outcomes import Reason, Stage
from pipeline.queues import Queues, create_groups
from pipeline.scripts import script
from tests.pipeline.work import (
    META,
    ORIGIN,
    Claimed,
    add,
    apply,
    batch,
    check_books,
    claim,
    numbers,
    put,
    seal,
    set_back,
    succeed,
    take,
)

pytestmark = pytest.mark.anyio

RATE = keys.PREFIX + "rate:audiencepoint"
CALLING = [Stage.ENRICH, Stage.SUBSCRIBE, Stage.FORWARD, Stage.NOTIFY]


async def retry(
    redis: Redis, stage: Stage, payloads: Sequence[bytes], origin: Origin = ORIGIN
) -> None:
    """Let *payloads* die in *stage* and be put back to work."""
    await create_groups(redis)
    await put(redis)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    for payload in payloads:
        move.bury(stage, Reason.REFUSED, "no", payload, origin)
        move.new_dead(stage)
    move.settle(Stage.UNPACK, "done")
    await apply(redis, move)
    letters = await dead_letters.newest(redis, Filter(stage=stage), limit=10_000)
    found = await dead_letters.retry_all(redis, [letter.id for letter in letters])
    assert found == {stage: len(payloads)}


async def seal_all(redis: Redis, stage: Stage = Stage.FORWARD, most: int = 30) -> tuple[int, int]:
    """Seal all that waits; return how many batches of new work and how many of what came back."""
    sealed = await Queues(redis, "one").seal(stage, most=most, batches=100, ripe_s=0)
    return sealed.batches, sealed.retried


def is_retried(claimed: Claimed) -> bool:
    """Tell whether the batch came back from the dead letters."""
    return claimed.queue.startswith("forward:retried:")


@pytest.mark.parametrize("stage", CALLING)
async def test_what_is_retried_waits_in_a_line_of_its_own(redis: Redis, stage: Stage) -> None:
    """A letter of a stage that calls somebody goes to its second line, and the books know it there."""
    await retry(redis, stage, [b"1", b"2"])
    assert await redis.xlen(keys.queue(keys.retried(stage))) == 2
    assert await redis.xlen(keys.queue(stage)) == 0
    assert (await numbers(redis, stage))["waiting"] == 2
    await check_books(redis)


async def test_while_new_work_waits_one_of_five_calls_is_for_what_came_back(redis: Redis) -> None:
    """A thousand letters and new work: of any five calls in a row, by two workers, four at least are for the new."""
    await retry(redis, Stage.FORWARD, [b"old"] * 1_000)
    await add(redis, Stage.FORWARD, [b"new"] * 600)
    assert await seal_all(redis) == (20, 34)
    order = []
    for number in range(25):
        claimed = await claim(redis, consumer=("one", "two")[number % 2])
        order.append(is_retried(claimed))
        await succeed(redis, claimed)
    assert sum(order) == 5
    assert all(sum(order[at : at + 5]) == 1 for at in range(21))
    rest = [await claim(redis) for _ in range(30)]
    assert {claimed.word for claimed in rest} == {"batch", "empty"}
    assert all(is_retried(claimed) for claimed in rest if claimed.word == "batch")
    assert sum(claimed.word == "batch" for claimed in rest) == 29
    await check_books(redis)


async def test_halves_and_held_ones_stay_in_their_line(redis: Redis) -> None:
    """What a refused batch is split into costs no more than the share, however many calls that takes."""
    await retry(redis, Stage.FORWARD, [b"old"] * 8)
    await add(redis, Stage.FORWARD, [b"new"] * 40)
    assert await seal_all(redis, most=8) == (5, 1)
    for number in range(40):
        await seal(redis, Stage.FORWARD, [b"%d" % number])
    old = new = 0
    for _ in range(40):
        claimed = await claim(redis)
        if not is_retried(claimed):
            new += 1
            await succeed(redis, claimed)
            continue
        old += 1
        move = Move(claimed.queue, [claimed.id])
        middle = len(claimed.payloads) // 2
        halves = (claimed.payloads[:middle], claimed.payloads[middle:])
        if middle:
            for half in halves:
                fields = batch(half, "g", claimed.id, "t", "0:0:0")
                move.pass_on(keys.batches("forward:retried"), fields)
        else:
            fields = batch(claimed.payloads, "g", claimed.id, "t", "3:0:0")
            move.pass_on(keys.held("forward:retried"), fields)
        await apply(redis, move)
    assert (old, new) == (8, 32)
    await check_books(redis)


async def test_new_work_that_can_be_sealed_goes_first(redis: Redis) -> None:
    """While events wait to be sealed nothing that came back is taken, until it was tried whether they can be."""
    await retry(redis, Stage.FORWARD, [b"old"] * 2)
    assert await seal_all(redis) == (0, 1)
    await add(redis, Stage.FORWARD, [b"new"])
    assert (await claim(redis)).word == "empty"
    unripe = await Queues(redis, "one").seal(Stage.FORWARD, most=30, batches=8, ripe_s=60)
    assert (unripe.batches, unripe.retried) == (0, 0)
    assert unripe.wait_s is not None
    claimed = await claim(redis, is_all_sealed=1)
    assert claimed.payloads == [b"old", b"old"]


async def test_with_nothing_else_to_do_it_goes_at_the_full_rate(redis: Redis) -> None:
    """Ten batches that came back leave one after the other when no other work waits."""
    await retry(redis, Stage.FORWARD, [b"old"] * 10)
    assert await seal_all(redis, most=1) == (0, 10)
    assert [is_retried(await claim(redis)) for _ in range(10)] == [True] * 10


async def test_it_leaves_the_rate_to_the_new_work_of_other_stages(redis: Redis) -> None:
    """`forward` goes before `subscribe`, but not with what came back."""
    gap_ms = 60_000
    await retry(redis, Stage.FORWARD, [b"old"] * 2)
    await seal_all(redis, most=1)
    await seal(redis, Stage.SUBSCRIBE, [b"ann@example.com"])
    assert (await claim(redis, gap_ms=gap_ms)).word == "batch"
    assert (await claim(redis, Stage.SUBSCRIBE, rank=1, gap_ms=gap_ms)).word == "wait"
    await redis.hset(keys.PREFIX + "rate:audiencepoint", "next", 1)  # its time has come
    assert (await claim(redis, gap_ms=gap_ms)).word == "wait"
    assert (await claim(redis, Stage.SUBSCRIBE, rank=1, gap_ms=gap_ms)).word == "batch"


async def calls_of_both(redis: Redis, calls: int, order: Sequence[Stage]) -> list[str]:
    """Return the lines that get the next *calls* of the rate that `forward` and `subscribe` share.

    Both wait for each, and *order* says who asks first when its time has come.
    """
    ranks, lines = {Stage.FORWARD: 0, Stage.SUBSCRIBE: 1}, []
    await redis.hset(RATE, "next", await redis_now_ms(redis) + 60_000)
    for _ in range(calls):
        for stage in order:
            await claim(redis, stage, rank=ranks[stage], gap_ms=60_000, is_all_sealed=1)
        await redis.hset(RATE, "next", 1)
        for stage in order:
            got = await claim(redis, stage, rank=ranks[stage], gap_ms=60_000, is_all_sealed=1)
            if got.word == "batch":
                lines.append(got.queue.rpartition(":")[0])
                await succeed(redis, got, stage)
                break
    return lines


@pytest.mark.parametrize("order", [CALLING[1:3], CALLING[2:0:-1]])
@pytest.mark.parametrize("unripe", [0, 1])
async def test_one_of_five_calls_of_a_rate_that_two_stages_share(
    redis: Redis, order: list[Stage], unripe: int
) -> None:
    """New work of `subscribe` goes at four of five, whatever waits in `forward`; what came back gets the fifth."""
    await retry(redis, Stage.FORWARD, [b"old"] * 20)
    await seal_all(redis, most=1)
    await add(redis, Stage.FORWARD, [b"fills its batch"] * unripe)
    for number in range(30):
        await seal(redis, Stage.SUBSCRIBE, [b"%d@example.com" % number])
    lines = await calls_of_both(redis, 30, order)
    assert lines == (["subscribe"] * 4 + ["forward:retried"]) * 6


@pytest.mark.parametrize("order", [CALLING[1:3], CALLING[2:0:-1]])
async def test_it_is_one_of_five_in_whichever_stages_it_waits(
    redis: Redis, order: list[Stage]
) -> None:
    """Both stages have new work and such that came back: one of five for the latter in all; then it gets the rest."""
    for stage in order:
        await retry(redis, stage, [b"old@example.com"] * 4)
        await seal_all(redis, stage, most=1)
        for number in range(12):
            await seal(redis, stage, [b"%d@example.com" % number])
    lines = await calls_of_both(redis, 32, order)
    assert [line.endswith(":retried") for line in lines[:30]] == ([False] * 4 + [True]) * 6
    assert all(line.endswith(":retried") for line in lines[30:])
    await check_books(redis)


async def test_calls_beside_the_stages_do_not_keep_it_out(redis: Redis) -> None:
    """An import that never stops asks first every time, and uses four of five calls."""
    await retry(redis, Stage.ENRICH, [b"old"] * 4)
    await seal_all(redis, Stage.ENRICH, most=1)
    turn, got = script(redis, "turn"), []
    await redis.hset(RATE, "next", await redis_now_ms(redis) + 60_000)
    for _ in range(10):
        await turn(args=["audiencepoint", 60_000, 0])
        await claim(redis, Stage.ENRICH, rank=1, gap_ms=60_000)
        await redis.hset(RATE, "next", 1)
        if await turn(args=["audiencepoint", 60_000, 0]):
            got.append((await claim(redis, Stage.ENRICH, rank=1, gap_ms=60_000)).word)
    assert got == ["batch"] * 2


async def test_a_paused_stage_of_only_that_makes_its_probe(redis: Redis) -> None:
    """It finds out that its vendor works again while another stage has new work without end."""
    await retry(redis, Stage.FORWARD, [b"old"])
    await seal_all(redis)
    await set_back(redis, await claim(redis), at_once=1)
    assert await redis.hexists(keys.PAUSED, Stage.FORWARD)
    for number in range(9):
        await seal(redis, Stage.SUBSCRIBE, [b"%d@example.com" % number])
    lines = await calls_of_both(redis, 5, CALLING[1:3])
    assert lines.count("forward:retried") == 1


async def test_resume_lets_what_is_held_in_both_lines_go_on(redis: Redis) -> None:
    """Each goes back to the batches of its own line."""
    await retry(redis, Stage.FORWARD, [b"old"])
    await add(redis, Stage.FORWARD, [b"new"])
    await seal_all(redis)
    for _ in range(2):
        claimed = await claim(redis)
        move = Move(claimed.queue, [claimed.id])
        fields = batch(claimed.payloads, "g", claimed.id, "t", "3:0:0")
        move.pass_on(keys.held(claimed.queue.rpartition(":")[0]), fields)
        await apply(redis, move)
    await pauses.pause(redis, Stage.FORWARD, "lunch")
    await pauses.resume(redis, Stage.FORWARD)
    for line in ("forward", "forward:retried"):
        lengths = [await redis.xlen(keys.queue(name(line))) for name in (keys.batches, keys.held)]
        assert lengths == [1, 0]
    await check_books(redis)


async def test_what_is_read_again_stays_in_the_line(redis: Redis) -> None:
    """An event that came back in its sender's words, and is right now, is no new work."""
    raw = Origin(ORIGIN.source, ORIGIN.first_seen_at_ms, Form.RAW)
    await retry(redis, Stage.FORWARD, [b"words"], raw)
    queue = keys.raw(Stage.FORWARD)
    (entry,) = (await Queues(redis, "one").take(queue, Stage.FORWARD, most=1)).entries
    move = Move(queue, [entry.id])
    move.count(Stage.FORWARD, "in", -1)
    move.count(Stage.FORWARD, "waiting", -1)
    move.append_fresh(Stage.FORWARD, "print", b"event", META)
    move.append_fresh(Stage.ENRICH, "other", b"event", META)
    await apply(redis, move)
    assert await redis.xlen(keys.queue("forward:retried")) == 1
    assert await redis.xlen(keys.queue(Stage.FORWARD)) == 0
    assert await redis.xlen(keys.queue(Stage.ENRICH)) == 1
    await check_books(redis)


async def test_it_has_waited_since_it_was_retried(redis: Redis) -> None:
    """`oldest_waiting_s` is not the age of an event that was seen long before somebody put it back to work."""
    await retry(redis, Stage.FORWARD, [b"old"])
    await seal_all(redis)
    assert (await books.snapshot(redis))["oldest_waiting_s"] < 3_600

"""Seal: what waits becomes batches in one step, so nobody ever holds what is not yet in one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, count

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from pipeline import keys, pauses
from pipeline.clock import redis_now_ms
from pipeline.origins import Form, Origin
from pipeline.outcomes import Stage
from pipeline.queues import Queues, Sealed, create_groups
from tests.pipeline.work import check_books, numbers

pytestmark = pytest.mark.anyio

FORWARD = keys.queue("forward")
MINUTE_MS = 60_000
_SEQUENCE = count(1)


async def arrive(
    redis: Redis, payloads: Sequence[bytes], form: Form = Form.OURS, *, age_ms: int = 0
) -> None:
    """Let *payloads* wait in `forward` as if they had come *age_ms* ago; the oldest come first."""
    await create_groups(redis)
    at_ms, meta = await redis_now_ms(redis) - age_ms, Origin("events", 1, form).pack()
    for payload in payloads:
        await redis.xadd(FORWARD, {"p": payload, "m": meta}, id=f"{at_ms}-{next(_SEQUENCE)}")
    for counter in ("in", "waiting"):
        await redis.hincrby(keys.BOOKS, f"forward:{counter}", len(payloads))


async def seal(redis: Redis, *, most: int = 30, batches: int = 8, ripe_s: float = 60) -> Sealed:
    """Seal what waits in `forward`."""
    return await Queues(redis, "one").seal(Stage.FORWARD, most=most, batches=batches, ripe_s=ripe_s)


async def take_batches(redis: Redis) -> list[list[bytes]]:
    """Take every sealed batch; return their payloads, oldest batch first."""
    taken = await Queues(redis, "reader").take("forward:batches", Stage.FORWARD, most=999)
    return [list(entry.payloads) for entry in taken.entries]


def events(how_many: int, name: str = "e") -> list[bytes]:
    """Return payloads that tell themselves apart."""
    return [f"{name}{n}".encode() for n in range(how_many)]


async def test_complete_batches_are_sealed_at_once(redis: Redis) -> None:
    """Thirty make a batch however young, in their order; the rest waits for its own ripeness."""
    await arrive(redis, events(65))
    answer = await seal(redis)
    assert answer.batches == 2
    assert answer.wait_s is not None
    assert 0 < answer.wait_s <= 60
    assert await redis.xlen(FORWARD) == 5
    first, second = await take_batches(redis)
    assert first + second == events(60)
    assert len(first) == 30
    await check_books(redis)
    assert await numbers(redis, Stage.FORWARD) == {"in": 65, "waiting": 65}


async def test_an_empty_stage_waits_for_nothing(redis: Redis) -> None:
    """Where nothing is, nothing is sealed, and there is no time to wait for."""
    assert await seal(redis) == Sealed(0, None)


async def test_an_incomplete_batch_waits_until_it_is_ripe(redis: Redis) -> None:
    """Its oldest event's age counts, by Redis's own clock; before, the answer says how long it will be."""
    await arrive(redis, [b"old"], age_ms=MINUTE_MS)
    await arrive(redis, [b"young"])
    answer = await seal(redis, ripe_s=120)
    assert answer.batches == 0
    assert answer.wait_s is not None
    assert 0 < answer.wait_s <= 60
    assert await redis.xlen(FORWARD) == 2
    assert await seal(redis, ripe_s=60) == Sealed(1, None)
    assert await take_batches(redis) == [[b"old", b"young"]]


async def test_what_came_before_the_clock_was_set_back_is_ripe(redis: Redis) -> None:
    """Nobody knows how old an event from the future is, so it does not wait for that moment."""
    await arrive(redis, [b"1"], age_ms=-60 * MINUTE_MS)
    assert await seal(redis) == Sealed(1, None)


async def test_hashed_and_plain_are_never_in_one_batch(redis: Redis) -> None:
    """However they alternate, a batch is of one form, and each form is as ripe as its own oldest."""
    for n in range(40):
        await arrive(redis, [b"h%d" % n], Form.HASHED, age_ms=MINUTE_MS)
        await arrive(redis, [b"p%d" % n], Form.OURS, age_ms=MINUTE_MS)
    assert (await seal(redis, ripe_s=120)).batches == 2
    assert await seal(redis) == Sealed(2, None)
    found = await take_batches(redis)
    assert sorted(map(len, found)) == [10, 10, 30, 30]
    assert all(len({payload[:1] for payload in batch}) == 1 for batch in found)
    assert sorted(chain.from_iterable(found)) == sorted(events(40, "h") + events(40, "p"))


async def test_a_young_form_does_not_ripen_with_the_other(redis: Redis) -> None:
    """A ripe plain event leaves alone; the hashed one that came later stays."""
    await arrive(redis, [b"p"], age_ms=2 * MINUTE_MS)
    await arrive(redis, [b"h"], Form.HASHED)
    answer = await seal(redis)
    assert answer.batches == 1
    assert answer.wait_s is not None
    assert await take_batches(redis) == [[b"p"]]
    assert await redis.xlen(FORWARD) == 1


async def test_a_call_seals_no_more_than_it_may(redis: Redis) -> None:
    """Up to the number of batches, both forms together, and 0 to wait while more may be there."""
    await arrive(redis, events(2, "p"), age_ms=MINUTE_MS)
    await arrive(redis, events(5, "h"), Form.HASHED, age_ms=MINUTE_MS)
    assert await seal(redis, most=3, batches=2) == Sealed(2, 0)
    assert await take_batches(redis) == [events(2, "p"), events(3, "h")]  # the oldest leaves first
    assert await seal(redis, most=3, batches=2) == Sealed(1, None)
    await arrive(redis, events(20))
    assert await seal(redis, most=3, batches=4) == Sealed(4, 0)
    assert await redis.xlen(FORWARD) == 8


async def test_a_stage_that_an_operator_paused_seals_nothing(redis: Redis) -> None:
    """An operator's pause leaves all where it is; the relay's own does not stop sealing."""
    await arrive(redis, events(30))
    await pauses.pause(redis, Stage.FORWARD, "lunch")
    assert await seal(redis) == Sealed(0, None)
    await pauses.pause(redis, Stage.FORWARD, "vendor is down", by="relay")
    assert (await seal(redis)).batches == 1


async def test_a_full_server_can_still_seal(redis: Redis) -> None:
    """With no memory left what waits still becomes batches, so that it can leave."""
    await arrive(redis, events(60))
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(ResponseError, match=r"OOM|memory"):
            await redis.set("anything", "1")
        assert (await seal(redis)).batches == 2
    finally:
        await redis.config_set("maxmemory", limit)
    assert list(chain.from_iterable(await take_batches(redis))) == events(60)


async def test_many_sealers_neither_double_nor_lose(redis: Redis) -> None:
    """Whoever seals at the same moment, each event is in exactly one batch, and the books stand."""
    await arrive(redis, events(400), age_ms=MINUTE_MS)
    answers = await asyncio.gather(*(seal(redis, batches=3) for _ in range(8)))
    found = await take_batches(redis)
    assert sum(answer.batches for answer in answers) == len(found) == 14
    assert sorted(chain.from_iterable(found)) == sorted(events(400))
    assert await redis.xlen(FORWARD) == 0
    await check_books(redis)
    assert await numbers(redis, Stage.FORWARD) == {"in": 400, "waiting": 400}


async def test_a_batch_keeps_each_origin(redis: Redis) -> None:
    """What travels with an event stands beside it in the batch."""
    await create_groups(redis)
    metas = [Origin("events", n, tag=f"t{n}").pack().encode() for n in range(3)]
    for meta in metas:
        await redis.xadd(FORWARD, {"p": b"e", "m": meta})
    assert (await seal(redis, ripe_s=0)).batches == 1
    taken = await Queues(redis, "reader").take("forward:batches", Stage.FORWARD, most=1)
    assert taken.entries[0].origins == metas

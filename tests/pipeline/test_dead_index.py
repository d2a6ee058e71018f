"""The index of dead letters by kind: what processes of an older version leave in it is noticed, and mended."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from pipeline import dead_index, dead_letters, keys
from pipeline.dead_letters import Filter
from pipeline.outcomes import Reason, Stage
from tests.pipeline.burials import bury, by_kind, look_through
from tests.pipeline.work import full

pytestmark = pytest.mark.anyio

REFUSED, BUG = "forward/sendgrid/refused", "forward/sendgrid/bug"
CHECKED = "{relay}:dead-checked"


async def mend(redis: Redis) -> int:
    """Go through the index by kind; return how many places were wrong."""
    return sum([wrong async for wrong in dead_index.mend(redis)])


async def bury_as_before(redis: Redis, kind: str, dead_id: str, at_ms: int = 5) -> None:
    """Bury a letter as a process does that knows of no index by kind."""
    stage, source, reason = kind.split("/")
    await redis.zadd(keys.DEAD, {f"{kind}/{dead_id}": at_ms})
    await redis.hincrby(keys.DEAD_KINDS, kind, 1)
    facts = {"stage": stage, "source": source, "reason": reason}
    await redis.hset(keys.letter(dead_id), mapping=facts)


async def drop_as_before(redis: Redis, kind: str, dead_id: str) -> None:
    """Drop a letter as a process does that knows of no index by kind."""
    await redis.zrem(keys.DEAD, f"{kind}/{dead_id}")
    if await redis.hincrby(keys.DEAD_KINDS, kind, -1) <= 0:
        await redis.hdel(keys.DEAD_KINDS, kind)
    await redis.delete(keys.letter(dead_id))


async def is_right(redis: Redis) -> bool:
    """Tell whether the indexes of the kinds hold what that of all holds, and are believed."""
    rows = await redis.zrange(keys.DEAD, 0, -1, withscores=True)
    counted = {kind.decode(): int(n) for kind, n in (await redis.hgetall(keys.DEAD_KINDS)).items()}
    return await by_kind(redis) == set(rows) and await dead_index.read(redis) == counted


async def test_an_index_that_is_not_whole_is_not_believed_and_is_mended(redis: Redis) -> None:
    """Letters of an older version stand in the index of all only; there they are found until the other is mended."""
    old = await bury(redis, payloads=[b"1", b"2"])
    gone = await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    await redis.delete(keys.dead_of("forward/sendgrid/refused"), keys.DEAD_KINDS)
    await redis.zrem(keys.DEAD, f"scores/scores/invalid/{gone[0]}")  # retried by an older version
    await redis.delete(keys.letter(gone[0]))
    await redis.hset(keys.DEAD_KINDS, "scores/scores/invalid", 1)
    new = await bury(redis)
    wanted = Filter(stage=Stage.FORWARD)

    async def found() -> list[str]:
        return [each.id for each in (await dead_letters.look(redis, wanted, None, 9))[0]]

    everything = [*new, *old[::-1]]
    assert await dead_index.read(redis) is None
    assert await found() == everything
    assert await dead_letters.counts(redis, wanted) == {Stage.FORWARD: {"refused": 3}}
    assert await dead_index.is_to_be_mended(redis)
    assert await mend(redis) == 5
    assert await dead_index.read(redis) == {"forward/sendgrid/refused": 3}
    assert [kind.count for kind in await dead_letters.kinds(redis)] == [3]
    assert await by_kind(redis) == set(await redis.zrange(keys.DEAD, 0, -1, withscores=True))
    assert await look_through(redis, wanted, 9) == everything
    assert not await dead_index.is_to_be_mended(redis)


async def test_errors_of_two_kinds_do_not_cancel_out(redis: Redis) -> None:
    """One letter too few in one kind and one too many in another are two errors, not none."""
    gone, *_ = await bury(redis, payloads=[b"1"] * 3)
    await bury(redis, reason=Reason.BUG)
    assert await dead_index.read(redis) == {REFUSED: 3, BUG: 1}
    await bury_as_before(redis, BUG, "new")
    await drop_as_before(redis, REFUSED, gone)
    assert await dead_index.read(redis) is None
    assert await mend(redis) == 2
    assert await is_right(redis)


async def test_what_no_number_tells_is_looked_for_in_any_case(redis: Redis) -> None:
    """One letter for another of the same kind, or one that died again: found when the time to look has come."""
    gone, again, _ = await bury(redis, payloads=[b"1"] * 3)
    assert await mend(redis) == 0
    assert not await dead_index.is_to_be_mended(redis)
    assert 0 < await redis.pttl(CHECKED) <= dead_index.CHECKED_EVERY_MS
    await drop_as_before(redis, REFUSED, gone)
    await bury_as_before(redis, REFUSED, "new")
    await redis.zadd(keys.DEAD, {f"{REFUSED}/{again}": 7})
    assert not await dead_index.is_to_be_mended(redis)
    await redis.delete(CHECKED)  # its time is over
    assert await dead_index.is_to_be_mended(redis)
    assert await mend(redis) == 3
    assert await is_right(redis)


async def test_the_index_of_a_kind_that_is_no_more_goes(redis: Redis) -> None:
    """An older process that drops the last letter of a kind leaves its index, of which no list tells."""
    (last,) = await bury(redis, reason=Reason.BUG)
    await bury(redis)
    await drop_as_before(redis, BUG, last)
    assert await redis.exists(keys.dead_of(BUG))
    assert await mend(redis) == 1
    assert not await redis.exists(keys.dead_of(BUG))
    assert await is_right(redis)


async def test_a_kind_that_nobody_counted_is_counted(redis: Redis) -> None:
    """Its index may be whole, and is not read before the list of kinds has it."""
    await bury(redis, payloads=[b"1"] * 3)
    await redis.delete(keys.DEAD_KINDS)
    assert await dead_index.read(redis) is None
    assert await mend(redis) == 1
    assert await is_right(redis)


async def test_it_is_mended_in_pieces(redis: Redis) -> None:
    """No step is longer than a piece, however many letters there are."""
    for _ in range(5):
        await bury(redis, payloads=[b"1"] * 200)
    await redis.delete(keys.dead_of(REFUSED), keys.DEAD_KINDS)
    pieces = [wrong async for wrong in dead_index.mend(redis)]
    assert sum(pieces) == 1_001
    # a bucket of the index is read whole, so a piece has a few more
    assert max(pieces) <= 1.2 * dead_index.A_PIECE
    assert await is_right(redis)


async def test_a_full_server_refuses_only_what_is_missing(redis: Redis) -> None:
    """An index that is whole is gone through there, what is no letter is taken out; what is missing has to wait."""
    gone, *_ = await bury(redis, payloads=[b"1"] * 3)
    await drop_as_before(redis, REFUSED, gone)
    async with full(redis):
        assert await mend(redis) == 1
        assert not await dead_index.is_to_be_mended(redis)
    await bury_as_before(redis, REFUSED, "new")
    async with full(redis):
        with pytest.raises((OutOfMemoryError, ResponseError), match=r"OOM|maxmemory"):
            await mend(redis)
        assert await dead_index.read(redis) is None
    assert await mend(redis) == 1
    assert await is_right(redis)

"""Pauses: whose word stops a stage, and what lifts it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import ConnectionPool, Redis

from pipeline import books, keys, pauses
from pipeline.moves import Move
from pipeline.outcomes import Stage
from tests.pipeline.work import add, apply, claim, full, seal, set_back, take

pytestmark = pytest.mark.anyio

FORWARD = Stage.FORWARD


async def paused(redis: Redis) -> dict[str, Any] | None:
    """Return the pause of `forward` as the status shows it."""
    pause: dict[str, Any] | None = (await books.snapshot(redis))["paused"]["forward"]
    return pause


async def test_a_pause_is_shown_and_resumed(redis: Redis) -> None:
    """A pause says by whom, why and since when; resuming says whether there was one."""
    await pauses.pause(redis, FORWARD, "moving house")
    shown = await paused(redis)
    assert shown is not None
    assert (shown["by"], shown["reason"], shown["until"]) == ("operator", "moving house", None)
    assert shown["since"].endswith("Z")
    assert await pauses.resume(redis, FORWARD)
    assert await paused(redis) is None
    assert not await pauses.resume(redis, FORWARD)


async def test_resuming_forgets_the_failures_behind_a_pause(redis: Redis) -> None:
    """After a resume the next call is made at once, and counts as the first one; successes stay."""
    key = keys.destination(FORWARD)
    await redis.hset(key, mapping={"failures": 9, "due": 1 << 50, "probing": 1, "successes": 3})
    await pauses.resume(redis, FORWARD)
    assert await redis.hgetall(key) == {b"successes": b"3"}


@pytest.mark.parametrize("pauses_at_once", [0, 1])
async def test_a_probe_ends_the_wait_and_nothing_else(redis: Redis, pauses_at_once: int) -> None:
    """After a back-off, or in the relay's own pause, one call may go now; when it fails it goes on as it was."""
    await seal(redis, FORWARD, [b"1"])
    await seal(redis, FORWARD, [b"2"])
    await set_back(redis, await claim(redis), at_least_ms=60_000, at_once=pauses_at_once)
    before = await paused(redis)
    assert (await claim(redis)).word == "wait"
    assert await pauses.probe(redis, FORWARD) == "due"
    assert await redis.hget(keys.destination(FORWARD), "failures") == b"1"
    probing = await claim(redis)
    assert probing.payloads == [b"1"]
    assert (await claim(redis)).word == "wait"  # one call at a time
    await set_back(redis, probing, at_least_ms=60_000, at_once=pauses_at_once)
    after = await paused(redis)
    assert (before and before["since"]) == (after and after["since"])
    assert (await claim(redis)).word == "wait"


async def test_a_probe_leaves_other_pauses_alone(redis: Redis) -> None:
    """An operator's pause stays, also over a back-off, and one for want of a key; there may be nothing to do."""
    assert await pauses.probe(redis, FORWARD) == "free"
    assert await paused(redis) is None
    await pauses.pause_without_key(redis, FORWARD, f"{pauses.NO_KEY}: set it")
    for answer in ("key", "operator"):
        before = await redis.hgetall(keys.PAUSED)
        assert await pauses.probe(redis, FORWARD) == answer
        assert await redis.hgetall(keys.PAUSED) == before
        await pauses.pause(redis, FORWARD, "lunch")


async def test_a_full_server_is_probed(redis: Redis) -> None:
    """A probe needs no room."""
    await seal(redis, FORWARD, [b"1"])
    await set_back(redis, await claim(redis), at_least_ms=60_000, at_once=1)
    async with full(redis):
        assert await pauses.probe(redis, FORWARD) == "due"


async def test_a_missing_key_pauses_and_its_coming_resumes(redis: Redis) -> None:
    """The relay's own pause for want of a key lasts until the key is set, over restarts, from its first moment."""
    reason = f"{pauses.NO_KEY}: set AUDIENCEPOINT_API_KEY"
    await pauses.pause_without_key(redis, FORWARD, reason)
    first = await paused(redis)
    await pauses.pause_without_key(redis, FORWARD, reason)
    assert await paused(redis) == first
    assert first is not None
    assert (first["by"], first["reason"]) == ("relay", reason)
    await pauses.pause_without_key(redis, FORWARD, f"{pauses.NO_KEY}: another")
    again = await paused(redis)
    assert again is not None
    assert again["reason"] == f"{pauses.NO_KEY}: another"
    await pauses.end_pause_without_key(redis, FORWARD)
    await pauses.end_pause_without_key(redis, FORWARD)
    assert await paused(redis) is None


@pytest.mark.parametrize("reason", ["lunch", f"{pauses.NO_KEY} yet"])
async def test_an_operators_pause_is_the_operators(redis: Redis, reason: str) -> None:
    """No start of a worker, with or without a key, changes what an operator said."""
    await pauses.pause(redis, FORWARD, reason)
    before = await paused(redis)
    await pauses.pause_without_key(redis, FORWARD, "no key: set it")
    await pauses.end_pause_without_key(redis, FORWARD)
    assert await paused(redis) == before


async def test_the_coming_of_a_key_lifts_no_other_pause(redis: Redis) -> None:
    """A quota that is used up stays so when a worker restarts."""
    await pauses.pause(redis, FORWARD, "quota", by="relay")
    await pauses.end_pause_without_key(redis, FORWARD)
    assert await paused(redis) is not None


@dataclass
class Operator:
    """Somebody who pauses `forward`, once, between a command of the relay's *client* and its next one."""

    client: Redis
    is_waiting: bool = False


class Overtaken:
    """What makes a connection of redis-py one whose replies an operator hears of first."""

    redis: Redis
    operator: Operator

    async def read_response(self, *args: Any, **options: Any) -> object:
        """Read the reply, and let the operator act before it is told."""
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc] # a connection's
        finally:
            if self.operator.is_waiting:
                self.operator.is_waiting = False
                await pauses.pause(self.redis, FORWARD, "lunch")


@pytest.fixture
async def operator(redis: Redis, redis_url: str) -> AsyncIterator[Operator]:
    """Give an operator who has not begun to wait, with a client that is connected."""
    pool = ConnectionPool.from_url(redis_url)
    async with Redis.from_pool(pool) as client:
        operator = Operator(client)
        kind = pool.connection_class
        pool.connection_class = type(
            "One", (Overtaken, kind), {"redis": redis, "operator": operator}
        )
        await client.ping()
        yield operator


@pytest.mark.parametrize("reason", [None, "quota", f"{pauses.NO_KEY}: set it"])
@pytest.mark.parametrize(
    "act",
    [
        pauses.end_pause_without_key,
        pauses.end_own_pause,
        lambda redis, stage: pauses.pause_without_key(
            redis, stage, f"{pauses.NO_KEY}: set another"
        ),
    ],
)
async def test_an_operator_may_pause_at_any_moment(
    redis: Redis,
    operator: Operator,
    act: Callable[[Redis, Stage], Awaitable[None]],
    reason: str | None,
) -> None:
    """Looking at a pause and changing it is one step: nothing an operator says in between is lost."""
    if reason is not None:
        await pauses.pause(redis, FORWARD, reason, by="relay")
    operator.is_waiting = True
    await act(operator.client, FORWARD)
    assert not operator.is_waiting
    shown = await paused(redis)
    assert shown is not None
    assert (shown["by"], shown["reason"]) == ("operator", "lunch")


async def test_the_relay_lifts_its_own_pause_only(redis: Redis) -> None:
    """What it thought is over, with the failures behind it; without such a pause nothing is forgotten."""
    key = keys.destination(FORWARD)
    await redis.hset(key, mapping={"failures": 9, "successes": 3})
    await pauses.end_own_pause(redis, FORWARD)
    await pauses.pause(redis, FORWARD, "lunch")
    await pauses.end_own_pause(redis, FORWARD)
    assert await paused(redis) is not None
    assert await redis.hget(key, "failures") == b"9"
    await pauses.pause(redis, FORWARD, "down", by="relay")
    await pauses.end_own_pause(redis, FORWARD)
    assert await paused(redis) is None
    assert await redis.hgetall(key) == {b"successes": b"3"}


async def test_a_missing_key_pauses_on_a_full_server(redis: Redis) -> None:
    """The sweep, which comes to this before it rings for anybody, is not stopped by it."""
    async with full(redis):
        await pauses.pause_without_key(redis, FORWARD, f"{pauses.NO_KEY}: set it")
    assert await paused(redis) is not None


async def test_an_operator_pauses_and_resumes_a_full_server(redis: Redis) -> None:
    """That is when it may be wanted most: another pause takes the place of the first, and is lifted."""
    async with full(redis):
        for reason in ("full", 'moving "house" é\\'):
            await pauses.pause(redis, FORWARD, reason)
            shown = await paused(redis)
            assert shown is not None
            assert (shown["by"], shown["reason"], shown["until"]) == ("operator", reason, None)
        assert await pauses.resume(redis, FORWARD)
    assert await paused(redis) is None


@pytest.mark.parametrize(("by", "is_over"), [("relay", True), ("operator", False)])
async def test_a_success_ends_the_relays_pause_only(redis: Redis, by: str, is_over: bool) -> None:
    """A call in flight that goes well ends what the relay thought, not what the operator wants."""
    await add(redis, FORWARD, [b"1"])
    (entry,) = await take(redis, FORWARD)
    await pauses.pause(redis, FORWARD, "because", by=by)
    move = Move("forward", [entry.id])
    move.settle(FORWARD, "done")
    move.succeeded(FORWARD)
    await apply(redis, move)
    assert (await paused(redis) is None) == is_over

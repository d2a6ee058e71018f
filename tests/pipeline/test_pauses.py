"""Pauses: whose word stops a stage, and what lifts it again."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline import books, keys, pauses
from pipeline.moves import Move
from pipeline.outcomes import Stage
from tests.pipeline.work import add, apply, take

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

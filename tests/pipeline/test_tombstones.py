"""Tombstones: people who must not come back, under names that tell nobody who they are."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from pipeline import keys
from pipeline.addresses import digest
from pipeline.tombstones import Tombstones

pytestmark = pytest.mark.anyio

ANN = digest("ann@example.com")


async def test_a_tombstone_is_found_until_it_is_lifted(redis: Redis) -> None:
    """Every process finds it; lifting says how many there were."""
    tombstones = Tombstones(redis)
    assert not await tombstones.any()
    assert await tombstones.found([ANN]) == [False]
    await tombstones.put([ANN, "uuid-1"])
    other = Tombstones(redis)
    assert await other.any()
    assert await other.found(["uuid-2", ANN]) == [False, True]
    assert await other.found([]) == []
    assert await other.lift([ANN, "uuid-2"]) == 1
    assert await tombstones.found([ANN, "uuid-1"]) == [False, True]


async def test_nobody_is_nothing(redis: Redis) -> None:
    """Without identities nothing is set, lifted, or asked."""
    tombstones = Tombstones(redis)
    await tombstones.put([])
    assert await tombstones.lift([]) == 0
    assert await redis.keys(keys.TOMBSTONES) == []


async def test_a_tombstone_does_not_tell_whose_it_is(redis: Redis) -> None:
    """Neither an address nor its hash is kept: only an HMAC under a key of this relay's own."""
    await Tombstones(redis).put([ANN])
    (mac,) = await redis.smembers(keys.TOMBSTONES)
    assert mac.decode() != ANN
    assert len(mac) == 64
    key = await redis.get(keys.TOMBSTONE_KEY)
    assert len(key) == 32
    assert await Tombstones(redis).key() == key


async def test_the_key_is_drawn_once(redis: Redis) -> None:
    """Processes that draw it at the same time agree on the first one's."""
    found = await asyncio.gather(*(Tombstones(redis).key() for _ in range(5)))
    assert set(found) == {await redis.get(keys.TOMBSTONE_KEY)}
    tombstones = Tombstones(redis)
    assert await tombstones.macs(["a"]) == await tombstones.macs(["a"])

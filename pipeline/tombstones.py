"""Tombstones: people who must not come back, kept as keyed hashes that tell nobody who they are.

A tombstone is the HMAC of an address's hash, a visitor's UUID or EDID, under a key that is drawn once and
kept in Redis. It is looked at whenever work leaves a stage.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from secrets import token_bytes
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Tombstones:
    """Looks for tombstones; cheap as long as there are none."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._key: bytes | None = None

    async def key(self) -> bytes:
        """Return the key of the HMAC, drawn on first use."""
        if self._key is None:
            self._key = await self._redis.get(keys.TOMBSTONE_KEY) or await self._drawn()
        return self._key

    async def _drawn(self) -> bytes:
        """Return the key that is kept: the first one's, when two draw."""
        return bytes(await script(self._redis, "draw_key")(args=[token_bytes(32)]))

    async def macs(self, identities: Iterable[str]) -> list[str]:
        """Return the tombstone of each of *identities* (address hashes, UUIDs, EDIDs)."""
        key = await self.key()
        return [hmac.digest(key, name.encode(), "sha256").hex() for name in identities]

    async def any(self) -> bool:
        """Return whether there is any tombstone at all."""
        return bool(await self._redis.exists(keys.TOMBSTONES))

    async def found(self, identities: list[str]) -> list[bool]:
        """Return for each of *identities* whether it has a tombstone."""
        if not identities or not await self.any():
            return [False] * len(identities)
        macs = await self.macs(identities)
        return [bool(hit) for hit in await self._redis.smismember(keys.TOMBSTONES, macs)]

    async def put(self, identities: Iterable[str]) -> None:
        """Set tombstones."""
        if macs := await self.macs(identities):
            await self._redis.sadd(keys.TOMBSTONES, *macs)

    async def lift(self, identities: Iterable[str]) -> int:
        """Lift tombstones; return how many there were."""
        macs = await self.macs(identities)
        return int(await self._redis.srem(keys.TOMBSTONES, *macs)) if macs else 0

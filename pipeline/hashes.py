"""Hashes: the same fields of many hashes, read at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def read(redis: Redis, names: Sequence[str], *fields: str) -> list[list[bytes | None]]:
    """Return the values of *fields* of each hash in *names*, in their order; one round trip, none for no names."""
    if not names:
        return []
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hmget(name, *fields)
        rows: list[list[bytes | None]] = await pipe.execute()
    return rows

"""The audit: what operators did with other people's data, when, and who they were on their machine.

Filters and counts only: an entry must not bring back the person whom it says was forgotten. After a lost reply the
same entry, with the same time, may stand there twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from pipeline import keys
from pipeline.clock import iso, redis_now_ms
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: entries kept: years of an operator's work
MOST_ENTRIES = 10_000


async def record(
    redis: Redis, what: str, *, who: str, count: int, wanted: Mapping[str, object] | None = None
) -> None:
    """Note that *who* did *what* to *count* things that the filter *wanted* meant; also on a full server."""
    entry: list[str | bytes | float] = ["when", iso(await redis_now_ms(redis)), "what", what]
    entry += ["who", who, "count", count, "filter", orjson.dumps(wanted or {})]
    await script(redis, "audit")(args=[MOST_ENTRIES, len(entry), *entry])


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; *wanted* is JSON."""

    when: str
    what: str
    who: str
    count: int
    wanted: str


async def last(redis: Redis, most: int) -> list[Entry]:
    """Return the last *most* entries, newest first."""
    entries = []
    for _, fields in await redis.xrevrange(keys.AUDIT, count=most):
        told = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
        entries.append(
            Entry(told["when"], told["what"], told["who"], int(told["count"]), told["filter"])
        )
    return entries

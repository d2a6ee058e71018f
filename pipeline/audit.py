"""The audit: what operators did with other people's data, when, and who they were on their machine.

Filters and counts only: an entry must not bring back the person whom it says was forgotten. After a lost reply the
same entry, with the same time, may stand there twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from pipeline import keys
from pipeline.clock import iso, redis_now_ms

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: years of an operator's work; the stream is the only thing here that is trimmed by count
MOST_ENTRIES = 10_000


async def record(
    redis: Redis, what: str, *, who: str, count: int, wanted: Mapping[str, object] | None = None
) -> None:
    """Note that *who* did *what* to *count* things that the filter *wanted* meant."""
    entry = {
        "when": iso(await redis_now_ms(redis)),
        "what": what,
        "who": who,
        "count": count,
        "filter": orjson.dumps(wanted or {}),
    }
    await redis.xadd(keys.AUDIT, entry, maxlen=MOST_ENTRIES, approximate=True)

"""Room: whether taking deliveries apart may use more of Redis's memory.

The receiver stops storing at 85 % of `maxmemory`. A delivery's events may need more room than the delivery did, so
`unpack` stops a little later and waits until what it made has left; a server that is really full would refuse
even arq's own bookkeeping. When nothing is on its way out, going on by small steps is what makes room.

Asking Redis costs about as much as taking a small delivery apart. So an answer holds for a number of bytes, in
however many takes they come, and for a moment only, because others use the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.queues import Entry

if TYPE_CHECKING:
    from redis.asyncio import Redis

FULL_AT = 0.9
#: bytes of deliveries that one answer is good for, when there is room
MOST_BYTES = 4_000_000
#: short, because others use the same memory; the bytes bound what this process adds in this time
HOLDS_S = 0.1
#: a server without a limit may be given one while it runs
HOLDS_WITHOUT_LIMIT_S = 5.0


class Room:
    """How much one process may unpack before it asks Redis again."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = monotonic) -> None:
        self._redis = redis
        self._clock = clock
        self._bytes_left = 0
        self._is_limited = True
        self._good_until = 0.0

    async def bytes_to_unpack(self) -> int:
        """Return how many bytes of deliveries may be taken now: 0 when others must leave first."""
        now = self._clock()
        if self._bytes_left <= 0 or now >= self._good_until:
            self._bytes_left = await self._ask()
            self._good_until = now + (HOLDS_S if self._is_limited else HOLDS_WITHOUT_LIMIT_S)
        return self._bytes_left

    def take(self, entries: Iterable[Entry]) -> None:
        """Count *entries* as taken."""
        if self._is_limited:
            self._bytes_left -= sum(len(each) for entry in entries for each in entry.payloads)

    async def _ask(self) -> int:
        memory = await self._redis.info("memory")
        limit = int(memory.get("maxmemory", 0))
        self._is_limited = limit > 0
        if not limit:
            return MOST_BYTES
        if int(memory["used_memory"]) < FULL_AT * limit:
            return min(MOST_BYTES, limit // 50)
        return 0 if await self._work_is_on_its_way() else 1

    async def _work_is_on_its_way(self) -> bool:
        async with self._redis.pipeline(transaction=False) as pipe:
            for stage, queues in keys.QUEUES.items():
                if stage is not Stage.UNPACK:
                    for name in queues:
                        if name != keys.bulk(stage):  # a bulk job leaves when AudienceLab likes
                            pipe.xlen(keys.queue(name))
            return any(await pipe.execute())

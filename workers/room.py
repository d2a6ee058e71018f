"""Room: whether taking deliveries apart may use more of Redis's memory.

The receiver stops storing at 85 % of `maxmemory`. A delivery's events may need more room than the delivery did, so
`unpack` stops a little later and waits until what it made has left; a server that is really full would refuse
even arq's own bookkeeping. When nothing is on its way out, going on by small steps is what makes room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.outcomes import Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

FULL_AT = 0.9
#: bytes of deliveries a take, when there is room
MOST_BYTES = 4_000_000


async def bytes_to_unpack(redis: Redis) -> int:
    """Return how many bytes of deliveries may be taken now: 0 when others must leave first."""
    memory = await redis.info("memory")
    limit = int(memory.get("maxmemory", 0))
    if not limit:
        return MOST_BYTES
    if int(memory["used_memory"]) < FULL_AT * limit:
        return min(MOST_BYTES, limit // 50)
    return 0 if await _work_is_on_its_way(redis) else 1


async def _work_is_on_its_way(redis: Redis) -> bool:
    async with redis.pipeline(transaction=False) as pipe:
        for stage, queues in keys.QUEUES.items():
            if stage is not Stage.UNPACK:
                for name in queues:
                    pipe.xlen(keys.queue(name))
        return any(await pipe.execute())

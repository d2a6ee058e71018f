"""Visitors for tests, kept the way the workers keep them: by a move."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from pipeline import keys
from pipeline.clock import DAY_MS
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from pipeline.moves import Move, Mover, Result
from pipeline.outcomes import Stage
from pipeline.queues import Queues, create_groups
from pipeline.tombstones import Tombstones
from pipeline.visitors import Visitor


async def meet(redis: Redis, visitor: Visitor, *, subscribed: Sequence[str] = ()) -> Result:
    """Keep *visitor* and the hashes of the addresses, unless a tombstone forbids it."""
    await create_groups(redis)
    await Inbox(redis).put([Delivery(new_delivery_id(), "pixel", b"{}", 0)])
    entry = (await Queues(redis, "tests").take(Stage.UNPACK, Stage.UNPACK, most=1)).entries[0]
    macs = await Tombstones(redis).macs(visitor.identities)
    move = Move(entry.queue, [entry.id], versions={visitor.id: visitor.version}, macs=macs)
    move.settle(Stage.UNPACK, "done")
    version = str(int(visitor.version or 0) + 1)
    move.save_visitor(visitor.id, version, visitor.document(), 1, DAY_MS)
    move.remember(keys.enrichment(visitor.id), DAY_MS)
    for name in visitor.digests:
        move.alias(name, visitor.id, DAY_MS)
    for name in subscribed:
        move.subscription(name, "subscribed", DAY_MS)
    return (await Mover(redis, "tests", DAY_MS).apply([move])).results[0]

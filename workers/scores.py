"""Scores: keeps what AudiencePoint says about an address with the visitor it belongs to.

An address nobody has seen at a site becomes a visitor of its own, known by its hash only.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

import orjson
from redis.exceptions import RedisError

from pipeline import visitors
from pipeline.addresses import digest
from pipeline.clock import iso, redis_now_ms
from pipeline.moves import Move, Result
from pipeline.outcomes import Stage
from pipeline.queues import Entry
from pipeline.visitors import Visitor
from workers import mishaps

if TYPE_CHECKING:
    from workers.context import Context

MOST_ENTRIES = 100


async def scores(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the scores until none are left, the worker stops, or monotonic *until*."""
    while not context.stopping.is_set() and monotonic() < until:
        taken = await context.queues.take(Stage.SCORES, Stage.SCORES, most=MOST_ENTRIES)
        if not taken.entries:
            return
        for entry in taken.entries:
            try:
                await keep(context, entry)
            except (RedisError, OSError):
                raise
            except Exception as failure:  # ours: three tries, and the stage goes on
                await mishaps.failed(context, Stage.SCORES, entry, failure)


async def keep(context: Context, entry: Entry) -> None:
    """Write one address's scores, or count them as unchanged."""
    change = orjson.loads(entry.payloads[0])
    address_hash = digest(change["email"])
    for _ in range(10):  # somebody else may write the same visitor
        move = await move_of(context, entry, address_hash, change["scores"])
        result = (await context.mover.apply([move])).results[0]
        if result is Result.TOMBSTONE:
            forgotten = Move(entry.queue, [entry.id])
            forgotten.settle(Stage.SCORES, "ignored")
            await context.mover.apply([forgotten])
        if result is not Result.CHANGED:
            return
    await context.queues.give_back(entry.queue, [entry.id])


async def move_of(context: Context, entry: Entry, address_hash: str, fresh: dict[str, str]) -> Move:
    """Make the move that writes *fresh* to the visitor of the address."""
    owner = (await visitors.owners(context.redis, [address_hash])).get(address_hash, address_hash)
    known = (await visitors.fetch(context.redis, [owner])).get(owner)
    visitor = known or Visitor(owner, hem_sha256=address_hash)
    macs = await context.tombstones.macs([*visitor.identities, address_hash])
    move = Move(entry.queue, [entry.id], versions={owner: visitor.version}, macs=macs)
    merged = {**visitor.scores, **fresh}
    if merged == visitor.scores:
        move.settle(Stage.SCORES, "ignored")
        return move
    now_ms = await redis_now_ms(context.redis)
    visitor.scores, visitor.scores_changed_at = merged, iso(now_ms)
    save(context, move, visitor, now_ms)
    move.alias(address_hash, owner, context.visitor_keep_ms)
    move.settle(Stage.SCORES, "done")
    return move


def save(context: Context, move: Move, visitor: Visitor, now_ms: int) -> None:
    """Add the writing of *visitor* to *move*, under its next version."""
    version = str(int(visitor.version or 0) + 1)
    keep_ms = context.visitor_keep_ms
    move.save_visitor(visitor.id, version, visitor.document(), now_ms, keep_ms)
    visitor.version = version

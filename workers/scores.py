"""Scores: keeps what AudiencePoint says about an address with the visitor it belongs to, and has changes told.

An address nobody has seen at a site becomes a visitor of its own, known by its hash only.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING

import orjson
from redis.exceptions import RedisError

from pipeline import visitors
from pipeline.addresses import digest
from pipeline.clock import iso, redis_now_ms
from pipeline.moves import Move, Result
from pipeline.origins import Origin
from pipeline.outcomes import Stage
from pipeline.queues import Entry
from pipeline.visitors import Visitor
from workers import mishaps
from workers.notify import message

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
    for _ in range(10):  # somebody else may write the same visitor
        move = await move_of(context, entry, change["email"], change["scores"])
        moved = await context.mover.apply([move])
        result = moved.results[0]
        if result is Result.TOMBSTONE:
            forgotten = Move(entry.queue, [entry.id])
            forgotten.settle(Stage.SCORES, "ignored")
            await context.mover.apply([forgotten])
        if result is Result.DONE:
            await context.ring(moved.bells, move.feeds)
        if result is not Result.CHANGED:
            return
    await context.queues.give_back(entry.queue, [entry.id])


async def move_of(context: Context, entry: Entry, email: str, fresh: dict[str, str]) -> Move:
    """Make the move that writes *fresh* to the visitor of *email* and, if it is news, has it told."""
    address_hash = digest(email)
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
    before, visitor.scores = visitor.scores, merged
    visitor.scores_changed_at = _time_of_change(visitor.scores_changed_at, now_ms)
    if not context.settings.is_off(Stage.NOTIFY):
        told = message(visitor, email, before, context.settings.email_format)
        move.append(Stage.NOTIFY, told, Origin.unpack(entry.origins[0]))
    save(context, move, visitor, now_ms)
    move.alias(address_hash, owner, context.visitor_keep_ms)
    move.settle(Stage.SCORES, "done")
    return move


def _time_of_change(last: str | None, now_ms: int) -> str:
    """Return now, always later than the *last* change: Redis's clock may stand still, or jump back."""
    if last is None:
        return iso(now_ms)
    last_ms = round(datetime.fromisoformat(last).timestamp() * 1000)
    return iso(max(now_ms, last_ms + 1))


def save(context: Context, move: Move, visitor: Visitor, now_ms: int) -> None:
    """Add the writing of *visitor* to *move*, under its next version."""
    version = str(int(visitor.version or 0) + 1)
    keep_ms = context.visitor_keep_ms
    move.save_visitor(visitor.id, version, visitor.document(), now_ms, keep_ms)
    visitor.version = version

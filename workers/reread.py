"""Reread: one event in its sender's own words, brought back from the dead letters.

An event that its source found wrong was buried as the sender wrote it. After a fix, a retry puts it back to
its stage in that form, and the stage has its source read it again: what comes out now goes on, and what is
still wrong is buried again, with the new reason. What nobody could read had no seen mark; it takes one now, so that
of a wrong event that came twice, or came right in the meantime, one goes on and the others are duplicates.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from pipeline import keys
from pipeline.deliveries import Delivery
from pipeline.moves import Move
from pipeline.origins import Origin
from pipeline.outcomes import (
    Ignored,
    Invalid,
    MailEvent,
    Outcome,
    Probe,
    Reason,
    ScoreChange,
    Stage,
    Unreadable,
    VisitorEvent,
)
from pipeline.queues import Entry
from pipeline.sources.registry import SOURCES
from workers import mishaps
from workers.handing_over import hand_over_one
from workers.reading import Read
from workers.unpack import learn

if TYPE_CHECKING:
    from workers.context import Context

MOST_ENTRIES = 100

WANTED: dict[Stage, type] = {
    Stage.FORWARD: MailEvent,
    Stage.ENRICH: VisitorEvent,
    Stage.SCORES: ScoreChange,
}


async def reread(context: Context, stage: Stage, until: float) -> None:
    """Read again what came back in its sender's own words, until none is left or monotonic *until*."""
    queue = keys.raw(stage)
    while not context.stopping.is_set() and monotonic() < until:
        taken = await context.queues.take(queue, stage, most=MOST_ENTRIES)
        if not taken.entries:
            return
        for entry in taken.entries:
            try:
                move = await move_of(context, stage, entry)
            except (RedisError, OSError):  # not this entry's fault
                raise
            except Exception as failure:
                # a source that trips over this entry must not stop the stage
                await mishaps.failed(context, stage, entry, failure)
                continue
            await context.mover.apply([move])


async def move_of(context: Context, stage: Stage, entry: Entry) -> Move:
    """Make the move that takes *entry* out and puts what its source makes of it now in its place."""
    origin = Origin.unpack(entry.origins[0])
    move = Move(entry.queue, [entry.id])
    delivery = Delivery(
        "reread",
        origin.source,
        entry.payloads[0],
        origin.first_seen_at_ms,
        tag=origin.tag,
        trace=origin.trace,
    )
    outcomes = await outcomes_of(context, stage, delivery)
    found = [outcome for outcome in outcomes if isinstance(outcome, WANTED[stage])]
    wrong = [outcome for outcome in outcomes if isinstance(outcome, Invalid)]
    if found:
        # this piece of work becomes the first of them, through its mark; what else it tells of is new work
        move.count(stage, "in", -1)
        move.count(stage, "waiting", -1)
        for outcome in found:
            hand_over_one(move, delivery, outcome, context.settings.email_format)
    elif wrong:
        move.bury(stage, Reason.INVALID, wrong[0].error, delivery.body, origin, attempts=1)
        move.settle(stage, "dead")
    else:
        move.settle(stage, "ignored")
    return move


async def outcomes_of(context: Context, stage: Stage, delivery: Delivery) -> list[Outcome]:
    """Return what the event's source makes of it now, with the address of whom it names by a number."""
    source = SOURCES.get(delivery.source)
    if source is None:
        error = f"no source is called {delivery.source!r} in this version"
        return [Invalid(stage, error, delivery.body)]
    try:
        found = Read(delivery, source.parse(delivery, context.rules, time()))
    except Unreadable as unreadable:
        return [Invalid(stage, unreadable.error, delivery.body)]
    except Probe:
        return [Ignored(stage, "probe")]
    await learn(context, [found])
    return found.outcomes

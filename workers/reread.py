"""Reread: one event in its sender's own words, brought back from the dead letters.

An event that its source found wrong was buried as the sender wrote it. After a fix, a retry puts it back to
its stage in that form, and the stage has its source read it again: what comes out now goes on, and what is
still wrong is buried again, with the new reason.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

import orjson

from pipeline import keys, mail_events
from pipeline.deliveries import Delivery
from pipeline.moves import Move
from pipeline.origins import Form, Origin
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
from workers.unpack import Read, learn

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
            except Exception as failure:
                # a source that trips over this entry must not stop the stage
                await mishaps.failed(context, stage, entry, failure)
                continue
            await context.mover.apply([move])


async def move_of(context: Context, stage: Stage, entry: Entry) -> Move:
    """Make the move that takes *entry* out and puts what its source makes of it now in its place."""
    origin = Origin.unpack(entry.origins[0])
    move = Move(entry.queue, [entry.id])
    outcomes = await outcomes_of(context, stage, entry, origin)
    found = [outcome for outcome in outcomes if isinstance(outcome, WANTED[stage])]
    wrong = [outcome for outcome in outcomes if isinstance(outcome, Invalid)]
    if found:  # this piece of work goes on as the first of them; what else it tells of is new work
        for position, outcome in enumerate(found):
            payload, form = payload_of(context, outcome)
            meta = Origin(origin.source, origin.first_seen_at_ms, form, origin.tag)
            if position == 0:
                move.pass_on(stage, ["p", payload, "m", meta.pack()])
            else:
                move.append(stage, payload, meta)
    elif wrong:
        payload, error = entry.payloads[0], wrong[0].error
        move.bury(stage, Reason.INVALID, error, payload, origin, attempts=1)
        move.settle(stage, "dead")
    else:
        move.settle(stage, "ignored")
    return move


async def outcomes_of(
    context: Context, stage: Stage, entry: Entry, origin: Origin
) -> list[Outcome]:
    """Return what the event's source makes of it now, with the address of whom it names by a number."""
    delivery = Delivery("reread", origin.source, entry.payloads[0], origin.first_seen_at_ms)
    source = SOURCES.get(origin.source)
    if source is None:
        error = f"no source is called {origin.source!r} in this version"
        return [Invalid(stage, error, entry.payloads[0])]
    try:
        found = Read(delivery, source.parse(delivery, context.rules, time()))
    except Unreadable as unreadable:
        return [Invalid(stage, unreadable.error, entry.payloads[0])]
    except Probe:
        return [Ignored(stage, "probe")]
    await learn(context, [found])
    return found.outcomes


def payload_of(context: Context, outcome: Outcome) -> tuple[bytes, Form]:
    """Return the bytes and the form in which *outcome* waits in its stage."""
    if isinstance(outcome, MailEvent):
        email_format = context.settings.email_format
        hashed = mail_events.is_hashed(outcome, email_format)
        return mail_events.wire(outcome, email_format), Form.HASHED if hashed else Form.OURS
    return orjson.dumps(outcome), Form.OURS

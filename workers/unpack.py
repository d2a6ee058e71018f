"""Unpack: takes deliveries apart (`reading`) and hands each event to its stage, past the seen marks (`handing_over`).

One move takes an entry of the inbox (all the deliveries of one flush) out and does everything that follows:
appends, duplicates, ignored ones, dead letters, counters. A large delivery leaves in slices, with a cursor in
its entry, so that no script blocks Redis for long. A delivery that cannot be read is buried without the
others of its flush; code of ours that fails on one is tried three times.

A delivery that waits for a proof is set aside in a queue of its own, which is looked at when nothing else is left
to do: a handful a drain, each in its turn, and all of them as long as proofs are found.

Before the moves, what an entry teaches is written down: addresses of people who are named by a number elsewhere
(`recipients`), and the key that a set-up brought (`senders`). That may run twice and comes to the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from time import monotonic, time_ns
from typing import TYPE_CHECKING

from pipeline import keys, recipients, senders
from pipeline.deliveries import Delivery
from pipeline.moves import Move
from pipeline.outcomes import (
    MailEvent,
    SetUp,
    Stage,
    Unaddressed,
)
from pipeline.queues import Entry
from workers import handing_over, reading
from workers.fates import BUG_TRIES, last_line
from workers.reading import Opened, OurFault, Read

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

#: entries a take; each holds the deliveries of one flush
MOST_ENTRIES = 100
#: how soon a full server is looked at again; what it has to wait for are calls
FULL_AGAIN_S = 0.05


async def unpack(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the inbox until it is empty, the worker stops, or monotonic *until*; last, what waits for proofs."""
    written: asyncio.Task[None] | None = None
    waiting: set[str] = set()
    has_looked = False
    try:
        while not context.stopping.is_set() and monotonic() < until:
            most_bytes = await context.room.bytes_to_unpack() or await others_have_left(context)
            if not most_bytes:
                return  # the sweep looks again in a second
            taken = await context.queues.take(
                Stage.UNPACK, Stage.UNPACK, most=MOST_ENTRIES, most_bytes=most_bytes
            )
            entries, is_stuck = taken.entries, False
            if not entries:
                entries = await unproven(context, most_bytes, anew=not has_looked)
                has_looked = is_stuck = True
            context.room.take(entries)
            began = monotonic()
            async for moves in slices(context, entries, waiting):
                is_stuck = False
                if written is not None:
                    await written
                # the next slice is read while Redis writes this one
                written = asyncio.create_task(write(context, moves))
                await asyncio.sleep(0)
            if is_stuck:
                return
            context.metrics.unpacked(len(entries), monotonic() - began)
    finally:
        if waiting:
            logger.info("unpack: deliveries wait for a proof deliveries=%d", len(waiting))
        if written is not None:
            await written


async def others_have_left(context: Context) -> int:
    """Wait a little for what is on its way to leave a full server; return how many bytes may be taken then, or 0."""
    until = monotonic() + context.timing.patience_s
    while not context.stopping.is_set() and monotonic() < until:
        await asyncio.sleep(FULL_AGAIN_S)
        if most_bytes := await context.room.bytes_to_unpack():
            return most_bytes
    return 0


async def unproven(context: Context, most_bytes: int, *, anew: bool) -> list[Entry]:
    """Take some of the deliveries that wait for a proof; when each had its turn, begin *anew*, if that is wanted.

    What had its turn stays in this worker's hands until then.
    """
    queues, name = context.queues, keys.UNPROVEN
    if not await context.redis.xlen(keys.queue(name)):
        return []
    taken = await queues.take(name, Stage.UNPACK, most=MOST_ENTRIES, most_bytes=most_bytes)
    if not taken.entries and anew and await queues.release_all(name):
        taken = await queues.take(name, Stage.UNPACK, most=MOST_ENTRIES, most_bytes=most_bytes)
    return taken.entries


async def write(context: Context, moves: list[Move]) -> None:
    """Carry out *moves* and ring for the stages that got work."""
    moved = await context.mover.apply(moves)
    if context.traced is not None:
        context.traced.unpacked(moves, moved.results)
    await context.ring(moved.bells, set[Stage]().union(*(move.feeds for move in moves)))


async def slices(
    context: Context, entries: Sequence[Entry], waiting: set[str]
) -> AsyncIterator[list[Move]]:
    """Make the moves of *entries*, in lists of about a slice of outcomes each; add to *waiting* who waits."""
    moves: list[Move] = []
    size = 0
    async for group in groups(context, entries, waiting):
        await learn(context, [one for opened in group for one in opened.reads])
        for opened in group:
            async for move in moves_of(context, opened, waiting):
                if moves and size + move.weight > handing_over.SLICE:
                    yield moves
                    moves, size = [], 0
                moves.append(move)
                size += move.weight
    if moves:
        yield moves


async def groups(
    context: Context, entries: Sequence[Entry], waiting: set[str]
) -> AsyncIterator[list[Opened]]:
    """Read *entries*, and give about a slice of outcomes at a time: what they teach is then one round trip."""
    group: list[Opened] = []
    size = 0
    for some in reading.handfuls(entries):
        opened = await open_up(context, [reading.opened_of(entry) for entry in some], waiting)
        group += opened
        size += sum(len(read.outcomes) for one in opened for read in one.reads)
        if size >= handing_over.SLICE:
            yield group
            group, size = [], 0
    if group:
        yield group


async def open_up(context: Context, group: list[Opened], waiting: set[str]) -> list[Opened]:
    """Read every delivery of some entries; return those entries of which there is anything to move.

    There is not when all of one waits on, or our own code failed on it. The ids of deliveries that wait for a
    proof are added to *waiting*.
    """
    began_ns = 0 if context.traced is None else time_ns()
    while True:
        try:
            for one in group:
                one.found = await reading.prove(context, one)
                waiting |= one.found.waiting
            ready = [one for one in group if not one.waits_on]
            if sum(len(payload) for one in ready for payload in one.entry.payloads) > reading.LARGE:
                await asyncio.to_thread(reading.read_all, context, ready)
            else:
                reading.read_all(context, ready)
        except OurFault as fault:
            failed = next(one for one in group if one.holds(fault))
            if context.traced is not None:
                context.traced.not_read(failed.delivery(fault), began_ns, fault)
            if not await is_to_be_buried(context, failed, fault):
                group = [one for one in group if one is not failed]
        else:
            if context.traced is not None:
                context.traced.unpacking((read for one in ready for read in one.reads), began_ns)
            return ready


async def moves_of(context: Context, opened: Opened, waiting: set[str]) -> AsyncIterator[Move]:
    """Make the moves that take an entry out, each when it is due; none when our own code failed on it.

    It may fail behind slices that have left. Then the entry stays in hand, and the next look begins at that place.
    """
    has_left = False
    while True:
        try:
            for move in handing_over.make_moves(context, opened.entry, opened.reads):
                yield move
                if move.next_cursor:
                    has_left = True
                    await asyncio.sleep(0)
        except OurFault as fault:
            if context.traced is not None:
                context.traced.broken_off(opened.reads, fault)
            if not await is_to_be_buried(context, opened, fault, has_left=has_left):
                return
            if not await open_up(context, [opened], waiting):
                return
            await learn(context, opened.reads)
        else:
            return


async def is_to_be_buried(
    context: Context, opened: Opened, fault: OurFault, *, has_left: bool = False
) -> bool:
    """Count that our own code failed on a delivery; before the last try the whole entry goes back.

    Nothing is buried by a try in which a part *has left*: the cursor is another one since.
    """
    entry = opened.entry
    tries, error = await context.queues.failed(entry), last_line(fault.__cause__ or fault)
    logger.error("unpack failed delivery=%s tries=%d error=%s", fault.delivery_id, tries, error)
    if has_left:
        return False
    if tries < BUG_TRIES:
        await context.queues.give_back(entry.queue, [entry.id])
        return False
    opened.faults[fault.delivery_id] = error
    return True


async def learn(context: Context, reads: Sequence[Read]) -> None:
    """Write down what *reads* teach, and put addresses in where they are known; nothing is asked for most senders."""
    steps: list[recipients.Step] = []
    places: list[tuple[Read, int, Unaddressed | None]] = []
    for one in reads:
        for place, outcome in enumerate(one.outcomes):
            if isinstance(outcome, MailEvent):
                if outcome.recipient:
                    steps.append((one.delivery.source, outcome.recipient, outcome.email))
                    places.append((one, place, None))
            elif isinstance(outcome, Unaddressed):
                steps.append((one.delivery.source, outcome.event.recipient or "", ""))
                places.append((one, place, outcome))
        if one.set_up:
            await keep_set_up(context, one.delivery, one.set_up)
    if not steps:
        return
    found = await recipients.resolve(context.redis, context.tombstones, steps)
    for (one, place, unaddressed), address in zip(places, found, strict=True):
        if unaddressed and address:
            one.outcomes[place] = replace(unaddressed.event, email=address)


async def keep_set_up(context: Context, delivery: Delivery, brought: SetUp) -> None:
    """Keep the key of a set-up for the operator, and say where it is shown."""
    await senders.keep_set_up(context.redis, delivery.source, delivery.received_at_ms, brought)
    logger.warning(
        "set-up of a webhook delivery=%s source=%s: `relay senders` shows the key that it wants back",
        *(delivery.id, delivery.source),
    )

"""Unpack: takes deliveries apart and hands each event to its stage, past the seen marks.

One move takes an entry of the inbox (all the deliveries of one flush) out and does everything that follows:
appends, duplicates, ignored ones, dead letters, counters. A large delivery leaves in slices, with a cursor in
its entry, so that no script blocks Redis for long. A delivery that cannot be read is buried without the
others of its flush; code of ours that fails on one is tried three times.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, time
from typing import TYPE_CHECKING

import orjson
from redis.exceptions import RedisError

from pipeline import mail_events
from pipeline.deliveries import Delivery
from pipeline.moves import Move
from pipeline.origins import Form, Origin
from pipeline.outcomes import (
    Ignored,
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
from pipeline.senders import word_of
from pipeline.sources.registry import SOURCES
from workers import proofs
from workers.fates import BUG_TRIES, last_line

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

#: outcomes a move: 8 000 in one script would block Redis for 100 ms
SLICE = 500
#: entries a take; each holds the deliveries of one flush
MOST_ENTRIES = 100


class OurFault(Exception):
    """Our own code failed on one delivery."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"delivery {delivery_id}")
        self.delivery_id = delivery_id


@dataclass(slots=True)
class Read:
    """One delivery as its source understood it: outcomes, or the fate of the whole."""

    delivery: Delivery
    outcomes: Sequence[Outcome] = ()
    is_probe: bool = False
    unreadable: Unreadable | None = None
    waits: bool = False


@dataclass(slots=True)
class Proofs:
    """The deliveries of an entry that are not simply taken apart, by their ids: false ones, and those that wait."""

    false: dict[str, Unreadable]
    waiting: set[str]


async def unpack(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the inbox until it is empty, the worker stops, or monotonic *until*."""
    written: asyncio.Task[None] | None = None
    try:
        while not context.stopping.is_set() and monotonic() < until:
            most_bytes = await context.room.bytes_to_unpack()
            if not most_bytes:
                return  # the sweep looks again in a second
            taken = await context.queues.take(
                Stage.UNPACK, Stage.UNPACK, most=MOST_ENTRIES, most_bytes=most_bytes
            )
            if not taken.entries:
                return
            context.room.take(taken.entries)
            async for moves in slices(context, taken.entries):
                if written is not None:
                    await written
                # the next slice is read while Redis writes this one
                written = asyncio.create_task(write(context, moves))
                await asyncio.sleep(0)
    finally:
        if written is not None:
            await written


async def write(context: Context, moves: list[Move]) -> None:
    """Carry out *moves* and ring for the stages that got work."""
    moved = await context.mover.apply(moves)
    await context.ring(moved.bells, set[Stage]().union(*(move.feeds for move in moves)))


async def slices(context: Context, entries: Sequence[Entry]) -> AsyncIterator[list[Move]]:
    """Make the moves of *entries*, in lists of about a slice of outcomes each."""
    moves: list[Move] = []
    size = 0
    for entry in entries:
        for move in await moves_of(context, entry):
            if moves and size + move.weight > SLICE:
                yield moves
                moves, size = [], 0
            moves.append(move)
            size += move.weight
    if moves:
        yield moves


async def moves_of(context: Context, entry: Entry) -> list[Move]:
    """Make the moves that take *entry* out; none when it must wait, or our own code failed on it.

    What waits for a proof stays in this worker's hands: the next drain, which the sweep rings for, takes it again.
    """
    faults: dict[str, str] = {}
    deliveries = [Delivery.unpack(payload) for payload in entry.payloads]
    while True:
        try:
            found = await prove(context, [one for one in deliveries if one.id not in faults])
            if len(found.waiting) == len(deliveries):
                return []
            return list(make_moves(context, entry, deliveries, found, faults))
        except OurFault as fault:
            tries, error = await context.queues.failed(entry), last_line(fault.__cause__ or fault)
            logger.error(  # noqa: TRY400 - a traceback could show what the delivery holds
                "unpack failed delivery=%s tries=%d error=%s", fault.delivery_id, tries, error
            )
            if tries < BUG_TRIES:
                await context.queues.give_back(entry.queue, [entry.id])
                return []
            faults[fault.delivery_id] = error


async def prove(context: Context, deliveries: Sequence[Delivery]) -> Proofs:
    """Find out which of *deliveries* are false, and of which that cannot be said now. Raises `OurFault`."""
    found = Proofs({}, set())
    for delivery in deliveries:
        try:
            await proofs.check(context, delivery)
        except Unreadable as unreadable:
            found.false[delivery.id] = unreadable
        except proofs.Later as later:
            logger.info("unpack waits delivery=%s reason=%s", delivery.id, later)
            found.waiting.add(delivery.id)
        except (RedisError, OSError):
            raise
        except Exception as failure:  # fates: as in `read`
            raise OurFault(delivery.id) from failure
    return found


def make_moves(
    context: Context,
    entry: Entry,
    deliveries: Sequence[Delivery],
    found: Proofs,
    faults: Mapping[str, str],
) -> Iterator[Move]:
    """Make slices with a cursor, then the final move; *faults* are deliveries to bury, with the error."""
    reads = [read(context, one, found, faults) for one in deliveries]
    outcomes = [(one.delivery, outcome) for one in reads for outcome in one.outcomes]
    start, cursor = begun(entry.cursor, len(outcomes)), entry.cursor
    while len(outcomes) - start > SLICE:
        following = f"{start + SLICE}/{len(outcomes)}"
        move = Move(entry.queue, [entry.id], cursor, following)
        hand_over(context, move, outcomes[start : start + SLICE])
        yield move
        start, cursor = start + SLICE, following
    move = Move(entry.queue, [entry.id], cursor)
    hand_over(context, move, outcomes[start:])
    for one in reads:
        settle(move, one)
    if waiting := [one.delivery for one in reads if one.waits]:  # the others do not wait for these
        move.pass_on(Stage.UNPACK, [part for one in waiting for part in ("p", one.pack())])
    yield move


def begun(cursor: str, outcomes: int) -> int:
    """Return how many of *outcomes* were handed over by earlier slices.

    A cursor counts outcomes. When the same bytes give another number of them now, a new release reads them
    differently: all are handed over again, and the seen marks tell which ones came before.
    """
    position, _, of = cursor.partition("/")
    return int(position) if of == str(outcomes) else 0


def read(context: Context, delivery: Delivery, found: Proofs, faults: Mapping[str, str]) -> Read:
    """Let the delivery's source read it. Pure: nothing is written. Raises `OurFault`."""
    if error := faults.get(delivery.id):
        return Read(delivery, unreadable=Unreadable(Reason.BUG, error))
    if false := found.false.get(delivery.id):
        return Read(delivery, unreadable=false)
    if delivery.id in found.waiting:
        return Read(delivery, waits=True)
    source = SOURCES.get(delivery.source)
    if source is None:
        error = f"no source is called {delivery.source!r} in this version"
        return Read(delivery, unreadable=Unreadable(Reason.UNKNOWN_SHAPE, error))
    try:
        return Read(delivery, source.parse(delivery, context.rules, time()))
    except Probe:
        return Read(delivery, is_probe=True)
    except Unreadable as unreadable:
        return Read(delivery, unreadable=unreadable)
    except Exception as failure:
        # fates: three tries, then this delivery is buried and the others go on
        raise OurFault(delivery.id) from failure


def settle(move: Move, one: Read) -> None:
    """Count the fate of one delivery in the books of `unpack`, and for its sender."""
    if one.waits:
        return
    fate = "ignored" if one.is_probe else "dead" if one.unreadable else "done"
    move.delivered(one.delivery.source, fate, one.delivery.received_at_ms)
    if one.is_probe:
        move.settle(Stage.UNPACK, "ignored")
    elif one.unreadable:
        attempts = BUG_TRIES if one.unreadable.reason is Reason.BUG else 1
        bury(move, one.delivery, one.unreadable, attempts)
    else:
        move.settle(Stage.UNPACK, "done")


def bury(move: Move, delivery: Delivery, why: Unreadable, attempts: int) -> None:
    """Bury a whole delivery, under its own id."""
    move.bury(
        Stage.UNPACK,
        why.reason,
        why.error,
        delivery.pack(),
        origin_of(delivery),
        attempts=attempts,
        dead_id=delivery.id,
    )
    move.settle(Stage.UNPACK, "dead")


def hand_over(context: Context, move: Move, found: Sequence[tuple[Delivery, Outcome]]) -> None:
    """Add what each outcome means to *move*. Raises `OurFault`."""
    email_format = context.settings.email_format
    for delivery, outcome in found:
        try:
            hand_over_one(move, delivery, outcome, email_format)
            move.tally(delivery.source, word_of(outcome))
        except Exception as failure:  # fates: as in `read`
            raise OurFault(delivery.id) from failure


def hand_over_one(
    move: Move, delivery: Delivery, outcome: Outcome, email_format: mail_events.EmailFormat
) -> None:
    """Add what one outcome means to *move*."""
    if isinstance(outcome, MailEvent):
        form = Form.HASHED if mail_events.is_hashed(outcome, email_format) else Form.OURS
        payload = mail_events.wire(outcome, email_format)
        fingerprint = mail_events.fingerprint(delivery.source, outcome)
        move.append_fresh(Stage.FORWARD, fingerprint, payload, origin_of(delivery, form).pack())
    elif isinstance(outcome, VisitorEvent):
        fingerprint = "visitor\n" + outcome.fingerprint
        payload = orjson.dumps(outcome)
        move.append_fresh(Stage.ENRICH, fingerprint, payload, origin_of(delivery).pack())
    elif isinstance(outcome, ScoreChange):
        move.append(Stage.SCORES, orjson.dumps(outcome), origin_of(delivery))
    elif isinstance(outcome, Ignored):
        move.new_ignored(outcome.stage)
    else:
        origin = origin_of(delivery, Form.RAW)
        move.bury(outcome.stage, Reason.INVALID, outcome.error, outcome.payload, origin)
        move.new_dead(outcome.stage)


def origin_of(delivery: Delivery, form: Form = Form.OURS) -> Origin:
    """Return what travels on of *delivery* with each of its events."""
    return Origin(delivery.source, delivery.received_at_ms, form, delivery.tag)

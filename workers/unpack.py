"""Unpack: takes deliveries apart and hands each event to its stage, past the seen marks.

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
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic, time
from typing import TYPE_CHECKING

import orjson
from redis.exceptions import RedisError

from pipeline import drills, imports, keys, mail_events, recipients, senders
from pipeline.arrivals import Fate, How, Note
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
    SetUp,
    Stage,
    Unaddressed,
    Unreadable,
    VisitorEvent,
)
from pipeline.queues import Entry
from pipeline.sources.registry import SOURCES
from workers import proofs
from workers.fates import BUG_TRIES, last_line

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

#: outcomes a move: 8 000 in one script would block Redis for 100 ms
SLICE = 500
# by names of their own, as in `sources.mail`
_FORWARD, _OURS, _HASHED = Stage.FORWARD, Form.OURS, Form.HASHED
#: bytes that are read at once; of a larger entry in a thread of its own: so long all else of the worker would wait
LARGE = 1 << 18
#: entries a take; each holds the deliveries of one flush
MOST_ENTRIES = 100
#: how soon a full server is looked at again; what it has to wait for are calls
FULL_AGAIN_S = 0.05


class OurFault(Exception):
    """Our own code failed on one delivery."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"delivery {delivery_id}")
        self.delivery_id = delivery_id


@dataclass(slots=True)
class Read:
    """One delivery as its source understood it: outcomes, or the fate of the whole."""

    delivery: Delivery
    outcomes: list[Outcome] = field(default_factory=list)
    is_probe: bool = False
    set_up: SetUp | None = None
    unreadable: Unreadable | None = None
    waits: bool = False


@dataclass(slots=True)
class Proofs:
    """The deliveries of an entry that are not simply taken apart, by their ids: false ones, and those that wait."""

    false: dict[str, Unreadable] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Opened:
    """An entry and what was read of it; *faults* are those that our code failed on for the last time."""

    entry: Entry
    deliveries: list[Delivery]
    found: Proofs = field(default_factory=Proofs)
    reads: list[Read] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def waits_on(self) -> bool:
        """Whether all of it waited for proofs, and does so still."""
        is_aside = self.entry.queue == keys.UNPROVEN
        return is_aside and len(self.found.waiting) == len(self.deliveries)

    def holds(self, fault: OurFault) -> bool:
        """Tell whether the delivery that our code failed on is one of this entry's."""
        is_known = fault.delivery_id in self.faults
        return not is_known and any(one.id == fault.delivery_id for one in self.deliveries)


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
                if moves and size + move.weight > SLICE:
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
    for some in handfuls(entries):
        opened = await open_up(context, [opened_of(entry) for entry in some], waiting)
        group += opened
        size += sum(len(read.outcomes) for one in opened for read in one.reads)
        if size >= SLICE:
            yield group
            group, size = [], 0
    if group:
        yield group


def handfuls(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Part *entries*, in their order, into as many at a time as are not large together, or one."""
    some: list[Entry] = []
    size = 0
    for entry in entries:
        more = sum(map(len, entry.payloads))
        if some and size + more > LARGE:
            yield some
            some, size = [], 0
        some.append(entry)
        size += more
    if some:
        yield some


def opened_of(entry: Entry) -> Opened:
    """Return an entry with its deliveries, of which nothing is read yet."""
    return Opened(entry, [Delivery.unpack(payload) for payload in entry.payloads])


async def open_up(context: Context, group: list[Opened], waiting: set[str]) -> list[Opened]:
    """Read every delivery of some entries; return those entries of which there is anything to move.

    There is not when all of one waits on, or our own code failed on it. The ids of deliveries that wait for a
    proof are added to *waiting*.
    """
    while True:
        try:
            for one in group:
                one.found = await prove(context, one)
                waiting |= one.found.waiting
            ready = [one for one in group if not one.waits_on]
            if sum(len(payload) for one in ready for payload in one.entry.payloads) > LARGE:
                await asyncio.to_thread(read_all, context, ready)
            else:
                read_all(context, ready)
        except OurFault as fault:
            failed = next(one for one in group if one.holds(fault))
            if not await is_to_be_buried(context, failed, fault):
                group = [one for one in group if one is not failed]
        else:
            return ready


async def moves_of(context: Context, opened: Opened, waiting: set[str]) -> AsyncIterator[Move]:
    """Make the moves that take an entry out, each when it is due; none when our own code failed on it.

    It may fail behind slices that have left. Then the entry stays in hand, and the next look begins at that place.
    """
    has_left = False
    while True:
        try:
            for move in make_moves(context, opened.entry, opened.reads):
                yield move
                if move.next_cursor:
                    has_left = True
                    await asyncio.sleep(0)
        except OurFault as fault:
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


async def prove(context: Context, opened: Opened) -> Proofs:
    """Find out which deliveries are false, and of which that cannot be said now. Raises `OurFault`."""
    found = Proofs()
    for delivery in opened.deliveries:
        if delivery.source not in proofs.ASKED or delivery.id in opened.faults:
            continue
        try:
            await proofs.check(context, delivery)
        except Unreadable as unreadable:
            found.false[delivery.id] = unreadable
        except proofs.Later:
            found.waiting.add(delivery.id)
        except (RedisError, OSError):
            raise
        except Exception as failure:  # fates: as in `read`
            raise OurFault(delivery.id) from failure
    return found


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


def make_moves(context: Context, entry: Entry, reads: Sequence[Read]) -> Iterator[Move]:
    """Make slices with a cursor, then the final move."""
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
    if waiting := [one.delivery for one in reads if one.waits]:  # nobody else waits for these
        set_aside(move, waiting)
    yield move


def set_aside(move: Move, waiting: Sequence[Delivery]) -> None:
    """Let *waiting* go on among those that wait for proofs; status reads since when from the first origin."""
    fields: list[str | bytes] = []
    for one in waiting:
        fields += ("p", one.pack(), "m", origin_of(one).pack())
    move.pass_on(keys.UNPROVEN, fields)


def begun(cursor: str, outcomes: int) -> int:
    """Return how many of *outcomes* were handed over by earlier slices.

    A cursor counts outcomes. When the same bytes give another number of them now, a new release reads them
    differently: all are handed over again, and the seen marks tell which ones came before.
    """
    position, _, of = cursor.partition("/")
    return int(position) if of == str(outcomes) else 0


def read_all(context: Context, group: Sequence[Opened]) -> None:
    """Let each delivery's source read it; pure, as `read` is. Raises `OurFault`.

    Those of one source are read one after the other: a processor that goes from source to source has forgotten the
    code of each when its turn comes again, which costs half as much as the reading.
    """
    each = [(one, delivery) for one in group for delivery in one.deliveries]
    each.sort(key=lambda pair: pair[1].source)
    reads = {id(delivery): read(context, delivery, one.found, one.faults) for one, delivery in each}
    for one in group:
        one.reads = [reads[id(delivery)] for delivery in one.deliveries]


def read(context: Context, delivery: Delivery, found: Proofs, faults: Mapping[str, str]) -> Read:
    """Let the delivery's source read it; *faults* are deliveries to bury, with the error.

    Pure: nothing is written. Raises `OurFault`.
    """
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
    except Probe as probe:
        brought = probe if isinstance(probe, SetUp) else None
        return Read(delivery, is_probe=True, set_up=brought)
    except Unreadable as unreadable:
        return Read(delivery, unreadable=unreadable)
    except Exception as failure:
        # fates: three tries, then this delivery is buried and the others go on
        raise OurFault(delivery.id) from failure


def settle(move: Move, one: Read) -> None:
    """Count the fate of one delivery in the books of `unpack`, and for its sender."""
    if one.waits:
        return
    fate: Fate = "ignored" if one.is_probe else "dead" if one.unreadable else "done"
    # a page that we fetched is no sign of life of the sender's webhook
    is_fetched = imports.HEADER in one.delivery.headers
    if not is_drill(one):
        move.arrived(note_of(one, fate, "fetched" if is_fetched else "hook"))
        move.delivered(one.delivery.source, fate, 0 if is_fetched else one.delivery.received_at_ms)
    if one.is_probe:
        move.settle(Stage.UNPACK, "ignored")
    elif one.unreadable:
        attempts = BUG_TRIES if one.unreadable.reason is Reason.BUG else 1
        bury(move, one.delivery, one.unreadable, attempts)
    else:
        move.settle(Stage.UNPACK, "done")


def note_of(one: Read, fate: Fate, how: How) -> Note:
    """Return what is to be known of a delivery once its body is gone."""
    delivery, kinds = one.delivery, [type(outcome) for outcome in one.outcomes]
    ignored, invalid = kinds.count(Ignored) + kinds.count(Unaddressed), kinds.count(Invalid)
    taken = len(kinds) - ignored - invalid
    at_ms, size = delivery.received_at_ms, len(delivery.body)
    events = (taken, ignored, invalid)
    return (delivery.id, delivery.source, 1, size, at_ms, how, fate, *events, delivery.tag or "")


def is_drill(one: Read) -> bool:
    """Tell whether a delivery holds a drill and nothing else: then it is no sign of life of a sender."""
    if one.delivery.source != drills.SOURCE or len(one.outcomes) != 1:
        return False
    return drills.number_of(one.outcomes[0]) is not None


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
            if delivery.source == drills.SOURCE and (number := drills.number_of(outcome)):
                hand_over_drill(move, delivery, outcome, number)
                continue
            hand_over_one(move, delivery, outcome, email_format)
            move.tally(delivery.source, senders.word_of(outcome))
        except Exception as failure:  # fates: as in `read`
            raise OurFault(delivery.id) from failure


def hand_over_drill(move: Move, delivery: Delivery, outcome: Outcome, number: str) -> None:
    """Send a drill on, past the seen marks and the sender's numbers."""
    assert isinstance(outcome, MailEvent)  # noqa: S101 - what has a number is one
    payload = mail_events.wire(outcome, "sha256")
    move.append(_FORWARD, payload, origin_of(delivery, Form.DRILL))
    mark = keys.drill(number, Stage.UNPACK).removeprefix(keys.PREFIX)
    move.remember(mark, drills.KEEP_MS)


def hand_over_one(
    move: Move, delivery: Delivery, outcome: Outcome, email_format: mail_events.EmailFormat
) -> None:
    """Add what one outcome means to *move*."""
    if isinstance(outcome, MailEvent):
        form = _HASHED if mail_events.is_hashed(outcome, email_format) else _OURS
        payload = mail_events.wire(outcome, email_format)
        fingerprint = mail_events.fingerprint(delivery.source, outcome)
        move.append_fresh(_FORWARD, fingerprint, payload, origin_of(delivery, form).pack())
    elif isinstance(outcome, VisitorEvent):
        fingerprint = "visitor\n" + outcome.fingerprint
        payload = orjson.dumps(outcome)
        move.append_fresh(Stage.ENRICH, fingerprint, payload, origin_of(delivery).pack())
    elif isinstance(outcome, ScoreChange):
        move.append(Stage.SCORES, orjson.dumps(outcome), origin_of(delivery))
        move.pushed(delivery.source, delivery.received_at_ms)
    elif isinstance(outcome, Ignored):
        move.new_ignored(outcome.stage)
    else:
        origin = origin_of(delivery, Form.RAW)
        move.bury(outcome.stage, Reason.INVALID, outcome.error, outcome.payload, origin)
        move.new_dead(outcome.stage)


def origin_of(delivery: Delivery, form: Form = Form.OURS) -> Origin:
    """Return what travels on of *delivery* with each of its events."""
    return Origin(delivery.source, delivery.received_at_ms, form, delivery.tag)

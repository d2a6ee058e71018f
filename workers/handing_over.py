"""Handing over: the moves that take an entry out of the inbox and do all that follows from what was read of it.

Appends past the seen marks, duplicates, ignored ones, dead letters, counters, the note for the operators: one move each
for so many outcomes as do not block Redis for long, with a cursor in the entry between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import orjson

from pipeline import drills, imports, keys, mail_events, senders
from pipeline.arrivals import Fate, How, Note
from pipeline.deliveries import Delivery
from pipeline.moves import Move
from pipeline.origins import Form, Origin
from pipeline.outcomes import (
    Ignored,
    Invalid,
    MailEvent,
    Outcome,
    Reason,
    ScoreChange,
    Stage,
    Unaddressed,
    Unreadable,
    VisitorEvent,
)
from pipeline.queues import Entry
from workers.fates import BUG_TRIES
from workers.reading import OurFault, Read

if TYPE_CHECKING:
    from workers.context import Context


#: outcomes a move: 8 000 in one script would block Redis for 100 ms
SLICE = 500
# by names of their own, as in `sources.mail`
_FORWARD, _OURS, _HASHED = Stage.FORWARD, Form.OURS, Form.HASHED


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
        settle(move, one, is_retried=entry.is_retried)
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


def settle(move: Move, one: Read, *, is_retried: bool) -> None:
    """Count the fate of one delivery in the books of `unpack`, and for its sender."""
    if one.waits:
        return
    fate: Fate = "ignored" if one.is_probe else "dead" if one.unreadable else "done"
    if one.span is not None:
        one.span.set_attributes({"relay.fate": fate, "relay.outcomes": len(one.outcomes)})
        move.spans = [*(move.spans or ()), one.span]
    # a page that we fetched is no sign of life of the sender's webhook
    is_fetched = imports.HEADER in one.delivery.headers
    if one.drilled is not None:
        number, note = one.drilled
        move.remember(keys.drill(number, Stage.UNPACK), drills.KEEP_MS, note)
    elif not is_drill(one):
        how: How = "retried" if is_retried else "fetched" if is_fetched else "hook"
        move.arrived(note_of(one, fate, how))
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
    delivery, taken, ignored, invalid = one.delivery, 0, 0, 0
    for outcome in one.outcomes:
        kind = type(outcome)
        if kind is MailEvent:
            taken += 1
        elif kind is Ignored or kind is Unaddressed:
            ignored += 1
        elif kind is Invalid:
            invalid += 1
        else:
            taken += 1
    at_ms, size, tag = delivery.received_at_ms, len(delivery.body), delivery.tag or ""
    name, source = delivery.id, delivery.source
    return name, source, 1, size, at_ms, how, fate, taken, ignored, invalid, tag


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
    move.remember(keys.drill(number, Stage.UNPACK), drills.KEEP_MS)


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
        if delivery.tag and outcome.event_type is None:
            # somebody who is on a list: which one it is only the tag says
            fingerprint += "\n" + delivery.tag
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
    return Origin(delivery.source, delivery.received_at_ms, form, delivery.tag, delivery.trace)

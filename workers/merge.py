"""Merge: the first step of `enrich`, adds every sighting to its visitor and hands on the visitor's address.

It needs no vendor. A visitor of whom too little is known then waits, in the same stage, for `look_up`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import monotonic
from typing import TYPE_CHECKING

import orjson
from redis.exceptions import RedisError

from pipeline import keys, visitors
from pipeline.addresses import digest, is_hash
from pipeline.clock import DAY_MS, iso, redis_now_ms
from pipeline.moves import Move, Result
from pipeline.origins import Form, Origin
from pipeline.outcomes import Person, Stage, VisitorEvent
from pipeline.queues import Entry
from pipeline.visitors import Visitor
from workers import mishaps
from workers.scores import save

if TYPE_CHECKING:
    from workers.context import Context

MOST_ENTRIES = 100
#: a fifth is left to what came back from the dead letters, which has as much of the calls
MOST_NEW = 80
_OF_PERSON = frozenset(field.name for field in fields(Person))
_OF_EVENT = frozenset(field.name for field in fields(VisitorEvent))
#: whom AudienceLab was asked about is remembered for 30 days, found or not
REMEMBER_MS = 30 * DAY_MS


async def merge_all(context: Context, until: float) -> None:
    """Merge until nothing new waits, the worker stops, or monotonic *until*."""
    while not context.stopping.is_set() and monotonic() < until:
        if not await merge_some(context):
            return


async def merge_some(context: Context) -> int:
    """Merge one take of what waits, then of what came back from the dead letters; return how many entries they had."""
    stage, retried = Stage.ENRICH, keys.retried(Stage.ENRICH)
    new = await context.queues.take(stage, stage, most=MOST_NEW, other=retried)
    if new.entries:
        await merge_entries(context, new.entries)
    if not new.others:
        return len(new.entries)
    again = await context.queues.take(retried, stage, most=MOST_ENTRIES - len(new.entries))
    if again.entries:
        await merge_entries(context, again.entries)
    return len(new.entries) + len(again.entries)


async def merge_entries(context: Context, entries: Sequence[Entry]) -> None:
    """Merge *entries* in one call to Redis; those whose visitor changed meanwhile are merged again."""
    fresh = list(entries)
    for _ in range(10):
        try:
            moves = await Merge(context, fresh).moves()
        except (RedisError, OSError):
            raise
        except Exception as failure:  # ours: the culprit is found alone
            await merge_alone(context, fresh, failure)
            return
        if not moves:
            return
        moved = await context.mover.apply(moves)
        await context.ring(moved.bells, set[Stage]().union(*(move.feeds for move in moves)))
        again = [
            entry
            for entry, result in zip(fresh, moved.results, strict=True)
            if result is Result.CHANGED
        ]
        forgotten = [
            forget(entry)
            for entry, result in zip(fresh, moved.results, strict=True)
            if result is Result.TOMBSTONE
        ]
        if forgotten:
            await context.mover.apply(forgotten)
        fresh = again
    for queue in {entry.queue for entry in fresh}:
        left = [entry.id for entry in fresh if entry.queue == queue]
        await context.queues.give_back(queue, left)


async def merge_alone(context: Context, entries: Sequence[Entry], failure: Exception) -> None:
    """Merge each of *entries* on its own; a single one has failed by itself."""
    if len(entries) == 1:
        await mishaps.failed(context, Stage.ENRICH, entries[0], failure)
        return
    for entry in entries:
        await merge_entries(context, [entry])


def forget(entry: Entry) -> Move:
    """Make the move of a sighting of somebody who must not come back."""
    move = Move(entry.queue, [entry.id])
    move.settle(Stage.ENRICH, "ignored")
    return move


@dataclass(slots=True)
class Sighting:
    """One entry of the queue, understood."""

    entry: Entry
    event: VisitorEvent
    origin: Origin


class Merge:
    """Merges a group of sightings: reads all visitors at once, then makes one move for each entry.

    The moves are carried out in their order, so a later one may build on what an earlier one wrote; when an
    earlier one does not happen, the later one's version does not fit and it is merged again.
    """

    def __init__(self, context: Context, entries: Sequence[Entry]) -> None:
        self._context = context
        self._sightings = [
            Sighting(entry, event_of(entry.payloads[0]), Origin.unpack(entry.origins[0]))
            for entry in entries
        ]
        self._visitors: dict[str, Visitor] = {}
        self._owners: dict[str, str] = {}
        self._asked: set[str] = set()

    async def moves(self) -> list[Move]:
        """Return one move for each entry, in their order."""
        if not self._sightings:
            return []
        context = self._context
        people = [sighting.event.person for sighting in self._sightings]
        ids = [visitors.visitor_id(person) for person in people]
        digests = visitors.unique(name for person in people for name in digests_of(person))
        self._owners = await visitors.owners(context.redis, digests)
        wanted = visitors.unique([*(name for name in ids if name), *self._owners.values()])
        self._visitors = await visitors.fetch(context.redis, wanted)
        self._asked = await self._asked_lately(wanted)
        now_ms = await redis_now_ms(context.redis)
        return [await self._move(sighting, now_ms) for sighting in self._sightings]

    async def _asked_lately(self, ids: Sequence[str]) -> set[str]:
        async with self._context.redis.pipeline(transaction=False) as pipe:
            for name in ids:
                pipe.exists(keys.enrichment(digest(name)))
            rows = await pipe.execute()
        return {name for name, row in zip(ids, rows, strict=True) if row}

    async def _move(self, sighting: Sighting, now_ms: int) -> Move:
        context, event = self._context, sighting.event
        move = Move(sighting.entry.queue, [sighting.entry.id])
        visitor = self._visitor_of(event.person)
        if visitor is None:
            move.settle(Stage.ENRICH, "ignored")
            return move
        versions = {visitor.id: visitor.version}
        origin = sighting.origin
        before = visitor.document() if visitor.version else None
        visitors.merge(visitor, event, source=origin.source, tag=origin.tag, now=iso(now_ms))
        for other in self._same_person(visitor):
            versions[other.id] = other.version
            visitors.absorb(visitor, other)
            move.absorb_visitor(other.id)
            self._visitors.pop(other.id)
        move.versions = versions
        move.macs = await context.tombstones.macs(visitor.identities)
        # an old sighting that comes again, past its seen mark, must not keep anybody for another year
        is_news = visitor.document() != before
        if is_news:
            save(context, move, visitor, now_ms)
            for name in visitor.digests:
                move.alias(name, visitor.id, context.visitor_keep_ms)
                self._owners[name] = visitor.id
        hand_on(context, move, visitor, origin)
        if is_news or not visitor.enriched_at:
            self._ask_or_settle(move, visitor, sighting)
        else:
            move.settle(Stage.ENRICH, "done")
        return move

    def _visitor_of(self, person: Person) -> Visitor | None:
        name = visitors.visitor_id(person)
        if name is None:
            return None
        if not (person.uuid or person.edid):  # known by a hash only: whoever the hash belongs to
            name = self._owners.get(name, name)
        return self._visitors.setdefault(name, Visitor(name))

    def _same_person(self, visitor: Visitor) -> list[Visitor]:
        """Return the visitors that were known by one address's hash only and turn out to be *visitor*."""
        found = [self._visitors.get(name) for name in visitor.digests if name != visitor.id]
        return [other for other in found if other and other.version]

    def _ask_or_settle(self, move: Move, visitor: Visitor, sighting: Sighting) -> None:
        if visitor.id in self._asked or not needs_enrichment(self._context, visitor):
            move.settle(Stage.ENRICH, "done")
            return
        self._asked.add(visitor.id)
        move.remember(keys.enrichment(digest(visitor.id)), REMEMBER_MS)
        entry = sighting.entry
        move.pass_on(keys.batches(entry.queue), ["p", entry.payloads[0], "m", entry.origins[0]])


def digests_of(person: Person) -> list[str]:
    """Return the hashes of all addresses of *person*."""
    visitor = Visitor("")
    visitors.add_facts(visitor, person)
    return visitor.digests


def event_of(payload: bytes) -> VisitorEvent:
    """Read a visitor event as `unpack` wrote it, in this version or a newer one, which may know more of somebody."""
    stored = orjson.loads(payload)
    person = {name: one for name, one in stored["person"].items() if name in _OF_PERSON}
    event = {name: one for name, one in stored.items() if name in _OF_EVENT}
    return VisitorEvent(**event | {"person": Person(**person)})


def needs_enrichment(context: Context, visitor: Visitor) -> bool:
    """Tell whether AudienceLab is to be asked about *visitor*, and there is something to ask by."""
    wish = context.settings.enrich
    if wish == "off" or not (visitor.emails or visitor.digests or visitor.phones):
        return False
    return wish == "always" or not (visitor.is_named or visitor.verified_emails)


def hand_on(context: Context, move: Move, visitor: Visitor, origin: Origin) -> None:
    """Queue the addresses of *visitor* that `SUBSCRIBE` names; count those that it does not."""
    identified = visitor.identified_address()
    wanted = {
        "off": [],
        "identified": [identified] if identified else [],
        "verified": visitor.verified_emails,
        "all": [*visitor.emails, *unknown_hashes(visitor)],
    }[context.settings.subscribe]
    for address in visitors.unique(wanted):
        leaves, form = as_it_leaves(context, address)
        meta = Origin(origin.source, origin.first_seen_at_ms, form, origin.tag, origin.trace)
        move.subscribe(digest(address), leaves, meta)
    if identified and not wanted:
        move.new_ignored(Stage.SUBSCRIBE)


def unknown_hashes(visitor: Visitor) -> list[str]:
    """Return the hashes of addresses that are not known in plain."""
    known = {digest(mail) for mail in visitor.emails}
    return [name for name in visitor.digests if name not in known]


def as_it_leaves(context: Context, address: str) -> tuple[str, Form]:
    """Return *address* in the form that `EMAIL_FORMAT` wants, and which form that is."""
    if is_hash(address) or context.settings.email_format == "sha256":
        return digest(address), Form.HASHED
    return address, Form.OURS

"""Enrich: keeps who was seen, asks AudienceLab about those it told too little of, hands on their addresses.

Two steps. *Merge* adds every visitor event to its visitor and queues the identified address for `subscribe`;
it needs no vendor, so AudienceLab being down delays nobody who is known already. A visitor without a name and
a verified address then waits, in the same stage, for *look up*: one call by e-mail, else by hash, else by
phone. "Not found" is an answer too and is remembered for thirty days.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, cast

import orjson
from redis.exceptions import RedisError

from pipeline import keys, visitors
from pipeline.addresses import digest, is_hash
from pipeline.clock import iso, redis_now_ms
from pipeline.deliveries import Delivery
from pipeline.moves import Move, Result
from pipeline.origins import Form, Origin
from pipeline.outcomes import Person, Stage, VisitorEvent
from pipeline.queues import Entry, Sealed
from pipeline.sources import Rules
from pipeline.sources.registry import SOURCES
from pipeline.visitors import Visitor
from workers import mishaps
from workers.clients.audiencelab import AudienceLab
from workers.dispatch import Batch, Dispatch, Item
from workers.fates import Verdict
from workers.scores import save

if TYPE_CHECKING:
    from workers.context import Context

MOST_ENTRIES = 100
#: contract of the stage: "not found is remembered for 30 days"
REMEMBER_MS = 30 * 86_400_000


async def enrich(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the stage: merge what is new, then look up who is missing."""
    await merge_all(context, until)
    if context.audiencelab is None:
        return
    looking_up = asyncio.create_task(
        Dispatch(context, LookUp(context, context.audiencelab)).drain(wake, until)
    )
    try:
        while (
            not looking_up.done()
        ):  # an AudienceLab that hangs must not delay who is known already
            if context.stopping.is_set() or not await merge_some(context):
                await asyncio.wait({looking_up}, timeout=context.timing.merge_every_s)
    finally:
        if not looking_up.done():
            looking_up.cancel()
        await looking_up


async def merge_all(context: Context, until: float) -> None:
    """Merge until nothing new waits, the worker stops, or monotonic *until*."""
    while not context.stopping.is_set() and monotonic() < until:
        if not await merge_some(context):
            return


async def merge_some(context: Context) -> int:
    """Merge one take of what waits; return how many entries it had."""
    taken = await context.queues.take(Stage.ENRICH, Stage.ENRICH, most=MOST_ENTRIES)
    if taken.entries:
        await merge_entries(context, taken.entries)
    return len(taken.entries)


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
    await context.queues.give_back(Stage.ENRICH, [entry.id for entry in fresh])


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
        visitors.merge(visitor, event, source=origin.source, tag=origin.tag, now=iso(now_ms))
        for other in self._same_person(visitor):
            versions[other.id] = other.version
            visitors.absorb(visitor, other)
            move.absorb_visitor(other.id)
            self._visitors.pop(other.id)
        move.versions = versions
        move.macs = await context.tombstones.macs(visitor.identities)
        save(context, move, visitor, now_ms)
        for name in visitor.digests:
            move.alias(name, visitor.id, context.visitor_keep_ms)
            self._owners[name] = visitor.id
        hand_on(context, move, visitor, origin)
        self._ask_or_settle(move, visitor, sighting)
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
        move.remember(f"enrichment:{digest(visitor.id)}", REMEMBER_MS)
        entry = sighting.entry
        move.pass_on(keys.batches(Stage.ENRICH), ["p", entry.payloads[0], "m", entry.origins[0]])


def digests_of(person: Person) -> list[str]:
    """Return the hashes of all addresses of *person*."""
    visitor = Visitor("")
    visitors.add_facts(visitor, person)
    return visitor.digests


def event_of(payload: bytes) -> VisitorEvent:
    """Read a visitor event as `unpack` wrote it."""
    stored = orjson.loads(payload)
    return VisitorEvent(**{**stored, "person": Person(**stored["person"])})


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
        meta = Origin(origin.source, origin.first_seen_at_ms, form, origin.tag)
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


class LookUp:
    """The errand of the stage `enrich`: one visitor a call."""

    stage = Stage.ENRICH
    vendor = "audiencelab"
    rank = 0

    def __init__(self, context: Context, client: AudienceLab) -> None:
        self._context = context
        self._client = client
        self.calls_per_s = context.settings.audiencelab_rate

    async def seal(self) -> Sealed:
        """Do nothing: merging makes a batch of each visitor to ask about."""
        return Sealed(0, None)

    async def call(self, items: Sequence[Item]) -> list[dict[str, object]]:
        """Ask by e-mail, else by hash, else by phone."""
        event = event_of(items[0].payload)
        visitor = await self._visitor(event)
        if visitor.emails:
            return await self._client.enrich(email=visitor.emails[0])
        if visitor.digests:
            return await self._client.enrich(hem_sha256=visitor.digests[0])
        if visitor.phones:
            return await self._client.enrich(phone=visitor.phones[0])
        return []

    async def _visitor(self, event: VisitorEvent) -> Visitor:
        """Return the visitor as it is now; the event's own facts when it is gone."""
        name = visitors.visitor_id(event.person) or ""
        if not (event.person.uuid or event.person.edid) and is_hash(name):
            name = (await visitors.owners(self._context.redis, [name])).get(name, name)
        known = (await visitors.fetch(self._context.redis, [name])).get(name)
        if known is None:
            known = Visitor(name)
            visitors.add_facts(known, event.person)
        return known

    async def settle(self, move: Move, batch: Batch, answer: object) -> str:
        """Merge what AudienceLab told, keep the visitor, hand on addresses that are new."""
        context, item = self._context, batch.items[0]
        origin = Origin.unpack(item.origin)
        visitor = await self._visitor(event_of(item.payload))
        move.versions = {visitor.id: visitor.version}
        now_ms = await redis_now_ms(context.redis)
        person = person_of(cast(list[dict[str, object]], answer))
        if person is not None:
            visitors.add_facts(visitor, person, is_newer=False)
        visitor.enriched_at = iso(now_ms)
        visitor.enrichment = "found" if person else "not found"
        move.macs = await context.tombstones.macs(visitor.identities)
        save(context, move, visitor, now_ms)
        for name in visitor.digests:
            move.alias(name, visitor.id, context.visitor_keep_ms)
        if person is not None:
            hand_on(context, move, visitor, origin)
        move.settle(self.stage, "done")
        return visitor.enrichment

    def bury(self, move: Move, item: Item, verdict: Verdict, error: str, attempts: int) -> None:
        """Bury one visitor event; a retry asks again."""
        origin = Origin.unpack(item.origin)
        move.bury(self.stage, verdict.reason, error, item.payload, origin, attempts=attempts)
        name = visitors.visitor_id(event_of(item.payload).person)
        move.remember(f"enrichment:{digest(name or '')}", 1)
        move.settle(self.stage, "dead")

    def identities(self, item: Item) -> list[str]:
        """Return everything that the event knows its person by."""
        visitor = Visitor("")
        visitors.add_facts(visitor, event_of(item.payload).person)
        return visitor.identities


def person_of(rows: list[dict[str, object]]) -> Person | None:
    """Return the person that AudienceLab's first row tells of, read as its webhooks are."""
    if not rows:
        return None
    delivery = Delivery("enrichment", "workflow", orjson.dumps({"visitor": rows[0]}), 0)
    outcomes = SOURCES["workflow"].parse(delivery, Rules(), 0.0)
    found = [outcome.person for outcome in outcomes if isinstance(outcome, VisitorEvent)]
    return found[0] if found else None

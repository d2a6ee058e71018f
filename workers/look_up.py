"""Look up: the second step of `enrich`, asks AudienceLab about a visitor of whom too little is known.

One call by e-mail, else by hash, else by phone. "Not found" is an answer too and is remembered for thirty days.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from pipeline import bulk_jobs, keys, visitors
from pipeline.addresses import digest, is_hash
from pipeline.clock import iso, redis_now_ms
from pipeline.deliveries import Delivery
from pipeline.moves import Move
from pipeline.origins import Origin
from pipeline.outcomes import Person, Stage, Unreadable, VisitorEvent
from pipeline.queues import Entry, Sealed
from pipeline.sources import Rules
from pipeline.sources.registry import SOURCES
from pipeline.visitors import Visitor
from workers.batches import Batch, Item
from workers.clients.audiencelab import AudienceLab
from workers.clients.errors import Misconfigured, Unavailable
from workers.dispatch import Uncalled
from workers.fates import Verdict
from workers.merge import event_of, hand_on
from workers.scores import save
from workers.switched_off import finish

if TYPE_CHECKING:
    from workers.context import Context


class LookUp:
    """The errand of the stage `enrich`: one visitor a call."""

    stage = Stage.ENRICH
    vendor = "audiencelab"
    rank = 0
    in_batches = False

    def __init__(self, context: Context, client: AudienceLab) -> None:
        self._context = context
        self._client = client
        self.calls_per_s = context.settings.audiencelab_rate

    async def seal(self) -> Sealed:
        """Seal a bulk job when many wait; merging has made a batch of each visitor to ask about."""
        settings = self._context.settings
        await bulk_jobs.seal(self._context.redis, settings.enrich_bulk_from)
        return Sealed(0, None)

    async def call(self, items: Sequence[Item]) -> Person | Uncalled | None:
        """Ask by e-mail, else by hash, else by phone; None: nobody is known.

        A service that cannot be asked by the only fact there is knows nobody by it, and is not asked.

        A row without one column of a person is an answer without the expected keys, whoever was asked about.
        """
        try:
            rows = await self._rows(items)
            return Uncalled() if rows is None else person_of(rows)
        except Unreadable as error:
            sentence = f"AudienceLab answered with a row that tells of no person ({error.error})"
            raise Unavailable(sentence, status=200) from None

    async def _rows(self, items: Sequence[Item]) -> list[dict[str, object]] | None:
        event = event_of(items[0].payload)
        fact = fact_of(await self._visitor(event))
        if fact is None or not self._client.can_enrich_by(fact[0]):
            return None
        try:
            return await self._client.enrich(**dict([fact]))
        except Misconfigured:
            if self._client.can_enrich_by(fact[0]):
                raise
            return None  # the first such visitor of all: now it is known

    async def _visitor(self, event: VisitorEvent) -> Visitor:
        """Return the visitor as it is now; the event's own facts when it is gone."""
        return (await visitors_of(self._context, [event]))[0]

    async def settle(self, move: Move, batch: Batch, answer: object) -> str:
        """Merge what AudienceLab told, keep the visitor, hand on addresses that are new."""
        context, item = self._context, batch.items[0]
        origin = Origin.unpack(item.origin)
        visitor = await self._visitor(event_of(item.payload))
        move.versions = {visitor.id: visitor.version}
        now_ms = await redis_now_ms(context.redis)
        learn(visitor, answer if isinstance(answer, Person) else None, now_ms)
        await write(context, move, visitor, origin, now_ms)
        move.settle(self.stage, "done")
        return visitor.enrichment or ""

    async def bury(
        self, move: Move, item: Item, verdict: Verdict, error: str, attempts: int
    ) -> None:
        """Bury one visitor event; a retry asks again, and so does its visitor's next sighting."""
        origin = Origin.unpack(item.origin)
        move.bury(self.stage, verdict.reason, error, item.payload, origin, attempts=attempts)
        await may_be_asked_about(self._context, move, item.payload)
        move.settle(self.stage, "dead")

    def identities(self, item: Item) -> list[str]:
        """Return everything that the event knows its person by."""
        visitor = Visitor("")
        visitors.add_facts(visitor, event_of(item.payload).person)
        return visitor.identities


def fact_of(visitor: Visitor) -> tuple[str, str] | None:
    """Return what to ask by, as `AudienceLab.enrich` calls it: e-mail, else hash, else phone; None for nothing."""
    facts = {"email": visitor.emails, "hem_sha256": visitor.digests, "phone": visitor.phones}
    return next(((name, known[0]) for name, known in facts.items() if known), None)


def learn(visitor: Visitor, person: Person | None, now_ms: int) -> None:
    """Add what AudienceLab told, which is older than what was seen; None: it knows nobody."""
    if person is not None:
        visitors.add_facts(visitor, person, is_newer=False)
    visitor.enriched_at = iso(now_ms)
    visitor.enrichment = "found" if person else "not found"


async def write(
    context: Context, move: Move, visitor: Visitor, origin: Origin, now_ms: int
) -> None:
    """Add to *move* the writing of a *visitor* that was asked about, and the addresses to hand on."""
    move.macs = [*move.macs, *await context.tombstones.macs(visitor.identities)]
    save(context, move, visitor, now_ms)
    for name in visitor.digests:
        move.alias(name, visitor.id, context.visitor_keep_ms)
    if visitor.enrichment == "found":
        hand_on(context, move, visitor, origin)


async def visitors_of(context: Context, events: Sequence[VisitorEvent]) -> list[Visitor]:
    """Return the visitors as they are now, one object for each of them; the event's own facts of who is gone."""
    names = await owners_of(context, events)
    known = await visitors.fetch(context.redis, visitors.unique(names))
    for name, event in zip(names, events, strict=True):
        if name not in known:
            known[name] = Visitor(name)
            visitors.add_facts(known[name], event.person)
    return [known[name] for name in names]


async def owners_of(context: Context, events: Sequence[VisitorEvent]) -> list[str]:
    """Return the id of the visitor that each event's person is now: known by a hash only, whoever it belongs to."""
    names = [visitors.visitor_id(event.person) or "" for event in events]
    by_hash = [
        is_hash(name) and not (event.person.uuid or event.person.edid)
        for name, event in zip(names, events, strict=True)
    ]
    hashes = [name for name, is_one in zip(names, by_hash, strict=True) if is_one]
    owners = await visitors.owners(context.redis, visitors.unique(hashes))
    return [
        owners.get(name, name) if is_one else name
        for name, is_one in zip(names, by_hash, strict=True)
    ]


async def may_be_asked_about(context: Context, move: Move, payload: bytes) -> None:
    """Add to *move* that the visitor of the event in *payload* was not asked about."""
    try:
        event = event_of(payload)
    except (ValueError, TypeError, KeyError):
        return  # written by another version: nobody can tell whom it is about
    (name,) = await owners_of(context, [event])
    move.remember(keys.enrichment(digest(name)), 1)


async def leave_unasked(context: Context, until: float) -> None:
    """Finish what waits to be asked about: `ENRICH=off` asks about nobody. All of it is merged already."""

    async def end(batch: Entry) -> Move:
        move = Move(batch.queue, [batch.id])
        move.settle(Stage.ENRICH, "done", len(batch.payloads))
        for payload in batch.payloads:
            await may_be_asked_about(context, move, payload)
        return move

    await finish(context, Stage.ENRICH, until, end)


def person_of(rows: list[dict[str, object]]) -> Person | None:
    """Return the person that AudienceLab's first row tells of, read as its webhooks are."""
    if not rows:
        return None
    delivery = Delivery("enrichment", "workflow", orjson.dumps({"visitor": rows[0]}), 0)
    outcomes = SOURCES["workflow"].parse(delivery, Rules(), 0.0)
    found = [outcome.person for outcome in outcomes if isinstance(outcome, VisitorEvent)]
    return found[0] if found else None

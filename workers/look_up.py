"""Look up: the second step of `enrich`, asks AudienceLab about a visitor of whom too little is known.

One call by e-mail, else by hash, else by phone. "Not found" is an answer too and is remembered for thirty days.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import orjson

from pipeline import visitors
from pipeline.addresses import is_hash
from pipeline.clock import iso, redis_now_ms
from pipeline.deliveries import Delivery
from pipeline.moves import Move
from pipeline.origins import Origin
from pipeline.outcomes import Person, Stage, VisitorEvent
from pipeline.queues import Entry, Sealed
from pipeline.sources import Rules
from pipeline.sources.registry import SOURCES
from pipeline.visitors import Visitor
from workers.clients.audiencelab import AudienceLab
from workers.dispatch import Batch, Item
from workers.fates import Verdict
from workers.merge import asked_about, event_of, hand_on
from workers.scores import save
from workers.switched_off import finish

if TYPE_CHECKING:
    from workers.context import Context


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
        name = await owner_of(self._context, event)
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


async def owner_of(context: Context, event: VisitorEvent) -> str:
    """Return the id of the visitor that the event's person is now: known by a hash only, whoever it belongs to."""
    name = visitors.visitor_id(event.person) or ""
    if not (event.person.uuid or event.person.edid) and is_hash(name):
        return (await visitors.owners(context.redis, [name])).get(name, name)
    return name


async def may_be_asked_about(context: Context, move: Move, payload: bytes) -> None:
    """Add to *move* that the visitor of the event in *payload* was not asked about."""
    try:
        event = event_of(payload)
    except (ValueError, TypeError, KeyError):
        return  # written by another version: nobody can tell whom it is about
    move.remember(asked_about(await owner_of(context, event)), 1)


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

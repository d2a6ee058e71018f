"""Bulk results: what a finished bulk job says, read from its file and written to the visitors.

Parts of a job leave by moves, which write each visitor as a single call would. After a crash between two of them the
next step merges those that are left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from pipeline import bulk_jobs, keys
from pipeline.bulk_jobs import BulkJob
from pipeline.clock import redis_now_ms
from pipeline.endpoints import Endpoint
from pipeline.moves import Argument, Move, Result
from pipeline.origins import Origin
from pipeline.outcomes import Person, Stage
from pipeline.queues import Entry
from pipeline.visitors import Visitor
from workers.batches import attempts
from workers.bulk_rows import Answer, Rows
from workers.clients.audiencelab import AudienceLab, EnrichmentJob
from workers.clients.errors import Unavailable
from workers.look_up import learn, visitors_of, write
from workers.merge import event_of

if TYPE_CHECKING:
    from workers.context import Context

#: a file of a thousand people is 2 MB
FILE_DEADLINE_S = 45.0


class BulkResults:
    """Reads the results of bulk jobs and merges them."""

    def __init__(self, context: Context, client: AudienceLab) -> None:
        self._context = context
        self._client = client

    async def read(self, told: EnrichmentJob, job: BulkJob, parts: Sequence[Entry]) -> Rows:
        """Read the result file for everybody who was asked about."""
        events = [event_of(payload) for part in parts for payload in part.payloads]
        people = await visitors_of(self._context, events)
        places = [f"{part.id}/{n}" for part in parts for n in range(len(part.payloads))]
        rows = Rows(
            {
                name
                for place, visitor in zip(places, people, strict=True)
                for name in names_of(visitor, job, place)
            }
        )
        with self._context.tally.counted(Endpoint.BULK):
            await self._read_file(told, rows)
        return rows

    async def _read_file(self, told: EnrichmentJob, rows: Rows) -> None:
        """Add all rows of the result file to *rows*."""
        try:
            async with (
                asyncio.timeout(FILE_DEADLINE_S),
                aclosing(self._client.enrichment_rows(told)) as file,
            ):
                async for row in file:
                    rows.add(row)
        except TimeoutError:
            raise Unavailable("AudienceLab's result file takes too long") from None

    async def merge(self, job: BulkJob, parts: Sequence[Entry], answer: Answer) -> str:
        """Merge the result, part by part. Whom a whole result does not name, AudienceLab does not know."""
        redis = self._context.redis
        if answer.people:  # those who are left after a crash may well be the ones that nobody knows
            lease_s = self._context.timing.bulk_lease_s
            await bulk_jobs.go_on(redis, job, lease_s, changed={"has_fitted": 1})
        for part in parts:
            await self._merge_part(job, part, answer)
        await bulk_jobs.end(redis, job)
        return f"merged parts={len(parts)}"

    async def _merge_part(self, job: BulkJob, part: Entry, answer: Answer) -> None:
        context, may_be_forgotten = self._context, False
        for _ in range(10):  # a visitor may change between reading and writing
            move = await self._move(job, part, answer, may_be_forgotten=may_be_forgotten)
            moved = await context.mover.apply([move])
            match moved.results[0]:
                case Result.CHANGED:
                    continue
                case Result.TOMBSTONE:
                    may_be_forgotten = True
                    continue
            await context.ring(moved.bells, move.feeds)
            return
        raise Unavailable(
            f"visitors changed ten times while part {part.id} of {job.name} was written",
            maybe_stored=True,
        )

    async def _move(
        self, job: BulkJob, part: Entry, answer: Answer, *, may_be_forgotten: bool
    ) -> Move:
        """Make the move that takes *part* out and writes what was found, each visitor as a single call would.

        Those about whom the *answer* says nothing certain wait for a single call.
        """
        context = self._context
        people = await visitors_of(context, [event_of(payload) for payload in part.payloads])
        now_ms = await redis_now_ms(context.redis)
        told = told_about(people, job, part, answer)
        forgotten = await forgotten_among(context, people) if may_be_forgotten else set[str]()
        move = Move(part.queue, [part.id])
        left = [n for n, visitor in enumerate(people) if visitor.id not in forgotten]
        first = {people[n].id: n for n in reversed(left) if people[n].id in told}
        move.versions = {visitor_id: people[n].version for visitor_id, n in first.items()}
        for visitor_id, n in sorted(first.items(), key=lambda pair: pair[1]):
            learn(people[n], told[visitor_id], now_ms)
            await write(context, move, people[n], Origin.unpack(part.origins[n]), now_ms)
        move.settle(Stage.ENRICH, "done", sum(people[n].id in told for n in left))
        if len(left) < len(people):
            move.settle(Stage.ENRICH, "ignored", len(people) - len(left))
        for n in left:
            if people[n].id not in told:
                ask_singly(move, job.line, part.payloads[n], part.origins[n], job.successes)
        return move


async def forgotten_among(context: Context, people: Sequence[Visitor]) -> set[str]:
    """Return the ids of those of *people* who must be forgotten."""
    names = [(visitor.id, name) for visitor in people for name in visitor.identities]
    hits = await context.tombstones.found([name for _, name in names])
    return {visitor_id for (visitor_id, _), hit in zip(names, hits, strict=True) if hit}


def names_of(visitor: Visitor, job: BulkJob, place: str) -> list[str]:
    """Return what a row is recognised by: address hashes, and telephones where one was asked by."""
    return [*visitor.digests, *(visitor.phones if place in job.by_phone else ())]


def told_about(
    people: Sequence[Visitor], job: BulkJob, part: Entry, answer: Answer
) -> dict[str, Person | None]:
    """Return by their ids what the *answer* tells of *people*, None where it knows nobody; without those left open.

    One visitor may have been two when they were asked about.
    """
    told: dict[str, Person | None] = {}
    open_ids: set[str] = set()
    for n, visitor in enumerate(people):
        person, is_said = answer.about(names_of(visitor, job, f"{part.id}/{n}"))
        if not is_said:
            open_ids.add(visitor.id)
        told[visitor.id] = told.get(visitor.id) or person
    return {name: person for name, person in told.items() if person or name not in open_ids}


def ask_singly(move: Move, line: str, payload: bytes, origin: bytes, successes: int) -> None:
    """Add to *move* that a visitor waits in *line* for a single call, marked as tried: no job takes them again."""
    fields: list[Argument] = ["p", payload, "m", origin]
    move.pass_on(keys.batches(line), [*fields, "t", attempts(0, successes, 0)])

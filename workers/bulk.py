"""Bulk: asks AudienceLab about up to a thousand visitors by one job, when many wait to be asked about.

A job is made, looked at once a minute until it is over, and its result file merged; `pipeline.bulk_jobs` keeps it
meanwhile. Each call is one step that begins by taking the job that is due, within the rate and the pauses of the
stage, and ends by saying when it is due again. What a crash at any await leaves behind:

- nobody knows whether the job was made: the next step looks for its name in AudienceLab's list before it makes it
- a result that is half merged: parts leave by moves, so the next step merges those that are left
- a job in nobody's hands: it is due again when its lease is over; two workers with one job write nothing twice

Whoever is in a job that AudienceLab refused, failed, lost or never finished goes back to single calls, marked as
tried, and never into a job again. So no dead letter is ever made here: what is wrong with a visitor comes to light
in its single call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from pipeline import bulk_jobs, keys
from pipeline.bulk_jobs import BulkJob
from pipeline.clock import redis_now_ms
from pipeline.endpoints import Endpoint
from pipeline.moves import Move
from pipeline.outcomes import Stage
from pipeline.queues import Entry
from pipeline.scripts import script
from workers import setbacks
from workers.bulk_results import BulkResults, ask_singly, forgotten_among
from workers.bulk_rows import Answer
from workers.clients.audiencelab import PAGE_SIZE, AudienceLab, EnrichmentJob, enrichment
from workers.clients.errors import CallFailed, NotFound, Rejected, Throttled
from workers.fates import Case, Fate, Verdict, decide, sentence
from workers.look_up import LookUp, fact_of, visitors_of
from workers.merge import event_of

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

STAGE = Stage.ENRICH
#: the column of a job by which each kind of fact is asked about; a record's key is the same in lower case
COLUMNS = {"email": "EMAIL", "hem_sha256": "SHA256_PERSONAL_EMAIL", "phone": "PHONE"}
#: a job of our own is among the newest; more pages than this would be more calls than a step may make
PAGES_SEARCHED = 3
#: a list may be behind: a job that was made is believed in until it was missing so often
MOST_MISSING = 5
#: a file with fewer rows than its job tells is fetched so often, as far apart as looks are
MOST_SHORT = 5
#: what a job forgets when a step goes well
UNTRIED = {"tries": 0, "bugs": 0, "held": 0}


class Bulk:
    """The bulk jobs of one process, one step at a time."""

    def __init__(self, context: Context, client: AudienceLab, look_up: LookUp) -> None:
        self._context = context
        self._client = client
        self._look_up = look_up
        self._results = BulkResults(context, client)
        self._claim = script(context.redis, "bulk_claim")

    async def drain(self, until: float, others: asyncio.Task[None]) -> None:
        """Take step after step until none is due soon and *others* have ended, or until monotonic *until*."""
        context = self._context
        patience = context.timing.patience_s
        while not context.stopping.is_set() and monotonic() < until:
            wait_s = await self._step()
            if wait_s == 0:
                continue
            if (wait_s is None or wait_s > patience) and others.done():
                return
            stopping = asyncio.ensure_future(context.stopping.wait())
            waiters = {stopping} if others.done() else {stopping, others}
            seconds = min(wait_s or patience, patience, max(until - monotonic(), 0.0))
            try:
                await asyncio.wait(waiters, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()

    async def _step(self) -> float | None:
        """Take one step of the job that is due; return how long no other can be taken. None: nothing waits."""
        timing, look_up = self._context.timing, self._look_up
        gap_ms = 1000 / look_up.calls_per_s if look_up.calls_per_s else 0
        leases = (int(timing.probe_lease_s * 1000), int(timing.bulk_lease_s * 1000))
        claim = await self._claim(args=[STAGE, look_up.vendor, gap_ms, look_up.rank, *leases])
        match claim[0]:
            case b"job":
                _, name, flat, now_ms, successes = claim
                words = [word.decode() for word in flat]
                stored = dict(zip(words[::2], words[1::2], strict=True))
                job = bulk_jobs.read(name.decode(), stored, int(now_ms), int(successes))
                await self._attempt(job)
                return 0
            case b"wait":
                return float(claim[1]) / 1000
            case (
                b"orphans"
            ):  # a Redis restored from before these jobs: their visitors are asked about singly
                taken = await self._context.queues.take(bulk_jobs.QUEUE, STAGE, most=100)
                left = await self._give_back(taken.entries, STAGE, 0)
                logger.warning(
                    "bulk job is gone from Redis; its visitors are asked about one by one visitors=%d",
                    left,
                )
                return 0 if taken.entries else None
        return None

    async def _attempt(self, job: BulkJob) -> None:
        """Take the next step of *job* and write down what became of it."""
        started = monotonic()
        try:
            outcome = await self._advance(job)
        except CallFailed as failure:
            outcome = await self._failed(job, failure)
        except (RedisError, OSError):
            raise
        except Exception as failure:  # fates decide about ours, too
            outcome = await self._failed(job, failure)
        logger.info(
            "attempt stage=%s job=%s visitors=%d outcome=%s ms=%d",
            STAGE, job.name, job.visitors, outcome, (monotonic() - started) * 1000,
        )  # fmt: skip

    async def _advance(self, job: BulkJob) -> str:
        """Do what is next for *job*; return it as words for the log."""
        parts = await bulk_jobs.parts(self._context.redis, job)
        if not parts:
            await bulk_jobs.end(self._context.redis, job)
            return "over"
        if job.is_given_up:
            return await self._ask_one_by_one(job, job.why)
        if job.vendor_id:
            return await self._look(job, parts)
        if job.is_begun:
            return await self._find(job)
        if not self._context.settings.enrich_bulk_from:
            return await self._ask_one_by_one(job, "no jobs are to be made any more")
        return await self._make(job, parts)

    # making ----------------------------------------------------------------------------------------

    async def _make(self, job: BulkJob, parts: Sequence[Entry]) -> str:
        """Have AudienceLab make the job."""
        records, by_phone = await self._records(parts)
        if not records:  # nobody is left to ask about
            return await self._results.merge(job, parts, Answer({}))
        redis = self._context.redis
        lease_s = self._context.timing.bulk_lease_s
        places = " ".join(by_phone)
        # the time counts from here while nobody knows what became of it
        begun: dict[str, str | int] = {"begun": 1, "made_ms": job.now_ms, "by_phone": places}
        if not await bulk_jobs.go_on(redis, job, lease_s, changed=begun):
            return "over"
        columns = [name for name in COLUMNS.values() if any(name.lower() in r for r in records)]
        try:
            with self._traced(job, parts), self._counted():
                vendor_id = await self._client.create_enrichment_job(
                    job.name, records, columns, "OR"
                )
        except CallFailed as failure:
            if not failure.maybe_stored:
                await bulk_jobs.go_on(redis, job, lease_s, changed={"begun": 0, "made_ms": ""})
            raise
        await self._made(job, vendor_id)
        return f"made id={vendor_id}"

    def _traced(
        self, job: BulkJob, parts: Sequence[Entry]
    ) -> AbstractContextManager[None, bool | None]:
        traced = self._context.traced
        if traced is None:
            return nullcontext()
        origins = [origin for part in parts for origin in part.origins]
        return traced.calling(STAGE, self._look_up.vendor, job.name, origins)

    async def _made(self, job: BulkJob, vendor_id: str) -> None:
        """Remember the id that AudienceLab gave the job."""
        redis = self._context.redis
        made_ms = await redis_now_ms(redis)
        await bulk_jobs.put_off(
            redis, job, self._context.timing.bulk_poll_s, has_succeeded=True,
            changed={"id": vendor_id, "made_ms": made_ms, "missing": 0, **UNTRIED},
        )  # fmt: skip

    async def _find(self, job: BulkJob) -> str:
        """Look whether AudienceLab has made the job, whose making nobody saw the end of."""
        redis = self._context.redis
        for page in range(1, PAGES_SEARCHED + 1):
            with self._counted():
                listed = await self._client.list_enrichment_jobs(page, PAGE_SIZE)
            for found in listed.items:
                if found.name == job.name:
                    await self._made(job, found.id)
                    return f"found id={found.id}"
            if len(listed.items) < PAGE_SIZE:
                break
        if not self._client.jobs_have_names:
            # it may have been made: a second one would have to be paid, and be lost the same way
            return await self._ask_one_by_one(job, "its job cannot be found without a name")
        if job.missing + 1 < MOST_MISSING:
            await bulk_jobs.put_off(
                redis, job, self._context.timing.bulk_poll_s, has_succeeded=True,
                changed={"missing": job.missing + 1},
            )  # fmt: skip
            return "missing"
        await bulk_jobs.make_again(redis, job)
        return "not made"

    async def _records(self, parts: Sequence[Entry]) -> tuple[list[dict[str, object]], list[str]]:
        """Return a record for each visitor who may be asked about, and the places of those with a telephone."""
        context = self._context
        places = [f"{part.id}/{n}" for part in parts for n in range(len(part.payloads))]
        events = [event_of(payload) for part in parts for payload in part.payloads]
        people = await visitors_of(context, events)
        forgotten = await forgotten_among(context, people)
        records, by_phone = {}, []
        for place, visitor in zip(places, people, strict=True):
            fact = fact_of(visitor)
            if fact is None or visitor.id in forgotten:
                continue
            name, value = fact
            records[fact] = {COLUMNS[name].lower(): value}
            if name == "phone":
                by_phone.append(place)
        return [dict[str, object](record) for record in records.values()], by_phone

    # looking ---------------------------------------------------------------------------------------

    async def _look(self, job: BulkJob, parts: Sequence[Entry]) -> str:
        """Look how far AudienceLab has come with the job."""
        redis, timing = self._context.redis, self._context.timing
        try:
            with self._counted():
                told = await self._client.enrichment_job(job.vendor_id)
        except NotFound:
            if job.missing + 1 >= MOST_MISSING:
                raise
            await bulk_jobs.put_off(
                redis, job, timing.bulk_poll_s, changed={"missing": job.missing + 1}
            )
            return "missing"
        match told.status:
            case enrichment.COMPLETED | enrichment.NO_DATA:
                # what fails from here on does so although AudienceLab is well
                await bulk_jobs.go_on(redis, job, timing.bulk_lease_s, has_succeeded=True)
                return await self._take(told, job, parts)
            case enrichment.FAILED:
                return await self._ask_one_by_one(job, "AudienceLab failed")
        if job.now_ms - job.made_ms > timing.bulk_give_up_s * 1000:
            hours = timing.bulk_give_up_s / 3600
            return await self._ask_one_by_one(job, f"it was not over after {hours:g} hours")
        await bulk_jobs.put_off(
            redis, job, timing.bulk_poll_s, has_succeeded=True,
            changed={"missing": 0, **UNTRIED},
        )  # fmt: skip
        return told.status

    async def _take(self, told: EnrichmentJob, job: BulkJob, parts: Sequence[Entry]) -> str:
        """Take the result of a job that is over.

        A file may end early and look whole; its job tells how many rows it has. After some tries what there is of it
        is taken, and says nothing about anybody else.
        """
        if told.status == enrichment.NO_DATA:
            return await self._results.merge(job, parts, Answer({}))
        rows = await self._results.read(told, job, parts)
        is_whole = rows.count >= (told.total or 0)
        if not is_whole:
            logger.warning(
                "bulk job has too few rows job=%s rows=%d total=%s",
                job.name,
                rows.count,
                told.total,
            )
            if job.short + 1 < MOST_SHORT:
                await bulk_jobs.put_off(
                    self._context.redis, job, self._context.timing.bulk_poll_s,
                    changed={"short": job.short + 1},
                )  # fmt: skip
                return "too few rows"
        people = rows.people()
        if rows.count and not people and not job.has_fitted:  # the file means something else
            return await self._ask_one_by_one(job, "its rows fit nobody who was asked about")
        return await self._results.merge(job, parts, Answer(people, is_whole))

    def _counted(self) -> AbstractContextManager[None, bool | None]:
        """Count the call that is made inside; single calls of the stage are counted apart."""
        return self._context.tally.counted(Endpoint.BULK)

    # failing ---------------------------------------------------------------------------------------

    async def _failed(self, job: BulkJob, failure: Exception) -> str:
        """Carry out the fate of *job*; return it as words for the log."""
        redis, timing = self._context.redis, self._context.timing
        told = sentence(failure)
        logger.warning("call failed stage=%s job=%s error=%s", STAGE, job.name, told)
        if isinstance(failure, Throttled):
            look_up = self._look_up
            await setbacks.slow_down(
                redis, look_up.vendor, look_up.calls_per_s, failure, job.now_ms
            )
        is_too_old = job.now_ms - job.made_ms > timing.bulk_give_up_s * 1000
        if isinstance(failure, Rejected) or is_too_old:
            return await self._ask_one_by_one(job, told)
        names = ("successes", "bulk_successes", "failures")
        state = await redis.hmget(keys.destination(STAGE), *names)
        singly, in_bulk, failures = (int(number or 0) for number in state)
        successes = singly + in_bulk
        case = await self._case(job, successes, failures)
        verdict = decide(failure, case, timing, datetime.now(UTC))
        if verdict.fate in (Fate.SPLIT, Fate.BURY):
            outcome = await self._ask_one_by_one(job, told)
        else:
            outcome = await self._hold(job, verdict, case, successes, failure)
        if verdict.setback:
            sent = int(not isinstance(failure, CallFailed) or failure.maybe_stored)
            await setbacks.put_off(self._context, STAGE, verdict.setback, sent=sent)
        return outcome

    async def _case(self, job: BulkJob, successes: int, failures: int) -> Case:
        """Return what is known of *job*: like a single item, it cannot be split, and may be to blame."""
        lines = (STAGE, keys.retried(STAGE))
        async with self._context.redis.pipeline(transaction=False) as pipe:
            for queue in (*map(keys.batches, lines), *map(keys.held, lines)):
                pipe.xlen(keys.queue(queue))
            *waiting, held, held_retried = await pipe.execute()
        return Case(
            is_collective=True,
            tries=job.tries,
            bugs=job.bugs,
            others_succeeded=job.mark is not None and job.tries > 0 and successes > job.mark,
            others_wait=any(waiting),
            others_held=bool(held or held_retried),
            was_held=job.was_held,
            failures=failures,
        )

    async def _hold(
        self, job: BulkJob, verdict: Verdict, case: Case, successes: int, failure: Exception
    ) -> str:
        """Let *job* be tried again: as soon as the stage may, or a while later when others pass."""
        timing = self._context.timing
        is_held = verdict.fate is Fate.HOLD
        changed: dict[str, str | int] = {
            "tries": verdict.tries if is_held else job.tries + 1,
            "bugs": job.bugs + (not isinstance(failure, CallFailed)),
            "held": int(is_held or job.was_held),
        }
        if is_held or not job.tries:
            changed["mark"] = successes
        waits = case.others_succeeded or verdict.setback is None
        due_s = timing.bulk_poll_s if waits else 0.0
        await bulk_jobs.put_off(self._context.redis, job, due_s, changed=changed)
        return str(verdict.fate)

    async def _ask_one_by_one(self, job: BulkJob, why: str) -> str:
        """Give everybody who is left in *job* back to single calls, for good."""
        context, redis = self._context, self._context.redis
        lease_s = context.timing.bulk_lease_s
        await bulk_jobs.give_up(redis, job, lease_s, why)
        left = await self._give_back(await bulk_jobs.parts(redis, job), job.line, job.successes)
        await bulk_jobs.end(redis, job)
        logger.warning("bulk job given up job=%s visitors=%d why=%s", job.name, left, why)
        return "given up"

    async def _give_back(self, parts: Sequence[Entry], line: str, successes: int) -> int:
        """Let everybody in *parts* wait in *line* for a single call, marked as tried; return how many they are."""
        for part in parts:
            move = Move(part.queue, [part.id])
            for payload, origin in zip(part.payloads, part.origins, strict=True):
                ask_singly(move, line, payload, origin, successes)
            await self._context.mover.apply([move])
        return sum(len(part.payloads) for part in parts)

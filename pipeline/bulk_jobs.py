"""Bulk jobs: many visitors whom AudienceLab is asked about at once, by a job that takes minutes or hours.

Sealing a job takes its visitors out of one line's batches and puts them into `enrich:bulk`, in *parts* of a size
that one move can take out; nothing else holds them, so the books go on counting them as waiting. The job's hash
knows its parts and how far it has come, the sorted set of all jobs when each is due: arq only wakes the workers.
A job has a name of its own before the vendor hears of it, by which it is found again when nobody knows whether it
was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.queues import Entry, fields
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

STAGE = Stage.ENRICH
QUEUE = keys.bulk(STAGE)
#: the vendor's own limit is not known; a thousand is a request of 100 KB
MOST_VISITORS = 1000
#: a visitor writes some ten things, and a move should not have more than about five hundred
PART = 50
#: each is asked about once in a while: together a third of the default rate
MOST_JOBS = 10


@dataclass(frozen=True, slots=True)
class BulkJob:
    """One bulk job, as far as it has come."""

    name: str
    part_ids: tuple[str, ...]
    visitors: int
    #: Redis's time, in Unix milliseconds
    now_ms: int
    #: calls of the stage that have succeeded
    successes: int
    #: the line that they came from, and go back to: the stage's own, or that of what was retried
    line: str = STAGE
    #: AudienceLab's id, once it has made the job; and since when, or since when nobody knows
    vendor_id: str = ""
    made_ms: int = 0
    #: somebody began to have it made, and nobody knows what became of it
    is_begun: bool = False
    #: it is given up: whoever is left goes back to single calls; and why
    is_given_up: bool = False
    why: str = ""
    #: places of visitors who are asked about by their telephone, `ENTRY_ID/POSITION`
    by_phone: frozenset[str] = frozenset()
    #: its result was found to be about those who were asked about
    has_fitted: bool = False
    #: failures in a row, up to a limit and then strikes, as batches have them (`workers.fates`)
    tries: int = 0
    bugs: int = 0
    #: successes of the stage when it first failed, or failed last
    mark: int | None = None
    was_held: bool = False
    #: how many times in a row AudienceLab listed no such job
    missing: int = 0
    #: how many times its file had fewer rows than it told
    short: int = 0


async def seal(redis: Redis, more_than: int) -> int:
    """Seal one job if *more_than* so many visitors wait to be asked about; return how many it has. 0: never."""
    if not more_than:
        return 0
    name = f"relay-{token_hex(8)}"
    args: list[str | int] = [STAGE, name, more_than, MOST_VISITORS, PART, MOST_JOBS]
    return int(await script(redis, "bulk_seal")(args=args))


async def parts(redis: Redis, job: BulkJob) -> list[Entry]:
    """Return the parts of *job* that have not been dealt with."""
    rows = await script(redis, "bulk_parts")(args=[QUEUE, len(job.part_ids), *job.part_ids])
    return [Entry(QUEUE, row[0].decode(), *fields(row[1])) for row in rows]


async def put_off(
    redis: Redis,
    job: BulkJob,
    due_in_s: float,
    *,
    has_succeeded: bool = False,
    changed: Mapping[str, str | int] | None = None,
) -> None:
    """End a step: *job* is due again in so many seconds; remember what has *changed* (fields as `read` knows them)."""
    await _next(redis, job, due_in_s, "succeeded" if has_succeeded else "ended", changed or {})


async def go_on(
    redis: Redis,
    job: BulkJob,
    lease_s: float,
    *,
    has_succeeded: bool = False,
    changed: Mapping[str, str | int] | None = None,
) -> bool:
    """Remember something in the middle of a step, and hold *job* on; tell whether it is still there."""
    return await _next(
        redis, job, lease_s, "succeeded" if has_succeeded else "goes on", changed or {}
    )


async def give_up(redis: Redis, job: BulkJob, lease_s: float, why: str) -> None:
    """Hold *job* on, which is given up: whoever is left in it is to go back; the first time it is counted, too."""
    await script(redis, "give_up")(args=[job.name, int(lease_s * 1000), why])


async def make_again(redis: Redis, job: BulkJob) -> None:
    """Let *job*, which was begun and is not to be found, be made anew at once; the books say that it may be twice."""
    await _next(redis, job, 0, "again", {"begun": 0, "made_ms": "", "missing": 0})


async def end(redis: Redis, job: BulkJob) -> None:
    """Forget *job*, whose parts have all been dealt with."""
    await _next(redis, job, -1, "ended", {})


async def _next(
    redis: Redis, job: BulkJob, due_in_s: float, call: str, changed: Mapping[str, str | int]
) -> bool:
    flat = [word for pair in changed.items() for word in pair]
    args = [STAGE, job.name, int(due_in_s * 1000), call, len(flat), *flat]
    return bool(await script(redis, "bulk_next")(args=args))


@dataclass(frozen=True, slots=True)
class Tally:
    """How the bulk jobs are doing: how many are under way, and what was given up since ever, last and why."""

    under_way: int
    given_up: int
    visitors: int
    last_ms: int
    why: str


async def tally(redis: Redis) -> Tally:
    """Return how the bulk jobs are doing."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zcard(keys.BULK)
        pipe.hmget(keys.GIVEN_UP, "jobs", "visitors", "last_ms", "why")
        under_way, (jobs, visitors, last_ms, why) = await pipe.execute()
    return Tally(
        under_way=under_way,
        given_up=int(jobs or 0),
        visitors=int(visitors or 0),
        last_ms=int(last_ms or 0),
        why=(why or b"").decode(),
    )


def read(name: str, stored: Mapping[str, str], now_ms: int, successes: int) -> BulkJob:
    """Read a job's hash."""
    return BulkJob(
        name=name,
        part_ids=tuple(stored.get("parts", "").split()),
        visitors=int(stored.get("visitors", 0)),
        now_ms=now_ms,
        successes=successes,
        line=stored.get("line", STAGE),
        vendor_id=stored.get("id", ""),
        made_ms=int(stored.get("made_ms") or now_ms),
        is_begun=stored.get("begun") == "1",
        is_given_up=stored.get("given_up") == "1",
        why=stored.get("why", ""),
        by_phone=frozenset(stored.get("by_phone", "").split()),
        has_fitted=stored.get("has_fitted") == "1",
        tries=int(stored.get("tries", 0)),
        bugs=int(stored.get("bugs", 0)),
        mark=int(stored["mark"]) if "mark" in stored else None,
        was_held=stored.get("held") == "1",
        missing=int(stored.get("missing", 0)),
        short=int(stored.get("short", 0)),
    )

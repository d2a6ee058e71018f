"""Bulk jobs: what is sealed into one and what is not, who holds it, and what a second run of each script does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from pipeline import books, bulk_jobs, keys, pauses
from pipeline.bulk_jobs import BulkJob
from pipeline.moves import Move, Result
from pipeline.outcomes import Stage
from pipeline.queues import Queues
from pipeline.scripts import script
from tests.pipeline.work import META, add, apply, batch, claim, take

pytestmark = pytest.mark.anyio

BATCHES = keys.batches(Stage.ENRICH)
RETRIED = keys.retried(Stage.ENRICH)


async def ask_about(redis: Redis, visitors: int, *more: str, line: str = Stage.ENRICH) -> None:
    """Let so many visitors wait in *line* to be asked about; *more* fields say what each has been through."""
    await add(redis, Stage.ENRICH, [b"%d" % n for n in range(visitors)])
    for entry in await take(redis, Stage.ENRICH, most=visitors):
        move = Move(entry.queue, [entry.id])
        move.pass_on(keys.batches(line), batch(entry.payloads, *more))
        await apply(redis, move)


async def claimed(redis: Redis, lease_ms: int = 60_000) -> BulkJob | None:
    """Take the job that is due, if any."""
    answer = await script(redis, "bulk_claim")(args=["enrich", "vendor", 0, 0, 50, lease_ms])
    if answer[0] != b"job":
        return None
    words = [word.decode() for word in answer[2]]
    stored = dict(zip(words[::2], words[1::2], strict=True))
    return bulk_jobs.read(answer[1].decode(), stored, answer[3], int(answer[4]))


async def check(redis: Redis, waiting: int) -> None:
    """The books are balanced and count what is there."""
    told = await books.snapshot(redis)
    assert told["balanced"]
    assert told["stages"]["enrich"]["waiting"] == waiting
    assert (await books.recount(redis))[Stage.ENRICH]["waiting"] == waiting


async def lengths(redis: Redis) -> tuple[int, int]:
    """Return how many single calls and how many parts wait."""
    return (
        await redis.xlen(keys.queue(BATCHES)),
        await redis.xlen(keys.queue(bulk_jobs.QUEUE)),
    )


async def test_a_job_has_a_thousand_visitors_in_parts_that_one_move_takes_out(redis: Redis) -> None:
    """The oldest thousand in their order, in parts of fifty; the others wait on; nobody leaves the books."""
    await ask_about(redis, 1010)
    assert await bulk_jobs.seal(redis, 1) == 1000
    assert await lengths(redis) == (10, 20)
    job = await claimed(redis)
    assert job is not None
    parts = await bulk_jobs.parts(redis, job)
    assert [payload for part in parts for payload in part.payloads] == [
        b"%d" % n for n in range(1000)
    ]
    assert {len(part.payloads) for part in parts} == {50}
    assert {origin for part in parts for origin in part.origins} == {META.encode()}
    await check(redis, 1010)


@pytest.mark.parametrize(("more_than", "sealed"), [(0, 0), (4, 5), (5, 0)])
async def test_so_many_must_wait(redis: Redis, more_than: int, sealed: int) -> None:
    """More than the setting says; 0 is never."""
    await ask_about(redis, 5)
    assert await bulk_jobs.seal(redis, more_than) == sealed


async def test_only_what_was_never_tried_is_sealed(redis: Redis) -> None:
    """What was given up by a job, or failed once, or is in a worker's hands stays where it is."""
    await ask_about(redis, 3)
    for _ in range(3):
        await claim(redis, Stage.ENRICH)
    await ask_about(redis, 4, "t", "0:0:0")
    await ask_about(redis, 5)
    assert await bulk_jobs.seal(redis, 5) == 0
    assert await bulk_jobs.seal(redis, 4) == 5
    assert await lengths(redis) == (7, 1)


async def test_what_was_retried_has_jobs_of_its_own(redis: Redis) -> None:
    """A job is of one line and knows which: whoever it gives back goes there. The books know everybody."""
    await ask_about(redis, 7)
    await ask_about(redis, 5, line=RETRIED)
    assert [await bulk_jobs.seal(redis, 4) for _ in range(3)] == [5, 7, 0]
    jobs = [await claimed(redis), await claimed(redis)]
    found = {job.line: job.visitors for job in jobs if job}
    assert found == {"enrich": 7, "enrich:retried": 5}
    await check(redis, 12)


async def test_what_was_retried_has_half_of_the_jobs(redis: Redis) -> None:
    """However many letters came back, five jobs of ten are left to new work; and it has the others while it waits."""
    for _ in range(bulk_jobs.MOST_JOBS):
        await ask_about(redis, 2, line=RETRIED)
        await bulk_jobs.seal(redis, 1)
    assert await redis.zcard(keys.BULK) == bulk_jobs.MOST_JOBS / 2
    for _ in range(bulk_jobs.MOST_JOBS):
        await ask_about(redis, 2)
        await bulk_jobs.seal(redis, 1)
    lines = [
        await redis.hget(keys.bulk_job(name.decode()), "line")
        for name in await redis.zrange(keys.BULK, 0, -1)
    ]
    assert sorted(lines) == [b"enrich"] * 5 + [b"enrich:retried"] * 5


@pytest.mark.parametrize("what", ["paused", "ten jobs"])
async def test_nothing_is_sealed_in_vain(redis: Redis, what: str) -> None:
    """While no job could be made, or ten are open, single calls keep what they have."""
    await ask_about(redis, 5)
    if what == "paused":
        await pauses.pause(redis, Stage.ENRICH, "lunch")
    else:
        await redis.zadd(keys.BULK, {f"{n}": n for n in range(bulk_jobs.MOST_JOBS)})
    assert await bulk_jobs.seal(redis, 1) == 0
    assert await lengths(redis) == (5, 0)


async def test_sealing_twice_makes_one_job(redis: Redis) -> None:
    """A second run under the same name does nothing, even when more waits."""
    args: list[str | int] = ["enrich", "name", 1, 3, 2, 10]
    await ask_about(redis, 9)
    assert await script(redis, "bulk_seal")(args=args) == 3
    assert await script(redis, "bulk_seal")(args=args) == 0
    assert await lengths(redis) == (6, 2)
    await check(redis, 9)


@pytest.fixture
async def full(redis: Redis) -> AsyncIterator[Redis]:
    """Give a server with five visitors waiting, and let it be full."""
    await ask_about(redis, 5)
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", 1)
    yield redis
    await redis.config_set("maxmemory", limit)


async def test_a_full_server_goes_on(full: Redis) -> None:
    """Sealing, taking and giving up need no memory that was not there before."""
    assert await bulk_jobs.seal(full, 1) == 5
    job = await claimed(full)
    assert job is not None
    assert await bulk_jobs.go_on(full, job, 1, changed={"begun": 1})
    await bulk_jobs.end(full, job)
    assert await claimed(full) is None


async def test_a_job_is_one_workers_until_its_lease_is_over(redis: Redis) -> None:
    """Nobody else gets it meanwhile; it is due again afterwards, or when its holder says so."""
    await ask_about(redis, 5)
    await bulk_jobs.seal(redis, 1)
    job = await claimed(redis)
    assert job is not None
    assert await claimed(redis) is None
    await bulk_jobs.put_off(redis, job, 0, changed={"id": "j-1", "tries": 2})
    again = await claimed(redis, lease_ms=0)
    assert again is not None
    assert (again.vendor_id, again.tries, again.visitors) == ("j-1", 2, 5)
    assert await claimed(redis) is not None  # that lease was over at once


async def test_a_part_leaves_once(redis: Redis) -> None:
    """Two workers may have one job: the second one's move finds the part gone."""
    await ask_about(redis, 5)
    await bulk_jobs.seal(redis, 1)
    job = await claimed(redis)
    assert job is not None
    (part,) = await bulk_jobs.parts(redis, job)
    results = []
    for consumer in ("one", "two"):
        move = Move(part.queue, [part.id])
        move.settle(Stage.ENRICH, "done", 5)
        results += (await apply(redis, move, consumer=consumer)).results
    assert results == [Result.DONE, Result.GONE]
    assert await bulk_jobs.parts(redis, job) == []
    await check(redis, 0)


async def test_what_is_over_stays_over(redis: Redis) -> None:
    """A slower worker that remembers something of a job that ended meanwhile does not bring it back."""
    await ask_about(redis, 5)
    await bulk_jobs.seal(redis, 1)
    job = await claimed(redis)
    assert job is not None
    await bulk_jobs.end(redis, job)
    await bulk_jobs.put_off(redis, job, 0, changed={"id": "j-1"})
    assert not await bulk_jobs.go_on(redis, job, 0)
    assert not await redis.keys(f"{keys.BULK}*")


async def test_groups_that_were_lost_lose_no_part(redis: Redis) -> None:
    """A part that no worker has ever had in hands, because the group is new, still leaves by a move."""
    await ask_about(redis, 5)
    await bulk_jobs.seal(redis, 1)
    queue = keys.queue(bulk_jobs.QUEUE)
    await redis.xgroup_destroy(queue, keys.GROUP)
    await redis.xgroup_create(queue, keys.GROUP, id="0")
    job = await claimed(redis)
    assert job is not None
    (part,) = await bulk_jobs.parts(redis, job)
    assert (await apply(redis, Move(part.queue, [part.id]))).results == [Result.DONE]
    assert await Queues(redis, "one").release(Stage.ENRICH) == 0


async def test_a_job_that_is_made_again_is_counted_once(redis: Redis) -> None:
    """Everybody in it may have been asked about twice; a second run of the call finds it not begun."""
    await ask_about(redis, 5)
    await bulk_jobs.seal(redis, 1)
    job = await claimed(redis)
    assert job
    await bulk_jobs.go_on(redis, job, 60, changed={"begun": 1, "missing": 4})
    for _ in range(2):
        await bulk_jobs.make_again(redis, job)
        assert await redis.hget(keys.BOOKS, "maybe_duplicate") == b"5"
    again = await claimed(redis)
    assert again
    assert (again.is_begun, again.missing) == (False, 0)


async def test_giving_up_twice_counts_once(redis: Redis) -> None:
    """A second run, and a worker that goes on with what another gave up, count nothing; the first reason stays."""
    await ask_about(redis, 5)
    await bulk_jobs.seal(redis, 1)
    job = await claimed(redis)
    assert job
    for why in ("it was refused", "something else"):
        await bulk_jobs.give_up(redis, job, 0, why)
        tally = await bulk_jobs.tally(redis)
        assert (tally.under_way, tally.given_up, tally.visitors, tally.why) == (
            *(1, 1, 5),
            "it was refused",
        )
    again = await claimed(redis)
    assert again
    assert (again.is_given_up, again.why) == (True, "it was refused")
    await bulk_jobs.end(redis, job)
    await bulk_jobs.give_up(redis, job, 0, "over")
    assert not await redis.exists(keys.bulk_job(job.name))
    assert (await bulk_jobs.tally(redis)).given_up == 1

"""Bulk: many visitors are asked about by one job, and nobody is lost, buried or asked twice whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import orjson
import pytest

from pipeline import bulk_jobs, dead_letters, forgetting, keys, pauses, visitors
from pipeline.addresses import digest
from pipeline.endpoints import Endpoint
from pipeline.moves import Move, Mover
from pipeline.origins import Origin
from pipeline.outcomes import Person, Reason, Stage, VisitorEvent
from pipeline.queues import Queues
from pipeline.wake import QUEUE_NAME
from sandbox.faults import Fault
from sandbox.people import PEOPLE
from tests.workbench import Workbench
from tests.workers.endpoints import outcomes
from tests.workers.test_sweep import context_of, rung
from workers.bulk import MOST_MISSING
from workers.ringing import ring_for_work

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]
KNOWN = [row["PERSONAL_EMAILS"].split(", ")[0] for row in PEOPLE[:3]]
PHONE = "+12185550103"  # of the second of them


def person(n: int, address: str) -> Person:
    """Return somebody of whom an address is known and nothing else."""
    return Person(uuid=f"U-{n}", personal_emails=[address])


def crowd(strangers: int) -> list[Person]:
    """Return three whom AudienceLab knows, and so many whom it does not."""
    addresses = [*KNOWN, *(f"nobody{n}@example.com" for n in range(strangers))]
    return [person(n, address) for n, address in enumerate(addresses)]


async def see(bench: Workbench, people: Sequence[Person]) -> None:
    """Queue a sighting of each of *people*, as `unpack` would."""
    await bench.put("pixel", b"{}")
    queue = keys.queue("unpack")
    await bench.redis.xreadgroup(keys.GROUP, "test", {queue: ">"}, count=1)
    row = await bench.redis.xpending_range(queue, keys.GROUP, "-", "+", 1)
    move = Move(Stage.UNPACK, [row[0]["message_id"]])
    for n, each in enumerate(people):
        event = VisitorEvent(each, f"{n}", seen_at="2026-01-01T00:00:00Z", event_type="page")
        move.append(Stage.ENRICH, orjson.dumps(event), Origin("pixel", 0))
    move.settle(Stage.UNPACK, "done")
    await Mover(bench.redis, "test", 1000).apply([move])


async def everybody(bench: Workbench) -> dict[str, visitors.Visitor]:
    """Return all visitors by id."""
    return await visitors.fetch(bench.redis, [name async for name in visitors.ids(bench.redis)])


async def work_on(bench: Workbench, people: Sequence[Person]) -> None:
    """Let *people* be seen, and work until nothing waits."""
    await see(bench, people)
    await bench.work_until(bench.is_idle)


def calls(bench: Workbench) -> tuple[int, int]:
    """Return how many jobs AudienceLab has made, and how many single calls it got."""
    return len(bench.box.memory.account.jobs), bench.box.memory.calls_to("enrich")


async def check_all_done(bench: Workbench, visitors_seen: int) -> None:
    """Everybody is done, found or not, and nothing is left of a job."""
    assert await bench.row(Stage.ENRICH) == {"in": visitors_seen, "done": visitors_seen}
    found = {name: each.enrichment for name, each in (await everybody(bench)).items()}
    known = {"U-0", "U-1", "U-2"}
    assert {name for name, word in found.items() if word == "found"} == known
    assert {name for name, word in found.items() if word == "not found"} == set(found) - known
    assert not await bench.dead()
    assert not await bench.redis.keys(f"{keys.BULK}*")
    await bench.assert_balanced()


@pytest.fixture
def bulky(make_bench: MakeBench) -> Workbench:
    """Give a workbench that asks in bulk about more than five."""
    return make_bench(email_format="plain", enrich_bulk_from=5)


async def test_many_are_asked_about_by_one_job(bulky: Workbench) -> None:
    """More than `ENRICH_BULK_FROM`: one job, no single call, and its answer is kept as a single one's is."""
    await work_on(bulky, crowd(70))
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 73)
    kept = await everybody(bulky)
    assert [kept[f"U-{n}"].fields["FIRST_NAME"] for n in range(3)] == [
        row["FIRST_NAME"] for row in PEOPLE[:3]
    ]
    assert all(each.enriched_at for each in kept.values())
    assert set(KNOWN) <= set(bulky.box.memory.addresses)
    assert await bulky.redis.pttl(keys.enrichment(digest("U-50"))) > 29 * 86_400_000


async def test_its_calls_are_counted_apart(bulky: Workbench) -> None:
    """Making the job, looking at it and fetching its file are calls of the jobs, none of them a single call."""
    bulky.box.faults.add(Fault(endpoint="create-enrichment", status=503, times=1))
    await work_on(bulky, crowd(7))
    counted = await outcomes(bulky, Endpoint.BULK)
    assert counted.pop("failed") == 1
    assert counted.pop("ok") >= 3
    assert not counted
    assert await outcomes(bulky, Endpoint.ENRICH) == {}


@pytest.mark.parametrize(("more_than", "jobs"), [(0, 0), (8, 0), (7, 1)])
async def test_the_setting_says_how_many_are_many(
    make_bench: MakeBench, more_than: int, jobs: int
) -> None:
    """Exactly so many are still asked about one by one; 0 is never."""
    bench = make_bench(enrich_bulk_from=more_than)
    await work_on(bench, crowd(5))
    assert calls(bench) == (jobs, 0 if jobs else 8)
    await check_all_done(bench, 8)


async def test_each_is_asked_about_by_the_best_that_is_known(bulky: Workbench) -> None:
    """E-mail, else hash, else phone; rows are told apart by the same."""
    people = [
        person(0, KNOWN[0]),
        Person(uuid="U-1", phones=[PHONE]),
        Person(uuid="U-2", hem_sha256=digest(KNOWN[2])),
        *(person(n, f"nobody{n}@example.com") for n in range(3, 8)),
        # her telephone is somebody's who is found, and she was asked about by her address
        Person(uuid="U-9", personal_emails=["nobody9@example.com"], phones=[PHONE]),
    ]
    await work_on(bulky, people)
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 9)


async def test_one_person_under_two_ids_is_kept_under_both(bulky: Workbench) -> None:
    """A row is for everybody who was asked about by what it knows."""
    await work_on(bulky, [*crowd(5), Person(uuid="U-99", personal_emails=[KNOWN[0]])])
    assert calls(bulky) == (1, 0)
    kept = await everybody(bulky)
    assert kept["U-99"].fields["FIRST_NAME"] == kept["U-0"].fields["FIRST_NAME"]


async def test_no_data_means_that_nobody_is_known(bulky: Workbench) -> None:
    """A job that ends without a file has found nobody."""
    await work_on(bulky, [person(n, f"nobody{n}@example.com") for n in range(8)])
    assert calls(bulky) == (1, 0)
    assert {each.enrichment for each in (await everybody(bulky)).values()} == {"not found"}
    assert await bulky.row(Stage.ENRICH) == {"in": 8, "done": 8}


@pytest.mark.parametrize("end", ["FAILED", "never"])
async def test_a_job_that_comes_to_nothing_is_not_repeated(bulky: Workbench, end: str) -> None:
    """Failed, or not over in time: everybody is asked about one by one, and in no second job."""
    bulky.box.settings.job_end = end
    bulky.timing = replace(bulky.timing, bulk_give_up_s=0.1)
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 12)
    await check_all_done(bulky, 12)


@pytest.mark.parametrize(("end", "given_up"), [("FAILED", (1, 12)), (None, (0, 0))])
async def test_what_was_given_up_is_counted(
    bulky: Workbench, end: str | None, given_up: tuple[int, int]
) -> None:
    """How many jobs came to nothing, of how many visitors, when the last one did and why."""
    bulky.box.settings.job_end = end
    await work_on(bulky, crowd(9))
    tally = await bulk_jobs.tally(bulky.redis)
    assert (tally.given_up, tally.visitors) == given_up
    assert bool(tally.last_ms) is bool(end)
    assert tally.why == ("AudienceLab failed" if end else "")


async def test_a_refused_job_is_not_repeated(bulky: Workbench) -> None:
    """400: what is wrong with one of them comes to light in its single call."""
    bulky.box.faults.add(Fault(endpoint="create-enrichment", status=400, body={"error": "no"}))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (0, 12)
    assert bulky.box.memory.calls_to("create-enrichment") == 1
    await check_all_done(bulky, 12)


async def come_back(bench: Workbench, people: Sequence[Person]) -> None:
    """Let a sighting of each of *people* come back from the dead letters."""
    await bench.put("pixel", b"{}")
    taken = await Queues(bench.redis, "test").take(Stage.UNPACK, Stage.UNPACK, most=1)
    move = Move(Stage.UNPACK, [taken.entries[0].id])
    for n, each in enumerate(people):
        event = VisitorEvent(each, f"{n}", seen_at="2026-01-01T00:00:00Z", event_type="page")
        move.bury(Stage.ENRICH, Reason.REFUSED, "no", orjson.dumps(event), Origin("pixel", 0))
        move.new_dead(Stage.ENRICH)
    move.settle(Stage.UNPACK, "done")
    await Mover(bench.redis, "test", 1000).apply([move])
    await dead_letters.retry_all(bench.redis, [letter.id for letter in await bench.dead()])


async def test_many_that_come_back_are_asked_about_by_one_job(bulky: Workbench) -> None:
    """Letters by the hundred are as few calls as new sightings are."""
    await come_back(bulky, crowd(9))
    await bulky.work_until(bulky.is_idle)
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 12)


async def test_who_came_back_stays_in_the_line_when_a_job_is_refused(bulky: Workbench) -> None:
    """Single calls for them are held to the share of what was retried, as before."""
    bulky.box.faults.add(Fault(endpoint="create-enrichment", status=400, body={"error": "no"}))
    bulky.box.faults.add(Fault(endpoint="enrich", status=503))
    await come_back(bulky, crowd(9))

    async def is_given_back() -> bool:
        tally = await bulk_jobs.tally(bulky.redis)
        return (tally.given_up, tally.under_way) == (1, 0)

    await bulky.work_until(is_given_back)
    assert await bulky.redis.xlen(keys.queue(keys.batches(keys.retried(Stage.ENRICH)))) == 12
    assert await bulky.redis.xlen(keys.queue(keys.batches(Stage.ENRICH))) == 0
    bulky.box.faults.clear()
    await bulky.work_until(bulky.is_idle)
    await check_all_done(bulky, 12)


async def test_rows_about_strangers_are_no_answer(bulky: Workbench) -> None:
    """A file in which nobody is anybody who was asked about says nothing about them."""
    bulky.box.settings.result_rows = 4
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 12)
    await check_all_done(bulky, 12)


async def test_a_job_that_a_5xx_hides_is_found(bulky: Workbench) -> None:
    """The service may fail after it has made the job: a second one would have to be paid."""
    fault = Fault(endpoint="create-enrichment", status=500, stores=True, times=1)
    bulky.box.faults.add(fault)
    await work_on(bulky, crowd(9))
    assert bulky.box.memory.calls_to("create-enrichment") == 1
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 12)


@pytest.mark.parametrize("endpoint", ["create-enrichment", "enrichments", "enrichment-file"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(endpoint="*", status=503, times=3),
        Fault(endpoint="*", status=429, times=3),
        Fault(endpoint="*", reset="before", times=2),
        Fault(endpoint="*", reset="after", times=1),
        Fault(endpoint="*", cut="connection", times=1),
        Fault(endpoint="*", status=200, body="<html>a proxy's page</html>", times=2),
    ],
    ids=lambda fault: f"{fault.status or fault.reset or fault.cut}",
)
async def test_an_outage_changes_nothing(bulky: Workbench, endpoint: str, fault: Fault) -> None:
    """Whatever fails for a while is tried again: the job is made once, merged once, and nobody is asked twice."""
    bulky.box.faults.add(replace(fault, endpoint=endpoint))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 12)


async def test_a_429_halves_the_rate_of_all(make_bench: MakeBench) -> None:
    """A job shares AudienceLab's rate, so what it is told holds for everybody."""
    bench = make_bench(email_format="plain", enrich_bulk_from=5, audiencelab_rate=500)
    bench.box.faults.add(Fault(endpoint="create-enrichment", status=429, times=1))
    await work_on(bench, crowd(9))
    share = await bench.redis.hget(keys.pace("audiencelab"), "share")
    assert 0.5 <= float(share) < 0.51


@pytest.mark.parametrize(("status", "reason"), [(401, "key"), (404, "path")])
async def test_a_wrong_key_or_path_pauses_the_stage(
    bulky: Workbench, status: int, reason: str
) -> None:
    """The job is kept until the setting is right."""
    bulky.box.faults.add(Fault(endpoint="create-enrichment", status=status))
    await see(bulky, crowd(9))
    await bulky.work_until(lambda: bulky.is_paused(Stage.ENRICH))
    pause = await bulky.pause(Stage.ENRICH)
    assert pause is not None
    assert reason in str(pause["reason"])
    assert await bulky.count(Stage.ENRICH, "waiting") == 12
    bulky.box.faults.clear()
    await bulky.work_until(bulky.is_idle)
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 12)


async def test_a_job_that_cannot_be_made_is_not_waited_for_once_they_are_switched_off(
    bulky: Workbench, make_bench: MakeBench
) -> None:
    """Where jobs are not to be had (404), ENRICH_BULK_FROM=0 lets everybody be asked about one by one."""
    bulky.box.faults.add(Fault(endpoint="create-enrichment", status=404))
    await see(bulky, crowd(9))
    await bulky.work_until(lambda: bulky.is_paused(Stage.ENRICH))
    single = make_bench(email_format="plain", enrich_bulk_from=0)
    await single.work_until(single.is_idle)
    assert calls(bulky) == (0, 12)
    await check_all_done(bulky, 12)


async def test_a_job_that_goes_well_tells_nothing_of_single_calls(make_bench: MakeBench) -> None:
    """They are other calls: while each of them fails nobody is buried, however often the job is looked at."""
    bench = make_bench(email_format="plain", enrich_bulk_from=30)
    bench.box.settings.job_end = "never"
    await see(bench, crowd(40))
    async with bench.at_work():
        await bench.until(lambda: len(bench.box.memory.account.jobs) == 1)
        bench.box.faults.add(Fault(endpoint="enrich", status=503, body={"message": "no"}))
        await see(bench, [person(100 + n, f"late{n}@example.com") for n in range(4)])
        await bench.until(lambda: bench.box.faults.hits > 30)
        assert await bench.count(Stage.ENRICH, "dead") == 0
        bench.box.faults.clear()
        await bench.until(partial(_are_done, bench, 4))


async def _are_done(bench: Workbench, people: int) -> bool:
    return await bench.count(Stage.ENRICH, "done") == people


async def test_a_file_that_stays_away_is_done_without(bulky: Workbench) -> None:
    """While AudienceLab is well, a file that cannot be had in many tries is given up: single calls answer, too."""
    bulky.box.faults.add(Fault(endpoint="enrichment-file", status=503))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 12)
    await check_all_done(bulky, 12)


async def until_made(bench: Workbench) -> None:
    """Work until the job is made, which is never over."""
    bench.box.settings.job_end = "never"

    async def is_made() -> bool:
        names = await bench.redis.zrange(keys.BULK, 0, 0)
        return bool(names) and await bench.redis.hexists(keys.bulk_job(names[0].decode()), "id")

    await bench.work_until(is_made)


async def test_whoever_is_in_a_job_still_waits(bulky: Workbench) -> None:
    """The books count everybody in a job, and so does whoever counts the work itself."""
    await see(bulky, crowd(60))
    await until_made(bulky)
    assert await bulky.row(Stage.ENRICH) == {"in": 63, "waiting": 63}
    await bulky.assert_balanced()


async def test_a_pause_holds_for_a_job(bulky: Workbench) -> None:
    """An operator's pause: nobody looks at the job until it is lifted."""
    await see(bulky, crowd(9))
    await until_made(bulky)
    await pauses.pause(bulky.redis, Stage.ENRICH, "lunch")
    bulky.box.settings.job_end = None
    looks = bulky.box.memory.calls_to("enrichments")
    await bulky.put(
        "scores", b"[]"
    )  # something else to do, by whose end a look would have been taken
    await bulky.work_until(lambda: is_done(bulky, Stage.UNPACK, 2))
    assert bulky.box.memory.calls_to("enrichments") == looks
    assert await bulky.count(Stage.ENRICH, "waiting") == 12

    await pauses.resume(bulky.redis, Stage.ENRICH)
    await bulky.work_until(bulky.is_idle)
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 12)


async def is_done(bench: Workbench, stage: Stage, n: int) -> bool:
    """Tell whether *n* pieces of work of *stage* are done or ignored."""
    row = await bench.row(stage)
    return row.get("done", 0) + row.get("ignored", 0) >= n


@pytest.mark.parametrize(("due_in_s", "is_rung"), [(3600, False), (0, True)])
async def test_a_job_is_rung_for_when_it_is_due(
    bulky: Workbench, due_in_s: int, is_rung: bool
) -> None:
    """The sweep is its clock: until then a stage with nothing else to do is left alone."""
    await see(bulky, crowd(9))
    await until_made(bulky)
    seconds, _ = await bulky.redis.time()
    (name,) = await bulky.redis.zrange(keys.BULK, 0, 0)
    await bulky.redis.zadd(keys.BULK, {name: (seconds + due_in_s) * 1000})
    # a bell that the stopped worker did not answer: its job would stand in the way of one of the same number
    await bulky.redis.delete(QUEUE_NAME, *await bulky.redis.keys("arq:job:*"))
    await ring_for_work(context_of(bulky))
    assert (Stage.ENRICH in await rung(bulky)) == is_rung


async def test_enrich_off_ends_a_job_without_an_answer(
    bulky: Workbench, make_bench: MakeBench
) -> None:
    """Switched off: everybody in the job is done, and may be asked about later."""
    await see(bulky, crowd(9))
    await until_made(bulky)
    off = make_bench(enrich="off", email_format="plain")
    await off.work_until(off.is_idle)
    assert await off.row(Stage.ENRICH) == {"in": 12, "done": 12}
    assert not await off.redis.exists(keys.enrichment(digest("U-5")))
    await off.assert_balanced()

    # what is left of the job is tidied up when asking is on again
    off.box.settings.job_end = None
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (2, 0)
    assert not await bulky.redis.keys(f"{keys.BULK}*")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_forgotten_do_not_come_back_with_a_result(bulky: Workbench, when: str) -> None:
    """Forgotten before the job is made, nobody is asked about them; forgotten later, nothing is kept."""
    people = crowd(9)
    await see(bulky, people)
    if when == "after":
        await until_made(bulky)
        bulky.box.settings.job_end = None
    else:
        bulky.box.faults.add(Fault(endpoint="create-enrichment", status=429))
        async with bulky.at_work():
            await bulky.until(lambda: bulky.is_paused(Stage.ENRICH))
    await forgetting.forget(bulky.redis, KNOWN[1])
    bulky.box.faults.clear()
    await bulky.work_until(bulky.is_idle)

    assert await bulky.row(Stage.ENRICH) == {"in": 12, "done": 11, "ignored": 1}
    kept = await everybody(bulky)
    assert "U-1" not in kept
    assert kept["U-0"].enrichment == "found"
    assert calls(bulky) == (1, 0)
    (job,) = bulky.box.memory.account.jobs.values()
    assert len(job.rows) == (3 if when == "after" else 2)
    await bulky.assert_balanced()


async def test_a_visitor_who_comes_again_meanwhile_is_kept_whole(bulky: Workbench) -> None:
    """What was seen while the job ran stays, and wins over what AudienceLab tells."""
    await see(bulky, crowd(9))
    await until_made(bulky)
    newer = Person(uuid="U-0", fields={"FIRST_NAME": "Seen"})
    await see(bulky, [newer])
    await bulky.work_until(lambda: is_done(bulky, Stage.ENRICH, 1))
    bulky.box.settings.job_end = None
    await bulky.work_until(bulky.is_idle)
    kept = (await everybody(bulky))["U-0"]
    assert kept.fields["FIRST_NAME"] == "Seen"
    assert kept.fields["LAST_NAME"] == PEOPLE[0]["LAST_NAME"]
    await check_all_done(bulky, 13)


async def test_a_job_that_is_lost_over_there_is_done_without(bulky: Workbench) -> None:
    """A list may be behind; a job that stays missing from it is given up."""
    await see(bulky, crowd(9))
    await until_made(bulky)
    bulky.box.memory.account.jobs.clear()
    looks = bulky.box.memory.calls_to("enrichments")
    await bulky.work_until(bulky.is_idle)
    assert bulky.box.memory.calls_to("enrichments") - looks >= MOST_MISSING
    assert calls(bulky) == (0, 12)
    await check_all_done(bulky, 12)


async def test_the_documented_form_serves_as_well(bulky: Workbench) -> None:
    """A service that speaks as the older reference says makes the job, too."""
    bulky.box.settings.dialect = "documented"
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 12)


async def test_a_lost_answer_of_a_job_without_a_name_ends_in_single_calls(bulky: Workbench) -> None:
    """The documented form names no jobs: whether one was made is not to be found out, and no second one is paid."""
    bulky.box.settings.dialect = "documented"
    bulky.box.faults.add(Fault(endpoint="create-enrichment", reset="after", times=1))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 12)
    await check_all_done(bulky, 12)


async def test_a_job_that_cannot_be_looked_for_is_given_up(bulky: Workbench) -> None:
    """Nobody waits for ever for a list that stays away: the time counts from when the job was begun."""
    bulky.timing = replace(bulky.timing, bulk_give_up_s=0.1)
    bulky.box.faults.add(Fault(endpoint="create-enrichment", reset="after", times=1))
    bulky.box.faults.add(Fault(endpoint="enrichments", status=404, body={"error": "no"}))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 12)
    await check_all_done(bulky, 12)


async def test_a_documented_job_asks_for_everything_of_the_people(bulky: Workbench) -> None:
    """What they are found by is not what is wanted back."""
    bulky.box.settings.dialect = "documented"
    await work_on(bulky, crowd(9))
    kept = await everybody(bulky)
    assert [kept[f"U-{n}"].fields["FIRST_NAME"] for n in range(3)] == [
        row["FIRST_NAME"] for row in PEOPLE[:3]
    ]
    assert calls(bulky) == (1, 0)


@pytest.mark.parametrize("setting", ["auto", "documented"])
async def test_whom_the_form_cannot_ask_about_stops_nobody(
    make_bench: MakeBench, setting: str
) -> None:
    """A visitor of a hash is not found where only addresses can be asked about; others go on."""
    bench = make_bench(email_format="plain", enrich_bulk_from=0, audiencelab_dialect=setting)
    bench.box.settings.dialect = "documented"
    await work_on(bench, [person(0, KNOWN[0])])
    await work_on(bench, [Person(uuid="U-9", hem_sha256=digest("x@example.com"))])
    await work_on(bench, [person(1, KNOWN[1]), person(2, KNOWN[2])])
    await check_all_done(bench, 4)


async def test_who_is_not_asked_about_is_no_sign_that_the_vendor_is_well(
    make_bench: MakeBench,
) -> None:
    """While all calls fail, visitors about whom none is made end no pause and bury nobody."""
    bench = make_bench(email_format="plain", enrich_bulk_from=0, audiencelab_dialect="documented")
    bench.box.settings.dialect = "documented"
    bench.box.faults.add(Fault(endpoint="enrich", status=503, body={"message": "Unavailable"}))
    async with bench.at_work():
        await see(bench, [person(0, KNOWN[0])])
        await bench.until(lambda: bench.is_paused(Stage.ENRICH))
        for n in range(12):
            await see(bench, [Person(uuid=f"V-{n}", hem_sha256=digest(f"{n}@example.com"))])
            await bench.until(partial(has_done, bench, n + 1))
    assert await bench.is_paused(Stage.ENRICH)
    assert await bench.row(Stage.ENRICH) == {"in": 13, "done": 12, "waiting": 1}


async def has_done(bench: Workbench, n: int) -> bool:
    """Tell whether `enrich` is through with *n* visitors."""
    return await bench.count(Stage.ENRICH, "done") >= n


async def test_a_first_visitor_of_a_hash_stops_nobody(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Who cannot be asked about is not found, also where only that call shows which form is spoken."""
    bench = make_bench(email_format="plain", enrich_bulk_from=0)
    bench.box.settings.dialect = "documented"
    await see(bench, [Person(uuid="U-9", hem_sha256=digest("x@example.com"))])
    await bench.work_until(bench.is_idle)
    assert "call failed" not in caplog.text  # a failure pauses the stage
    asked = bench.box.memory.calls_to("enrich")
    await work_on(bench, [Person(uuid="U-8", hem_sha256=digest("y@example.com"))])
    assert bench.box.memory.calls_to("enrich") == asked
    await work_on(bench, [person(n, address) for n, address in enumerate(KNOWN)])
    kept = await everybody(bench)
    assert {name: each.enrichment for name, each in kept.items()} == {
        **dict.fromkeys(("U-9", "U-8"), "not found"),
        **{f"U-{n}": "found" for n in range(len(KNOWN))},
    }


async def test_a_wrong_address_is_no_other_form(make_bench: MakeBench) -> None:
    """Where neither form is known, the address is wrong: the visitor of a hash waits for a right one."""
    bench = make_bench(email_format="plain", enrich_bulk_from=0)
    bench.box.faults.add(
        *(Fault(endpoint=each, status=404, body="<html>") for each in ("enrich", "enrichments"))
    )
    await see(bench, [Person(uuid="U-9", hem_sha256=digest("x@example.com"))])
    await bench.work_until(lambda: bench.is_paused(Stage.ENRICH))
    assert await bench.count(Stage.ENRICH, "waiting") == 1
    bench.box.faults.clear()
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 1, "done": 1}


async def test_the_first_call_of_all_may_be_refused(make_bench: MakeBench) -> None:
    """A service whose form is not known yet refuses one visitor: that one is buried, the stage goes on."""
    bench = make_bench(email_format="plain", enrich_bulk_from=0)
    bench.box.settings.dialect = "documented"
    refusal = {"message": "invalid email"}
    bench.box.faults.add(
        Fault(endpoint="enrich", status=422, body=refusal, addresses=["bad@example.com"])
    )
    await work_on(bench, [person(9, "bad@example.com")])
    await work_on(bench, [person(n, address) for n, address in enumerate(KNOWN)])
    (letter,) = await bench.dead(Stage.ENRICH)
    assert "invalid email" in letter.error
    assert await bench.row(Stage.ENRICH) == {"in": 4, "done": 3, "dead": 1}


async def test_two_workers_share_the_jobs(bulky: Workbench) -> None:
    """However many workers there are, a job is made once and everybody is merged once."""
    await see(bulky, crowd(200))
    async with bulky.at_work(), bulky.at_work():
        await bulky.until(bulky.is_idle)
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 203)


async def test_two_workers_with_one_job_merge_it_once(bulky: Workbench) -> None:
    """A lease that is over too early harms nobody."""
    bulky.timing = replace(bulky.timing, bulk_lease_s=0.001, bulk_poll_s=0.001)
    bulky.box.faults.add(Fault(endpoint="enrichment-file", latency_s=0.05))
    await see(bulky, crowd(200))
    async with bulky.at_work(), bulky.at_work():
        await bulky.until(bulky.is_idle)
    assert bulky.box.memory.calls_to("enrich") == 0
    await check_all_done(bulky, 203)


async def test_calls_for_jobs_count_in_the_rate(make_bench: MakeBench) -> None:
    """Making and looking take their turn with single calls: the next call is as far away as after one of those."""
    bench = make_bench(enrich_bulk_from=5, audiencelab_rate=0.01)
    await see(bench, crowd(9))
    await bench.work_until(lambda: len(bench.box.memory.account.jobs) == 1)
    due_ms = float(await bench.redis.hget(f"{keys.PREFIX}rate:audiencelab", "next") or 0)
    seconds, _ = await bench.redis.time()
    assert due_ms / 1000 - seconds > 50
    assert bench.box.memory.calls_to("enrichments") == 0


async def test_parts_without_a_job_are_asked_about_one_by_one(bulky: Workbench) -> None:
    """Should Redis have lost the job's own key, nobody is left behind."""
    await see(bulky, crowd(9))
    await until_made(bulky)
    names = await bulky.redis.keys(f"{keys.BULK}*")
    await bulky.redis.delete(*names)
    await bulky.work_until(bulky.is_idle)
    assert calls(bulky) == (1, 12)
    await check_all_done(bulky, 12)


async def test_a_letter_of_somebody_from_a_job_is_retried_as_any_other(bulky: Workbench) -> None:
    """Who is refused after a failed job lies in the dead letters, and a retry asks again."""
    bulky.box.settings.job_end = "FAILED"
    bulky.box.faults.add(
        Fault(
            endpoint="enrich", status=400, body={"error": "no"}, addresses=["nobody3@example.com"]
        )
    )
    await work_on(bulky, crowd(9))
    (letter,) = await bulky.dead(Stage.ENRICH)
    assert await bulky.row(Stage.ENRICH) == {"in": 12, "done": 11, "dead": 1}
    bulky.box.faults.clear()
    await dead_letters.retry(bulky.redis, letter.id)
    await bulky.work_until(bulky.is_idle)
    await check_all_done(bulky, 12)


async def test_ten_jobs_at_once_are_the_most(bulky: Workbench) -> None:
    """When so many are open, the others are asked about one by one."""
    for n in range(bulk_jobs.MOST_JOBS):
        await bulky.redis.zadd(keys.BULK, {f"job-{n}": 1e15})
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (0, 12)

"""Results of bulk jobs: each row goes to whom it is about, and half a file or a lost answer costs nobody his facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline import keys, visitors
from pipeline.addresses import digest
from pipeline.outcomes import Person, Stage
from sandbox.audiencelab_enrichment import _csv
from sandbox.faults import Fault
from sandbox.people import PEOPLE, Row
from tests.workbench import Workbench
from tests.workers.test_bulk import (
    KNOWN,
    calls,
    check_all_done,
    crowd,
    everybody,
    person,
    see,
    until_made,
    work_on,
)
from workers.bulk import MOST_MISSING, MOST_SHORT

pytestmark = pytest.mark.anyio

NOBODY = {"total_records": 0, "data": []}


@pytest.fixture
def bulky(make_bench: Callable[..., Workbench]) -> Workbench:
    """Give a workbench that asks in bulk about more than five."""
    return make_bench(email_format="plain", enrich_bulk_from=5)


def row_of(uuid: str, name: str, personal: str, verified: str = "") -> Row:
    """Return a row of a result that knows a name and addresses only."""
    known = {"UUID": uuid, "FIRST_NAME": name, "PERSONAL_EMAILS": personal}
    blank = dict.fromkeys(PEOPLE[0], "")
    return {**blank, **known, "PERSONAL_VERIFIED_EMAILS": verified}


async def answered_with(bench: Workbench, people: list[Person], rows: list[Row]) -> None:
    """Ask about *people* by one job, whose result has *rows*."""
    await see(bench, people)
    await until_made(bench)
    (job,) = bench.box.memory.account.jobs.values()
    job.rows = rows
    bench.box.settings.job_end = None
    await bench.work_until(bench.is_idle)


ANNA = row_of("AL-A", "Anna", "anna@example.com, bob@example.com")
BOB = row_of("AL-B", "Bob", "bob@example.com")
PAIR = [person(100, "anna@example.com"), person(101, "bob@example.com")]
OTHERS = [person(n, f"nobody{n}@example.com") for n in range(3, 9)]


@pytest.mark.parametrize("rows", [[ANNA, BOB], [BOB, ANNA]], ids=["mention first", "owner first"])
async def test_a_row_that_only_mentions_an_address_gives_way(
    bulky: Workbench, rows: list[Row]
) -> None:
    """In whatever order they come, a row is for whoever was asked about by its first address, or a verified one."""
    await answered_with(bulky, [*PAIR, *OTHERS], rows)
    kept = await everybody(bulky)
    assert [kept[f"U-{n}"].fields["FIRST_NAME"] for n in (100, 101)] == ["Anna", "Bob"]
    assert "anna@example.com" not in kept["U-101"].emails
    owners = await visitors.owners(bulky.redis, [digest("anna@example.com")])
    assert set(owners.values()) == {"U-100"}
    assert calls(bulky) == (1, 0)


async def test_a_row_that_mentions_an_address_serves_alone(bulky: Workbench) -> None:
    """As in a single call: nobody else is found by this address."""
    await answered_with(bulky, [*PAIR, *OTHERS], [ANNA])
    kept = await everybody(bulky)
    assert [kept[f"U-{n}"].fields["FIRST_NAME"] for n in (100, 101)] == ["Anna", "Anna"]


async def test_of_two_rows_that_fit_alike_none_is_taken(bulky: Workbench) -> None:
    """Whoever could be two people is asked about alone; all others have their answer."""
    twin = row_of("AL-X", "Xenia", KNOWN[0])
    people = [*crowd(0), *PAIR, *OTHERS]
    await answered_with(bulky, people, [twin, *PEOPLE[:3], ANNA, BOB])
    kept = await everybody(bulky)
    assert kept["U-0"].fields["FIRST_NAME"] == PEOPLE[0]["FIRST_NAME"]
    assert kept["U-101"].fields["FIRST_NAME"] == "Bob"
    assert calls(bulky) == (1, 1)
    assert await bulky.row(Stage.ENRICH) == {"in": 11, "done": 11}
    await bulky.assert_balanced()


async def test_a_person_who_comes_in_two_rows_is_one(bulky: Workbench) -> None:
    """The same id twice is no doubt about whom a row is for."""
    await work_on_rows(bulky, [PEOPLE[0], *PEOPLE[:3]])
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 9)


async def work_on_rows(bench: Workbench, rows: list[Row]) -> None:
    """Ask about a crowd of nine, and answer with *rows*."""
    await answered_with(bench, crowd(6), rows)


# half a file ---------------------------------------------------------------------------------------


def half_a_file(times: int | None) -> Fault:
    """Return a result file that ends after its first row, as if that were all."""
    body = b"".join(_csv(iter(PEOPLE[:1]))).decode()
    return Fault(endpoint="enrichment-file", status=200, body=body, times=times)


async def test_half_a_file_is_fetched_again(bulky: Workbench) -> None:
    """Fewer rows than the job tells: the others are missing, not unknown."""
    bulky.box.settings.result_file = "csv"
    bulky.box.faults.add(half_a_file(MOST_SHORT - 1))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 0)
    await check_all_done(bulky, 12)


async def test_after_some_tries_half_a_file_is_taken_for_what_it_tells(bulky: Workbench) -> None:
    """Who is in it is found; everybody else is asked about alone, and nobody is unknown by it."""
    bulky.box.settings.result_file = "csv"
    bulky.box.faults.add(half_a_file(None))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 11)
    await check_all_done(bulky, 12)


# a lost answer -------------------------------------------------------------------------------------


def behind(times: int) -> Fault:
    """Return a list of jobs that does not know the newest ones yet."""
    return Fault(endpoint="enrichments", status=200, body=NOBODY, times=times)


def lost(times: int) -> Fault:
    """Return a job that is made and whose answer is lost."""
    return Fault(endpoint="create-enrichment", reset="after", times=times)


async def test_a_list_that_is_behind_makes_no_second_job(bulky: Workbench) -> None:
    """A job of which nobody knows whether it was made is looked for several times before it is made again."""
    bulky.box.faults.add(lost(1))
    bulky.box.faults.add(behind(MOST_MISSING - 1))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (1, 0)
    assert await bulky.redis.hget(keys.BOOKS, "maybe_duplicate") is None
    await check_all_done(bulky, 12)


async def test_a_job_that_stays_missing_is_made_again_and_counted(bulky: Workbench) -> None:
    """The books tell of everybody who may have been asked about twice."""
    bulky.box.faults.add(lost(1))
    bulky.box.faults.add(behind(MOST_MISSING))
    await work_on(bulky, crowd(9))
    assert calls(bulky) == (2, 0)
    assert await bulky.redis.hget(keys.BOOKS, "maybe_duplicate") == b"12"
    await check_all_done(bulky, 12)


async def test_looks_for_a_lost_job_are_apart(bulky: Workbench) -> None:
    """Between two of them lies as much time as between two looks at a job."""
    bulky.timing = replace(bulky.timing, bulk_poll_s=600.0)
    bulky.box.faults.add(lost(1))
    bulky.box.faults.add(behind(1))
    await see(bulky, crowd(9))
    await bulky.work_until(lambda: _is_put_off(bulky))
    assert calls(bulky) == (1, 0)


async def _is_put_off(bench: Workbench) -> bool:
    jobs = await bench.redis.zrange(keys.BULK, 0, 0, withscores=True)
    seconds, _ = await bench.redis.time()
    return bool(jobs) and jobs[0][1] / 1000 - seconds > 300


async def test_a_job_is_not_made_for_ever(bulky: Workbench) -> None:
    """Answers that are always lost, over a list that never tells: in the end everybody is asked about alone."""
    bulky.box.faults.add(lost(1000))
    bulky.box.faults.add(behind(1000))
    await work_on(bulky, crowd(9))
    jobs, single = calls(bulky)
    assert single == 12
    assert jobs < 10
    assert int(await bulky.redis.hget(keys.BOOKS, "maybe_duplicate") or 0) == 12 * (jobs - 1)
    await check_all_done(bulky, 12)

"""`relay enrich jobs …`: many people at once, at a stand-in served on loopback; and the files that name them."""

from __future__ import annotations

import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from console.commands import BadUsage
from console.records import read_records
from sandbox.faults import Fault
from sandbox.people import PEOPLE
from tests.console.conftest import Relay, audited
from tests.vendors import Sandbox

pytestmark = pytest.mark.anyio

MARA = "mara.quill@example.com"


@pytest.fixture
def people(tmp_path: Path) -> str:
    """Give the name of a file with two people, one of them known to AudienceLab."""
    file = tmp_path / "people.csv"
    file.write_text(f"email,first_name\n{MARA},Mara\nnobody@example.com,\n")
    return str(file)


async def made(relay_at_vendors: Relay, people: str, *words: str) -> str:
    """Make a job; return its id."""
    order = ("enrich", "jobs", "create", people, "--name", "Spring", "--yes", "--json", *words)
    answer = await relay_at_vendors(*order)
    assert (answer.status, answer.err) == (0, "")
    return str(answer.json["id"])


async def test_a_job_is_made_watched_and_read(
    dialect: str,
    relay_at_vendors: Relay,
    box: Sandbox,
    redis: Redis,
    people: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the file to those who were found; the audit has names and numbers, and no address."""
    monkeypatch.setenv("AUDIENCELAB_RATE", "0")
    job_id = await made(relay_at_vendors, people)
    early = await relay_at_vendors("enrich", "jobs", "result", job_id, "--json")
    assert (early.status, early.json["kind"], early.json["read"]) == (1, "Unavailable", 0)
    for state in ("PROCESSING", "COMPLETED"):
        shown = await relay_at_vendors("enrich", "jobs", "show", job_id, "--json")
        assert (shown.json["status"], shown.json["is_over"]) == (state, state == "COMPLETED")
    found = await relay_at_vendors("enrich", "jobs", "result", job_id, "--json")
    assert (found.status, found.err) == (0, "")
    (person,) = [orjson.loads(line) for line in found.out.splitlines()]
    assert person["UUID"] == PEOPLE[0]["UUID"]
    table = await relay_at_vendors("enrich", "jobs", "result", job_id)
    assert person["UUID"] in table.out
    orders = [what for what, *_ in await audited(redis)]
    assert orders[:2] == ["enrich jobs create", "enrich jobs create finished"]
    assert (await audited(redis))[-1][:2] == ("enrich jobs result finished", 1)
    assert "@" not in str(await audited(redis))


async def test_where_a_result_lies_is_not_shown(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis, people: str
) -> None:
    """Its address may be all that somebody needs to read it: only that there is one is told."""
    box.settings.change({"polls": 1})
    job_id = await made(relay_at_vendors, people)
    listed = await relay_at_vendors("enrich", "jobs", "list", "--json")
    assert [(job["id"], job["has_result"]) for job in listed.json] == [(job_id, True)]
    shown = await relay_at_vendors("enrich", "jobs", "show", job_id)
    table = await relay_at_vendors("enrich", "jobs", "list")
    for answer in (listed, shown, table):
        assert job_id in answer.out
        assert "results/" not in answer.out


@pytest.mark.usefixtures("redis")
async def test_no_more_jobs_are_listed_than_wanted(
    relay_at_vendors: Relay, box: Sandbox, people: str
) -> None:
    """The newest first, as AudienceLab has them."""
    assert "No jobs." in (await relay_at_vendors("enrich", "jobs", "list")).out
    ids = [await made(relay_at_vendors, people) for _ in range(3)]
    listed = await relay_at_vendors("enrich", "jobs", "list", "--limit", "2", "--json")
    assert [job["id"] for job in listed.json] == [ids[2], ids[1]]


async def test_who_makes_a_job_is_asked_first(
    relay_at_vendors: Relay,
    box: Sandbox,
    redis: Redis,
    people: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is billed by the person: the question has their number, and for no nothing leaves."""
    order = ("enrich", "jobs", "create", people, "--name", "Spring")
    assert (await relay_at_vendors(*order)).status == 2
    answers = StringIO("n\n")
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", answers)
    answer = await relay_at_vendors(*order)
    assert answer.status == 1
    assert "2 people by EMAIL, FIRST_NAME" in answer.err
    assert box.memory.calls_to("create-enrichment") == 0
    assert await audited(redis) == []


async def test_a_job_that_may_have_been_made_is_unclear(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis, people: str
) -> None:
    """A second one would be billed again: the command says to look first."""
    box.faults.add(Fault(endpoint="create-enrichment", reset="after"))
    words = ("enrich", "jobs", "create", people, "--name", "Spring", "--yes")
    answer = await relay_at_vendors(*words)
    assert answer.status == 1
    assert "look before you try again" in answer.err
    assert [what for what, *_ in await audited(redis)][1] == "enrich jobs create unclear"


@pytest.mark.usefixtures("redis")
async def test_options_of_one_question_do_not_go_with_jobs(
    relay_at_vendors: Relay, box: Sandbox
) -> None:
    """An address or --json before `jobs` would be dropped silently: it is refused."""
    for option in (["--json"], ["--email", MARA]):
        answer = await relay_at_vendors("enrich", *option, "jobs", "list")
        assert answer.status == 2
    assert box.memory.calls_to("enrichments") == 0


# files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffEmail,Phone\r\na@b.example, 12\r\n\r\n,\r\n",
        '[{"email": "a@b.example", "phone": 12}, {"email": null, "PHONE": " "}]',
        '{"email": "a@b.example", "phone": "12"}\n\n{"email": ""}\n',
    ],
    ids=["csv", "json", "lines"],
)
def test_records_come_in_three_forms(text: str, tmp_path: Path) -> None:
    """Names in any case, numbers as their digits; what is empty does not leave, nor who has nothing."""
    file = tmp_path / "people"
    file.write_bytes(text.encode())
    columns, records = read_records(str(file), [])
    assert columns == ["EMAIL", "PHONE"]
    assert records == [{"EMAIL": "a@b.example", "PHONE": "12"}]


def test_records_come_by_stdin_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is stdin."""
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"email\na@b.example\n")))
    assert read_records("-", [])[1] == [{"EMAIL": "a@b.example"}]


def test_other_columns_of_a_file_stay_here(tmp_path: Path) -> None:
    """What AudienceLab does not match by is nobody's business: it is left out by name, never sent by accident."""
    file = tmp_path / "crm.csv"
    file.write_text("email,notes,phone\na@b.example,owes us,12\n")
    with pytest.raises(BadUsage, match="not known to match by NOTES"):
        read_records(str(file), [])
    assert read_records(str(file), ["phone"]) == (["PHONE"], [{"PHONE": "12"}])


@pytest.mark.parametrize(
    ("content", "chosen"),
    [
        (b"", []),
        (b"email\n", []),
        (b"email\n ,\n", []),
        (b"email,phone\na@b.example\n", []),
        (b'email\n"a@b.example\n', []),
        (b"email\na@b.example\n", ["phone"]),
        (b"\xff\xfe", []),
        (b'[{"email": ', []),
        (b'[["a@b.example"]]', []),
        (b'[{"email": ["a@b.example"]}]', []),
        (b'{"email": "a@b.example"} {', []),
    ],
)
def test_a_file_that_names_nobody_is_bad_usage(
    content: bytes, chosen: list[str], tmp_path: Path
) -> None:
    """The sentence repeats no address."""
    file = tmp_path / "people"
    file.write_bytes(content)
    with pytest.raises(BadUsage) as refused:
        read_records(str(file), chosen)
    assert "@" not in str(refused.value)


def test_a_file_that_is_not_there_is_bad_usage() -> None:
    """So is a name that no file can have."""
    for name in ("no-such-file", "bad\0name"):
        with pytest.raises(BadUsage):
            read_records(name, [])

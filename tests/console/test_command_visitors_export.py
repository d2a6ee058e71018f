"""`relay visitors export`: which visitors, which facts, in which form, and what is left when it breaks off."""

from __future__ import annotations

import asyncio
import csv
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from redis.asyncio import Redis

from console import export
from console.export_rows import COLUMNS, cell
from console.redis_server import EmbeddedRedis
from pipeline import keys
from pipeline.addresses import digest
from pipeline.clock import iso
from pipeline.visitors import Visitor
from tests.console.conftest import Relay
from tests.pipeline.acquaintances import meet

pytestmark = pytest.mark.anyio

ANN, BOB, CAT = (f"{name}@example.com" for name in ("ann", "bob", "cat"))
ROOT = Path(__file__).parents[2]
#: far more than the pipe between two processes holds, so that the export waits for its reader
MANY = 4000


def ann() -> Visitor:
    """Return somebody with every kind of score."""
    return Visitor(
        "ann-1",
        uuid="ann-1",
        personal_emails=[ANN],
        business_emails=["ann@shop.example"],
        fields={"FIRST_NAME": "=cmd|' /C calc'!A0", "COMPANY_NAME": "Shop, Inc", "SKILLS": ["a", "b"]},
        tags=["shop"],
        first_seen_at="2026-01-01T09:00:00Z",
        last_seen_at="2026-01-05T09:00:00.250Z",
        scores={
            "matched": "yes", "score": "5", "frequency": "Weekly", "send_time": "33",
            "last_seen": "2026-01-04 18:04:00 PM", "last_seen_auto_open": "TRUE", "devices": "phone|desktop",
            "new_score": "x",
        },
        scores_changed_at="2026-02-01T00:00:00.500Z",
    )  # fmt: skip


def bob() -> Visitor:
    """Return somebody with other scores, one of them unreadable."""
    return Visitor(
        "bob-1",
        uuid="bob-1",
        personal_emails=[BOB],
        tags=["news"],
        last_seen_at="2026-01-01T09:00:00Z",
        scores={"matched": "yes", "score": "2", "frequency": "daily", "last_seen": "soon"},
        scores_changed_at="2026-01-10T00:00:00.000Z",
    )


def cat() -> Visitor:
    """Return somebody without scores."""
    return Visitor("cat-1", uuid="cat-1", personal_emails=[CAT], phones=["+15550100"])


@pytest.fixture
async def people(redis: Redis) -> None:
    """Know three visitors."""
    for person in (ann(), bob(), cat()):
        await meet(redis, person)


async def crowd(redis: Redis, count: int, first: int = 0) -> list[str]:
    """Keep *count* visitors as the workers do, without the moves; return their ids."""
    names = [f"person-{n}" for n in range(first, first + count)]
    pipe = redis.pipeline(transaction=False)
    for name in names:
        person = Visitor(name, uuid=name, fields={"HEADLINE": "x" * 500})
        pipe.hset(keys.visitor(name), mapping={"version": "1", "document": person.document()})
        pipe.zadd(keys.VISITORS, {name: 1})
    await pipe.execute()
    return names


def objects(text: str) -> dict[str, Any]:
    """Read JSON Lines, by id."""
    found = [orjson.loads(line) for line in text.splitlines()]
    return {each["id"]: each for each in found}


def table(text: str) -> dict[str, dict[str, str]]:
    """Read a CSV, by id."""
    return {row["id"]: row for row in csv.DictReader(StringIO(text, newline=""))}


def in_folder(folder: Path) -> list[str]:
    """Return the names of the files that somebody's export left there."""
    return sorted(path.name for path in folder.iterdir() if "people" in path.name)


async def audited(redis: Redis) -> list[tuple[str, int, dict[str, Any]]]:
    """Return what, count and filter of all of the audit."""
    entries = [entry for _, entry in await redis.xrange(keys.AUDIT)]
    return [(e[b"what"].decode(), int(e[b"count"]), orjson.loads(e[b"filter"])) for e in entries]


# forms ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("people")
async def test_json_lines_are_exact(relay: Relay) -> None:
    """Each line is the visitor as `show --json` has it, nothing changed; --json alone means this form."""
    answer = await relay("visitors", "export", "--format", "jsonl")
    assert answer.status == 0
    found = objects(answer.out)
    assert found == {each.id: each.view() for each in (ann(), bob(), cat())}
    assert found["ann-1"]["fields"]["FIRST_NAME"].startswith("=cmd")
    machine = await relay("visitors", "export", "--json")
    assert objects(machine.out) == found
    assert machine.err == ""


@pytest.mark.usefixtures("people")
async def test_csv_has_typed_values_and_no_formulas(relay: Relay) -> None:
    """Numbers and times are readable by any program, unreadable ones empty; a formula has become text."""
    answer = await relay("visitors", "export")
    found = table(answer.out)
    assert found.keys() == {"ann-1", "bob-1", "cat-1"}
    row = found["ann-1"]
    assert (row["address"], row["score"], row["send_time"]) == (ANN, "5", "33")
    assert row["last_seen"] == "2026-01-04T18:04:00Z"
    assert row["FIRST_NAME"] == "'=cmd|' /C calc'!A0"
    assert row["COMPANY_NAME"] == "Shop, Inc"
    assert found["bob-1"]["last_seen"] == ""
    assert found["cat-1"]["score"] == ""
    assert found["cat-1"]["matched"] == ""
    assert "3 of 3 visitors exported" in answer.err


@pytest.mark.parametrize(
    "text",
    ["=1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\x00=1", "\uff1d1", "\uff0b1"],
)
def test_no_cell_is_a_formula(text: str) -> None:
    """Whatever a spreadsheet would evaluate, or strip until it could, gets an apostrophe in front."""
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["ann", "a=1", "3", "", "'t Hooft", "a-b", " b"])
def test_other_cells_are_left_alone(value: str) -> None:
    """Only the beginning of a cell matters."""
    assert cell(value) == value


@pytest.mark.usefixtures("people")
async def test_columns_are_chosen_and_ordered(relay: Relay) -> None:
    """Columns come in the order they are named, repeated or with commas; JSON keeps their types."""
    words = (
        "visitors",
        "export",
        "--columns",
        "score,id",
        "--columns",
        "devices,SKILLS,phones,score",
    )
    plain = await relay(*words)
    assert plain.out.splitlines()[0] == "score,id,devices,SKILLS,phones"
    assert table(plain.out)["ann-1"] == {
        "score": "5", "id": "ann-1", "devices": "phone|desktop", "SKILLS": "a|b", "phones": "",
    }  # fmt: skip
    assert table(plain.out)["cat-1"]["phones"] == "'+15550100"
    machine = objects((await relay(*words, "--json")).out)
    assert list(machine["ann-1"]) == ["score", "id", "devices", "SKILLS", "phones"]
    assert machine["ann-1"]["score"] == 5
    assert machine["ann-1"]["devices"] == ["phone", "desktop"]
    assert machine["cat-1"]["phones"] == ["+15550100"]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_every_column_can_be_written(relay: Relay, form: str) -> None:
    """No column fails for anybody, whatever is known of them."""
    answer = await relay("visitors", "export", "--format", form, "--columns", ",".join(COLUMNS))
    assert answer.status == 0
    rows = table(answer.out) if form == "csv" else objects(answer.out)
    assert {len(row) for row in rows.values()} == {len(COLUMNS)}


# filters --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ([], "ann bob cat"),
        (["--score-min", "2"], "ann bob"),
        (["--score-min", "3"], "ann"),
        (["--score-min", "0", "--score-max", "2"], "bob"),
        (["--score-max", "5"], "ann bob"),
        (["--frequency", "WEEKLY"], "ann"),
        (["--frequency", "weekly", "--frequency", "Daily"], "ann bob"),
        (["--seen-since", "2026-01-04T18:04:00Z"], "ann"),
        (["--seen-since", "2026-01-04T18:04:01Z"], ""),
        (["--seen-before", "2026-01-04T18:04:00Z"], ""),
        (["--seen-before", "2026-01-04T19:04:01+01:00"], "ann"),
        (["--visited-since", "2026-01-02"], "ann"),
        (["--visited-before", "2026-01-02"], "bob"),
        (["--visited-since", "2026-01-01T09:00:00", "--visited-before", "2026-01-05T09:00:00.250"], "bob"),
        (["--changed-since", "2026-02-01T00:00:00.500Z"], "ann"),
        (["--changed-since", "2026-02-01T00:00:00.501Z"], ""),
        (["--changed-since", "2026-01-10"], "ann bob"),
        (["--tag", "news"], "bob"),
        (["--tag", "news", "--tag", "shop", "--tag", "none"], "ann bob"),
        (["--tag", "news,shop", "--score-min", "3"], "ann"),
    ],
)  # fmt: skip
async def test_filters(relay: Relay, words: Sequence[str], meant: str) -> None:
    """All filters hold at once, any value of a repeated one does; who has no such fact is not meant."""
    answer = await relay("visitors", "export", "--json", *words)
    assert answer.status == 0
    assert sorted(objects(answer.out)) == [f"{name}-1" for name in meant.split()]


async def test_ages_count_from_redis(relay: Relay, redis: Redis) -> None:
    """An age is one by Redis's clock, and it is about the scores, not about other changes."""
    now = await redis.time()
    fresh = bob()
    fresh.scores_changed_at = iso(now[0] * 1000 - 60_000)
    seen = cat()
    seen.last_seen_at = iso(now[0] * 1000)
    for person in (ann(), fresh, seen):
        await meet(redis, person)
    answer = await relay("visitors", "export", "--json", "--changed-since", "2h")
    names = [*objects(answer.out)]
    assert "cat-1" not in names
    assert "bob-1" in names


@pytest.mark.parametrize(
    "words",
    [
        ["--format", "xml"],
        ["--score-min", "6"],
        ["--score-min", "4", "--score-max", "3"],
        ["--changed-since", "yesterday"],
        ["--columns", "first_name"],
        ["--columns", ","],
        ["--tag", ""],
        ["--tag", ","],
        ["--tag", "shop", "--tag", " "],
        ["--frequency", ""],
        ["--changed-since", ""],
        ["--score-min", ""],
        ["--output", ""],
        ["--output", "nowhere/people.csv"],
        ["--output", "."],
        ["--output", "/dev/null"],
    ],
)
async def test_wrong_calls_end_with_2(relay: Relay, words: Sequence[str]) -> None:
    """What cannot be meant is told before anything is read."""
    answer = await relay("visitors", "export", *words)
    assert (answer.status, answer.out) == (2, "")
    machine = await relay("visitors", "export", *words, "--json")
    assert machine.status == 2
    assert isinstance(machine.json["error"], str)


async def test_help_shows_examples(relay: Relay) -> None:
    """`--help` tells every filter and how the command is typed."""
    answer = await relay("visitors", "export", "--help")
    assert answer.status == 0
    assert "Example: relay visitors export --format csv" in " ".join(answer.out.split())


async def test_json_and_csv_exclude_each_other_on_stdout(relay: Relay) -> None:
    """--json promises JSON and nothing else."""
    assert (await relay("visitors", "export", "--json", "--format", "csv")).status == 2


@pytest.mark.usefixtures("people")
async def test_a_dash_is_standard_output(relay: Relay, tmp_path: Path) -> None:
    """`--output -` writes no file of that name: the rows are printed, as without it."""
    answer = await relay("visitors", "export", "--output", "-")
    assert answer.status == 0
    assert len(table(answer.out)) == 3
    assert not (tmp_path / "-").exists()
    assert (
        await relay("visitors", "export", "--output", "-", "--format", "csv", "--json")
    ).status == 2


# files ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("people")
async def test_a_file_is_private_and_replaced_whole(relay: Relay, tmp_path: Path) -> None:
    """Only its owner may read it, also where one was that everybody could; stdout gets the summary."""
    goal = tmp_path / "people.csv"
    goal.write_text("old")
    goal.chmod(0o644)
    link = tmp_path / "link.csv"
    link.symlink_to(goal)
    answer = await relay("visitors", "export", "--output", str(link), "--json", "--format", "csv")
    assert answer.status == 0
    assert (answer.json["exported"], answer.json["looked_at"]) == (3, 3)
    assert answer.json["output"] == str(goal)
    assert answer.json["next_changed_since"] < answer.json["started_at"]
    assert table(goal.read_text()).keys() == {"ann-1", "bob-1", "cat-1"}
    assert stat.S_IMODE(goal.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert in_folder(tmp_path) == ["people.csv"]
    plain = await relay("visitors", "export", "--output", str(goal))
    assert plain.out.startswith("3 of 3 visitors are in ")
    assert plain.err == ""


def test_a_file_is_for_its_owner_from_the_first_byte(tmp_path: Path) -> None:
    """Until all is there, it has another name, and under that nobody else may read it."""
    goal = tmp_path / "people.csv"
    with export.whole_file(goal) as write:
        write(b"some")
        assert not goal.exists()
        part = next(tmp_path.glob(".people.csv.*.part"))
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
    assert goal.read_bytes() == b"some"


async def test_nobody_is_an_export_too(relay: Relay, redis: Redis) -> None:
    """Where nobody is known, or meant, there is a header and no failure."""
    await redis.ping()
    assert len((await relay("visitors", "export")).out.splitlines()) == 1
    machine = await relay("visitors", "export", "--json")
    assert (machine.status, machine.out) == (0, "")


@pytest.mark.usefixtures("people")
async def test_a_file_shows_a_bar(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar is on stderr when that is a terminal, and never among rows on a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    filed = await relay("visitors", "export", "--output", str(tmp_path / "people.csv"))
    assert "3/3" in filed.err
    assert "3/3" in (await relay("visitors", "export")).err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "3/3" not in (await relay("visitors", "export")).err


# walking --------------------------------------------------------------------------------------------------


async def test_everybody_once_while_others_come_and_go(redis: Redis) -> None:
    """Who is there all the time is met exactly once, however the index grows and shrinks meanwhile."""
    staying = set(await crowd(redis, 1000))
    going = await crowd(redis, 15_300, first=100_000)
    met: list[str] = []
    async for page in export.pages(redis):
        met += page
        if len(met) == 2 * export.PAGE:  # the server begins a larger table
            going += await crowd(redis, 5000, first=200_000)
        if len(met) == 20 * export.PAGE:  # and from now on it walks a smaller one
            await redis.zrem(keys.VISITORS, *going)
            assert len(staying & set(met)) > 100
    assert len(met) == len(set(met))
    assert staying <= set(met)


class Repeating:
    """Answers as a server may whose index shrinks during a walk: the second part has some of the first again."""

    async def zscan(
        self, name: str, cursor: int, count: int
    ) -> tuple[int, list[tuple[bytes, float]]]:
        """Return the part that *cursor* begins."""
        parts = [["ann", "bob"], ["bob", "cat", "ann"], ["dan"]]
        return (cursor + 1) % 3, [(each.encode(), 1.0) for each in parts[cursor]]


async def test_whom_redis_tells_twice_is_met_once() -> None:
    """A walk by Redis's cursor gives everybody at least once; an export at most once."""
    met = [page async for page in export.pages(cast("Redis", Repeating()))]
    assert met == [["ann", "bob", "cat", "dan"]]


def test_what_was_met_is_remembered_in_little_room() -> None:
    """Nothing is forgotten as the table grows, and a name takes at most 32 bytes."""
    met, names = export.Met(), [f"person-{n}" for n in range(20_000)]
    assert all(met.is_new(name) for name in names)
    assert not any(met.is_new(name) for name in names)
    assert len(met._slots) * met._slots.itemsize <= 32 * len(names)


@pytest.mark.usefixtures("people")
async def test_who_left_meanwhile_is_left_out(relay: Relay, redis: Redis) -> None:
    """The index may name somebody whose visitor has expired or was forgotten."""
    await redis.delete(keys.visitor("bob-1"))
    answer = await relay("visitors", "export", "--json")
    assert sorted(objects(answer.out)) == ["ann-1", "cat-1"]


# audit ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("people")
async def test_exports_are_audited(relay: Relay, redis: Redis) -> None:
    """Who, when, which filters, how many; before the first is read and at the end; nobody is named."""
    await relay(
        "visitors", "export", "--score-min", "3", "--tag", "shop", "--changed-since", "2026-01-01"
    )
    words = {
        "changed_since": "2026-01-01T00:00:00.000Z", "score_min": 3, "tags": ["shop"],
        "format": "csv", "columns": None, "to": "stdout",
    }  # fmt: skip
    assert await audited(redis) == [("export", 3, words), ("export finished", 1, words)]
    entry = (await redis.xrange(keys.AUDIT))[0][1]
    assert entry[b"who"]
    assert entry[b"when"]
    assert b"example.com" not in repr(entry).encode()
    assert digest(ANN) not in repr(entry)


# breaking off ---------------------------------------------------------------------------------------------


def exporting(
    url: str, home: Path, *words: str, before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Begin an export as a process of its own, with both its outputs in pipes."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.Popen(
        [*before, sys.executable, "-m", "console.main", "visitors", "export", *words],
        env={**kept, "PYTHONPATH": str(ROOT), "REDIS_URL": url, "RELAY_HOME": str(home)},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
async def full_redis(own_redis: EmbeddedRedis) -> EmbeddedRedis:
    """Run a server of its own with more visitors than a pipe holds."""
    redis = Redis.from_url(own_redis.url)
    await crowd(redis, MANY)
    await redis.aclose()
    return own_redis


async def test_a_lost_redis_says_how_far_it_came(full_redis: EmbeddedRedis, tmp_path: Path) -> None:
    """Half an export ends with 1, and the numbers fit what was printed; with --json all lines stay JSON.

    Two exports at once, because each tries for seconds to reach Redis again.
    """
    with exporting(full_redis.url, tmp_path) as people:
        with exporting(full_redis.url, tmp_path, "--json") as program:
            assert people.stdout and people.stderr and program.stdout  # noqa: PT018 - pipes
            printed, lines = people.stdout.read(1000), program.stdout.read(1000)
            full_redis.stop()
            # who is not read waits at its pipe and does not notice yet
            rest = [asyncio.to_thread(each.read) for each in (people.stdout, program.stdout)]
            ends = await asyncio.gather(*rest)
        said = people.stderr.read().decode()
    assert (people.returncode, program.returncode) == (1, 1)
    exported = len(table((printed + ends[0]).decode()))
    assert 0 < exported < MANY
    assert f"of {MANY} visitors were looked at, {exported} exported" in said
    assert "Traceback" not in said
    told = [orjson.loads(line) for line in (lines + ends[1]).splitlines()]
    assert told[-1]["exported"] == len(told) - 1
    assert told[-1]["of"] == MANY
    assert "Redis" in told[-1]["error"]


@pytest.mark.parametrize("words", [[], ["--json"]])
async def test_a_reader_who_goes_is_told_plainly(
    full_redis: EmbeddedRedis, tmp_path: Path, words: Sequence[str]
) -> None:
    """`relay visitors export | head` ends with a sentence, if any, is audited and has no traceback."""
    with exporting(full_redis.url, tmp_path, *words) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(1000)
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 1
    # with --json an error belongs to stdout, where nobody is
    assert len(said.splitlines()) == (0 if words else 1)
    assert words or "closed by its reader" in said
    redis = Redis.from_url(full_redis.url)
    told = await audited(redis)
    await redis.aclose()
    assert [what for what, _, _ in told] == ["export", "export interrupted"]


async def test_ctrl_c_ends_after_a_page(full_redis: EmbeddedRedis, tmp_path: Path) -> None:
    """Interrupted, it says how far it came."""
    with exporting(full_redis.url, tmp_path) as process:
        assert process.stdout
        assert process.stderr
        head = process.stdout.read(1000)
        process.send_signal(2)
        printed = len(table((head + process.stdout.read()).decode()))
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert said.startswith("Interrupted.")
    assert f"{printed} exported" in said


async def test_a_redis_that_was_restarted_is_noticed(
    full_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """The place of a walk means nothing to another run of the server, so such an export is not whole."""
    with exporting(full_redis.url, tmp_path) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(1000)
        full_redis.stop()
        full_redis.start()
        process.stdout.read()
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert "export again" in said


async def test_a_file_that_breaks_off_leaves_the_old_one(
    full_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """On a full disk the old file stays as it was, nothing else is left, and the reason is told."""
    goal = tmp_path / "people.csv"
    goal.write_text("old")
    limited = ["sh", "-c", 'ulimit -f 200; exec "$0" "$@"']
    with exporting(
        full_redis.url, tmp_path, "--output", str(goal), "--columns", "HEADLINE", before=limited
    ) as process:
        assert process.stderr
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert f"{goal} cannot be written: File too large." in said
    assert f"of {MANY} visitors were looked at" in said
    assert f"nothing is in {goal}" in said
    assert goal.read_text() == "old"
    assert in_folder(tmp_path) == ["people.csv"]

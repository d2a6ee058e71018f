"""`relay segments import` and `relay pixels backfill`: resumable, told in words, and in the audit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from pipeline import imports, keys
from pipeline.imports import Import, Kind
from pipeline.queues import create_groups
from sandbox.faults import Fault, broken
from tests.console.conftest import HOOK_TOKEN, Relay, audited
from tests.vendors import KEY, Sandbox, running_sandbox

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def box(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sandbox]:
    """Run the stand-ins, and set what leads to them."""
    await create_groups(redis)
    async with running_sandbox() as sandbox:
        monkeypatch.setenv("AUDIENCELAB_API_KEY", KEY)
        monkeypatch.setenv("AUDIENCELAB_BASE_URL", sandbox.audiencelab_url)
        monkeypatch.setenv("AUDIENCELAB_RATE", "0")
        yield sandbox


async def test_a_segment_is_imported(relay: Relay, redis: Redis, box: Sandbox) -> None:
    """The machine form tells what was done; the pages wait in the inbox, and the audit knows of it."""
    words = ("segments", "import", "segment-25", "--page-size", "10", "--tag", "buyers", "--json")
    answer = await relay(*words)
    assert answer.status == 0
    told = {
        name: answer.json[name] for name in ("kind", "id", "pages", "rows", "total", "finished")
    }
    assert told == {
        "kind": "segment",
        "id": "segment-25",
        "pages": 3,
        "rows": 25,
        "total": 25,
        "finished": True,
    }
    assert await redis.xlen(keys.queue("unpack")) == 3
    about = {"kind": "segment", "id": "segment-25"}
    assert await audited(redis) == [("import", 0, about), ("import finished", 25, about)]


async def test_a_pixel_is_backfilled(relay: Relay, redis: Redis, box: Sandbox) -> None:
    """Found by the id that its events carry; people read how many rows came."""
    shop = next(iter(box.memory.account.pixels.values()))
    answer = await relay("pixels", "backfill", shop.provider_id)
    assert answer.status == 0, answer
    assert "250 rows in 1 pages" in answer.out
    assert box.memory.calls_to("pixel") == 1
    forced = await relay("pixels", "backfill", shop.id, "--version", "v4", "--json")
    assert forced.json["rows"] == 250
    assert box.memory.calls_to("pixel-v4") == 1


async def test_a_finished_import_is_begun_again_only_when_told_so(
    relay: Relay, redis: Redis, box: Sandbox
) -> None:
    """The second call says that it is finished and that nothing was walked, and how to do it again."""
    first = await relay("segments", "import", "segment-5", "--json")
    again = await relay("segments", "import", "segment-5")
    assert again.status == 0
    assert "relay segments import segment-5 --restart" in again.out
    assert box.memory.calls_to("segment") == 1
    assert first.json["walked"] is True
    told = await relay("segments", "import", "segment-5", "--json")
    assert (told.status, told.json) == (0, {**first.json, "walked": False})
    assert (await relay("segments", "import", "segment-5", "--restart")).status == 0
    assert box.memory.calls_to("segment") == 2


async def test_an_import_that_is_short_says_so(relay: Relay, redis: Redis, box: Sandbox) -> None:
    """A list that ends before the rows that it tells of is finished, and told so each time, to programs and people."""
    rows = [{"UUID": f"U-{n}", "FIRST_NAME": "Ada"} for n in range(10)]
    body = {"data": rows, "total_records": 100, "has_more": False}
    box.faults.add(Fault(endpoint="segment", status=200, body=body, times=2))
    answer = await relay("segments", "import", "few", "--json")
    assert (answer.status, answer.json["rows"], answer.json["short"]) == (0, 10, True)
    for restart in (["--restart"], []):
        told = await relay("segments", "import", "few", *restart)
        assert told.status == 0
        assert "tells of 100 rows, and gave no more: some may be missing" in told.err
    whole = await relay("segments", "import", "segment-5", "--json")
    assert whole.json["short"] is False


async def test_an_interrupted_import_goes_on(relay: Relay, redis: Redis, box: Sandbox) -> None:
    """It says so, also when an outage ended it; the same command does the rest, in pages of any size."""
    begun = Import(Kind.SEGMENT, "segment-25", 10)
    one, _ = await imports.take(redis, begun, "me")
    one = await imports.note(redis, one, "me", next_page=3, pages=2, rows=20, total=25)
    await imports.leave(redis, one, "me")
    box.faults.add(Fault(endpoint="segment", status=401, body={"message": "Invalid API key"}))
    failed = await relay("segments", "import", "segment-25", "--json")
    assert failed.status == 1
    assert "AUDIENCELAB_API_KEY" in failed.json["error"]
    assert "`relay segments import segment-25` goes on" in failed.json["error"]
    assert (failed.json["rows"], failed.json["finished"]) == (20, False)
    box.faults.clear()
    answer = await relay("segments", "import", "segment-25", "--page-size", "7", "--json")
    assert answer.status == 0
    assert (answer.json["pages"], answer.json["rows"], answer.json["finished"]) == (4, 31, True)
    assert [what for what, *_ in await audited(redis)] == [
        "import resumed",
        "import interrupted",
        "import resumed",
        "import finished",
    ]


async def test_ctrl_c_leaves_it_resumable_and_says_so(
    relay: Relay, redis: Redis, redis_url: str, box: Sandbox, tmp_path: Path
) -> None:
    """A real process, stopped while it waits for an outage to end, writes down where it was."""
    box.faults.add(broken("segment"))
    environment = {**os.environ, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console.main", "segments", "import", "segment-25", "--json"),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.01)
            if box.memory.calls_to("segment"):
                break
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    told = orjson.loads(out)
    assert process.returncode == 1
    assert told["error"].startswith("Interrupted. 0 rows are imported")
    assert "goes on where it stopped" in told["error"]
    assert await redis.hget(keys.import_of("segment", "segment-25"), "holder") is None
    box.faults.clear()
    assert (await relay("segments", "import", "segment-25", "--json")).json["rows"] == 25


async def test_a_terminal_shows_a_bar(
    relay: Relay, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at what the first page told; elsewhere stderr stays empty."""
    assert (await relay("segments", "import", "segment-24", "--page-size", "10")).err == ""
    monkeypatch.setenv("TERM", "xterm")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    answer = await relay("segments", "import", "segment-25", "--page-size", "10")
    assert "25/25" in answer.err
    assert "25 rows in 3 pages" in answer.out


async def test_what_another_walks_is_left_alone(relay: Relay, redis: Redis, box: Sandbox) -> None:
    """A second command in the middle of the first is refused."""
    await imports.take(redis, Import(Kind.SEGMENT, "segment-25", 10), "somebody")
    answer = await relay("segments", "import", "segment-25", "--json")
    assert answer.status == 1
    assert "at this moment" in answer.json["error"]
    assert box.memory.calls_to("segment") == 0


async def test_an_unknown_id_fails_in_words(relay: Relay, redis: Redis, box: Sandbox) -> None:
    """Segments and pixels alike."""
    for words, what in ((("segments", "import"), "segment"), (("pixels", "backfill"), "pixel")):
        answer = await relay(*words, "nobody", "--json")
        assert answer.status == 1
        assert f"AudienceLab knows no {what} of this id" in answer.json["error"]


async def test_an_unknown_id_leaves_nothing(relay: Relay, redis: Redis, box: Sandbox) -> None:
    """A slip of the hand is not written down, and nothing is promised to go on; what was begun stays as it is."""
    answer = await relay("segments", "import", "nobody", "--json")
    assert "goes on" not in answer.json["error"]
    assert await redis.keys("{relay}:import:*") == []
    one, _ = await imports.take(redis, Import(Kind.SEGMENT, "gone", 10), "me")
    one = await imports.note(redis, one, "me", next_page=3, pages=2, rows=20, total=25)
    await imports.leave(redis, one, "me")
    answer = await relay("segments", "import", "gone", "--json")
    assert answer.json["error"].endswith("20 rows are imported.")
    known = await imports.read(redis, Kind.SEGMENT, "gone")
    assert known is not None
    assert known.rows == 20


async def test_an_unknown_id_that_workers_walk_stays_put_off(
    relay: Relay, redis: Redis, box: Sandbox
) -> None:
    """What a worker noted of it is not forgotten by a try by hand: it would ask again at once."""
    one, _ = await imports.take(redis, Import(Kind.SEGMENT, "nobody", 10), "worker")
    await imports.leave(redis, one, "worker", error="unknown", again_at_ms=5)
    assert (await relay("segments", "import", "nobody", "--json")).status == 1
    known = await imports.read(redis, Kind.SEGMENT, "nobody")
    assert known is not None
    assert (known.again_at_ms or 0) > 5


async def test_why_it_waits_has_no_token_in_it(
    relay: Relay, redis: Redis, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor's words may repeat a hook's URL: what is told of a wait is hidden as errors are."""
    monkeypatch.setenv("HOOK_TOKENS", HOOK_TOKEN)
    words = {"message": f"busy with https://relay.example.com/in?token={HOOK_TOKEN}"}
    box.faults.add(Fault(endpoint="segment", status=503, body=words, times=1))
    answer = await relay("segments", "import", "segment-5", "--json")
    assert answer.status == 0
    assert "It waits, and goes on by itself" in answer.err
    assert "?token=****" in answer.err
    assert HOOK_TOKEN not in answer.err


async def test_an_error_that_was_kept_has_no_token_in_it(
    relay: Relay, redis: Redis, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may have kept a vendor's words, which may repeat a hook's URL: they are hidden when they are shown."""
    monkeypatch.setenv("HOOK_TOKENS", HOOK_TOKEN)
    await relay("segments", "import", "segment-5", "--json")
    words = f"busy with https://relay.example.com/in?token={HOOK_TOKEN}"
    await redis.hset(keys.import_of("segment", "segment-5"), "error", words)
    answer = await relay("segments", "import", "segment-5", "--json")
    assert answer.json["walked"] is False
    assert answer.json["error"] == "busy with https://relay.example.com/in?token=****"


async def test_what_a_walk_logs_stays_off_the_terminal(
    relay: Relay, redis: Redis, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python prints warnings that nobody handles, among bars and machine forms; a sentence of ours tells the same."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # as a command's own process has it
    box.faults.add(Fault(endpoint="segment", status=503, times=1))
    answer = await relay("segments", "import", "segment-5", "--json")
    assert answer.status == 0
    assert answer.err.count("\n") == 1
    assert "import waits" not in answer.err


async def test_rows_that_are_missing_at_the_end_are_told_of(
    relay: Relay, redis: Redis, box: Sandbox
) -> None:
    """A list may end before the rows that it tells of: the import is finished, and says so."""
    rows = [{"UUID": "u-1", "FIRST_NAME": "Ana"}]
    body = {"total_records": 3, "page_size": 1, "page": 1, "total_pages": 1, "data": rows}
    box.faults.add(Fault(endpoint="segment", status=200, body=body))
    answer = await relay("segments", "import", "segment-5")
    assert answer.status == 0, answer
    assert "tells of 3 rows, and gave no more" in answer.err


async def test_who_waits_is_told_why_once(
    relay: Relay, redis: Redis, redis_url: str, box: Sandbox, tmp_path: Path
) -> None:
    """Where no bar is shown the first wait is one line on stderr; stdout stays the machine's."""
    for _ in range(8):
        await redis.xadd(keys.queue("unpack"), {"p": "x"})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console.main", "segments", "import", "segment-25", "--json"),
        cwd=tmp_path,
        env={**os.environ, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        assert process.stderr
        line = await process.stderr.readline()
        await redis.xadd(keys.queue("unpack"), {"p": "x"})  # another reason, which is not told
        await redis.xtrim(keys.queue("unpack"), maxlen=0)
        out, rest = await process.communicate()
    assert b"8 entries wait to be unpacked" in line
    assert (process.returncode, rest) == (0, b"")
    assert orjson.loads(out)["rows"] == 25


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("segments", "import", "a/b"), "id"),
        (("segments", "import", ""), "id"),
        (("segments", "import", "s", "--page-size", "5001"), "5000"),
        (("pixels", "backfill", "p", "--page-size", "1001"), "1000"),
        (("segments", "import", "s", "--tag", "no spaces"), "tag"),
        (("pixels", "backfill", "p", "--version", "v5"), "v5"),
    ],
)
async def test_what_cannot_be_meant_is_bad_usage(
    relay: Relay, box: Sandbox, redis: Redis, words: tuple[str, ...], told: str
) -> None:
    """Status 2, and nothing is asked or written."""
    answer = await relay(*words, "--json")
    assert answer.status == 2
    assert told in answer.json["error"]
    assert await redis.keys("{relay}:import:*") == []


async def test_without_the_key_nothing_is_begun(relay: Relay, redis: Redis) -> None:
    """The setting that is missing is named."""
    answer = await relay("segments", "import", "s", "--json")
    assert answer.status == 2
    assert "AUDIENCELAB_API_KEY" in answer.json["error"]

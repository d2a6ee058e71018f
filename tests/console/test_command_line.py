"""Every command: help with an example, exit statuses, and nothing but JSON on stdout with --json."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from redis.asyncio import Redis

from console import commands
from console.redis_server import EmbeddedRedis
from pipeline import keys
from pipeline.home import Address, Home
from tests.console.conftest import Relay

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "up",
    "status",
    "dead",
    "dead list",
    "dead show",
    "dead retry",
    "dead drop",
    "pause",
    "resume",
    "visitors",
    "visitors show",
    "visitors export",
    "visitors forget",
    "visitors allow",
    "pixels",
    "pixels list",
    "pixels show",
    "pixels create",
    "pixels delete",
    "pixels check",
    "pixels backfill",
    "pixels events",
    "audiences",
    "audiences list",
    "audiences show",
    "audiences create",
    "audiences custom",
    "audiences delete",
    "audiences attributes",
    "audiences check",
    "audiences preview",
    "audiences records",
    "segments import",
    "enrich",
    "enrich jobs",
    "enrich jobs create",
    "enrich jobs list",
    "enrich jobs show",
    "enrich jobs result",
    "scores",
    "subscribe",
    "verify",
    "send-times",
    "doctor",
    "send",
]
GROUPS = ("dead", "visitors", "pixels", "audiences", "segments", "enrich jobs")


def relay_process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `relay` as a process of its own, with no settings but *environment*."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "console.main", *words],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
async def test_help_shows_an_example(command: str, relay: Relay) -> None:
    """`--help` of every command ends well and shows how the command is typed."""
    answer = await relay(*command.split(), "--help")
    assert answer.status == 0
    assert f"Example: relay {command}" in " ".join(answer.out.split())


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in GROUPS])
async def test_every_command_has_a_machine_form(command: str, relay: Relay) -> None:
    """`--json` is an option of every command."""
    assert "--json" in (await relay(*command.split(), "--help")).out


@pytest.mark.parametrize(
    "words",
    [
        ["dead", "list", "--stage", "nowhere"],
        ["dead", "list", "--reason", "whatever"],
        ["dead", "list", "--since", "yesterday"],
        ["dead", "list", "--limit", "0"],
        ["dead", "show"],
        ["dead", "retry"],
        ["dead", "drop"],
        ["dead", "retry", "--all", "--stage", "forward"],
        ["dead", "retry", "some-id", "--all"],
        ["dead", "retry", "--resume", "--all"],
        ["dead", "retry", "--all", "--rate", "-1", "--yes"],
        ["dead", "retry", "--all", "--rate", "inf", "--yes"],
        ["dead", "drop", "--all", "--rate", "inf", "--yes"],
        ["dead", "retry", "--all"],
        ["dead", "drop", "--stage", "forward"],
        ["pause", "nowhere"],
        ["resume", "nowhere"],
        ["visitors", "forget", "ada@example.com"],
        ["visitors", "show", " "],
        ["send", "nobody"],
        ["send", "pixel", "no-such-file"],
        ["status", "--unknown"],
        ["unknown"],
    ],
)
async def test_bad_usage_ends_with_2(words: list[str], relay: Relay) -> None:
    """A wrong call says why on stderr; with --json as an error on stdout, and nothing else there."""
    plain = await relay(*words)
    assert (plain.status, plain.out) == (2, "")
    assert plain.err.strip()
    machine = await relay(*words, "--json")
    assert (machine.status, machine.err) == (2, "")
    assert isinstance(machine.json["error"], str)


async def test_wrong_settings_are_listed(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every problem is told at once, and the command ends with 2."""
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("HOOK_TOKENS", "short")
    wrong = await relay("status")
    assert wrong.status == 2
    assert "PORT" in wrong.err
    assert "HOOK_TOKENS" in wrong.err
    machine = await relay("status", "--json")
    assert machine.status == 2
    assert any("PORT" in problem for problem in machine.json["problems"])
    assert machine.err == ""


async def test_no_redis_is_a_matter_of_settings(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without REDIS_URL and without a running `relay up` the answer is one sentence and 2."""
    monkeypatch.delenv("REDIS_URL")
    answer = await relay("status", "--json")
    assert answer.status == 2
    assert "REDIS_URL" in answer.json["error"]


def test_an_unreachable_redis_is_a_failure() -> None:
    """A Redis that does not answer ends the command with 1 and one sentence without its password."""
    answer = relay_process("status", REDIS_URL="redis://:hidden-word@127.0.0.1:1/0")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert "hidden-word" not in answer.stderr
    assert "does not answer at redis://127.0.0.1:1/0 (" in answer.stderr


async def test_a_redis_that_hangs_is_not_waited_for_at_every_try(
    relay: Relay, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lives and says nothing is left after one time, not after one for each try of the pool."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setattr(commands, "ANSWERS_WITHIN_S", 0.2)
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        answer = await relay("status")
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    assert answer.status == 1
    assert f"does not answer at {own_redis.url} (TimeoutError)" in answer.err


@pytest.mark.parametrize(
    ("spoil", "words", "told"),
    [
        (["CONFIG", "SET", "requirepass", "hidden-word"], ["status"], "password"),
        (
            ["CONFIG", "SET", "maxmemory", "1"],
            ["visitors", "forget", "a@b.example", "--yes"],
            "Redis is full",
        ),
        (
            ["REPLICAOF", "127.0.0.1", "1"],
            ["visitors", "forget", "a@b.example", "--yes"],
            "primary",
        ),
        (["REPLICAOF", "127.0.0.1", "1"], ["pause", "forward"], "primary"),
        (["SET", keys.PAUSED, "no hash"], ["pause", "forward"], "WRONGTYPE"),
    ],
    ids=["password", "full", "replica", "replica-script", "refused"],
)
async def test_what_redis_refuses_is_told_in_words(
    spoil: list[str],
    words: list[str],
    told: str,
    relay: Relay,
    own_redis: EmbeddedRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each refusal of Redis is a failure of one sentence, which says what to look at."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    async with Redis.from_url(own_redis.url) as client:
        await client.execute_command(*spoil)
        answer = await relay(*words)
        await client.execute_command("CONFIG", "SET", "maxmemory", "0")
    assert answer.status == 1
    assert answer.err.count("\n") == 1
    assert told in answer.err
    assert "hidden-word" not in answer.err


@pytest.fixture
def full_disk() -> Iterator[IO[bytes]]:
    """Give a file that takes nothing."""
    with Path("/dev/full").open("wb") as full:
        yield full


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    "words", [["status"], ["status", "--json"], ["status", "--help"], ["x", "--json"]]
)
async def test_a_full_disk_behind_stdout_is_one_sentence(
    words: list[str], full_disk: IO[bytes], redis_url: str, tmp_path: Path
) -> None:
    """What cannot be printed is told on stderr, without a traceback, and the command has failed."""
    answer = printing_to(full_disk, redis_url, tmp_path, *words)
    assert answer.returncode == 1
    assert answer.stderr == "stdout cannot be written: No space left on device.\n"


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("words", [["status"], ["status", "--json"]])
async def test_a_reader_who_is_gone_is_one_sentence(
    words: list[str], redis_url: str, tmp_path: Path
) -> None:
    """`relay status | true` says that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody:
        answer = printing_to(nobody, redis_url, tmp_path, *words)
    assert answer.returncode == 1
    assert answer.stderr == "The output was closed by its reader.\n"


def printing_to(
    stdout: IO[bytes], redis_url: str, home: Path, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run `relay` as a process of its own that prints to *stdout*."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "console.main", *words],
        env={**kept, "PYTHONPATH": str(ROOT), "REDIS_URL": redis_url, "RELAY_HOME": str(home)},
        cwd=home,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_relay_up_that_was_killed_is_to_be_started_again(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An address file that nobody took away leads nowhere, and the sentence says what to do."""
    monkeypatch.delenv("REDIS_URL")
    home = Home(tmp_path / "home")
    home.make()
    home.write_address(Address(f"unix://{tmp_path}/gone", home.path))
    answer = await relay("status")
    assert answer.status == 1
    assert "start it again" in answer.err


def test_help_imports_nothing_heavy() -> None:
    """`relay --help` is quick: neither redis, nor arq, nor httpx, nor pydantic is loaded for it."""
    code = (
        "import sys; from console.main import main; status = main(['--help']);"
        "heavy = {'redis', 'arq', 'httpx', 'pydantic', 'orjson'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else status)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)

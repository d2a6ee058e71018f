"""What a person at a terminal meets: questions, progress, an end by Ctrl-C."""

from __future__ import annotations

import io
import sys

import pytest
from redis.asyncio import Redis

from console import up as relay_up
from console.json_lines import JsonLines
from console.processes import Terminal
from pipeline import keys
from pipeline.settings import Settings
from tests.console.conftest import Relay
from tests.pipeline.burials import bury

pytestmark = pytest.mark.anyio


class Keyboard(io.StringIO):
    """Stands in for stdin: somebody who types."""

    def isatty(self) -> bool:
        """Say that somebody is there."""
        return True


@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_more_than_named_letters_are_asked_about(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The question tells how many; only a yes does anything."""
    await bury(redis, payloads=[b"1"] * 3)
    monkeypatch.setattr(sys, "stdin", Keyboard("n\n"))
    no = await relay("dead", verb, "--all")
    assert (no.status, await redis.zcard(keys.DEAD)) == (1, 3)
    assert "3 dead letters?" in no.err
    monkeypatch.setattr(sys, "stdin", Keyboard("y\n"))
    yes = await relay("dead", verb, "--all", "--rate", "0")
    assert (yes.status, await redis.zcard(keys.DEAD)) == (0, 0)


async def test_nobody_is_asked_where_there_is_no_input(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stdin closed, as under some schedulers, the command says how to go without a question."""
    await bury(redis)
    monkeypatch.setattr(sys, "stdin", None)
    answer = await relay("dead", "drop", "--all")
    assert answer.status == 2
    assert "--yes" in answer.err
    assert await redis.zcard(keys.DEAD) == 1


async def test_forgetting_is_asked_about(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A no leaves everything as it was, and so does an end of the input."""
    for typed in ("n\n", ""):
        monkeypatch.setattr(sys, "stdin", Keyboard(typed))
        answer = await relay("visitors", "forget", "ada@example.com")
        assert answer.status == 1
    assert not await redis.exists(keys.TOMBSTONES)


async def test_long_work_shows_a_bar_on_a_terminal(
    relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar is on stderr, and only while stdout is a terminal."""
    await bury(redis, payloads=[b"1"] * 3)
    assert (await relay("dead", "retry", "--all", "--yes")).err == ""
    await bury(redis, payloads=[b"1"] * 3)
    monkeypatch.setenv("TERM", "xterm")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    answer = await relay("dead", "retry", "--all", "--yes")
    assert answer.out == "3 retried, 0 were gone already.\n"
    assert "3/3" in answer.err


async def test_up_ends_as_it_says(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """`relay up` gives the supervisor the settings and ends with its status, in either form."""

    def fake_up(settings: Settings) -> int:
        Terminal(trial=True).say("worker", "one | two\nthree")
        return 2

    monkeypatch.setattr(relay_up, "up", fake_up)
    plain = await relay("up")
    assert (plain.status, plain.out) == (2, "TRIAL worker   | one | two\nTRIAL worker   | three\n")
    machine = await relay("up", "--json")
    assert machine.status == 2
    assert machine.out.splitlines() == [
        '{"trial":true,"from":"worker","line":"one | two"}',
        '{"trial":true,"from":"worker","line":"three"}',
    ]


def test_a_line_of_the_log_becomes_one_object() -> None:
    """Without a trial the line says so."""
    out = io.StringIO()
    Terminal(write=JsonLines(out).write).say("relay", "ready")
    assert out.getvalue() == '{"trial":false,"from":"relay","line":"ready"}\n'

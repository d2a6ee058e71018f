"""Supervision: one log with names, a dead child comes back, and none outlives its supervisor."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from console import processes
from console.processes import ROOT, Child, Terminal, child_environment

pytestmark = pytest.mark.anyio


class Log:
    """Collects the terminal's lines, and what children say, as something to wait for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    def terminal(self, trial: bool = False) -> Terminal:
        """Return a terminal that writes here."""
        return Terminal(trial, self.lines.append)

    async def hear(self) -> str:
        """Return the next line a child printed."""
        async with asyncio.timeout(20):
            return await self.heard.get()


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Return a function that takes the code which children run as the module `played`."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return (tmp_path / "played.py").write_text


def child_of(log: Log, trial: bool = False, arguments: tuple[str, ...] = ()) -> Child:
    """Return a child that plays the module and is heard by *log*."""
    environment = child_environment({"PLAYED_SETTING": "here"})
    terminal = log.terminal(trial)
    return Child("player", "played", arguments, environment, terminal, log.heard.put_nowait)


async def test_every_line_bears_its_speakers_name(play: Callable[[str], object]) -> None:
    """Both streams of a child go into the one log, line by line, TRIAL in front in a trial."""
    play(
        "import os, signal, sys, time\n"
        "def end(*about): print('end', end='', flush=True); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print(sys.argv[1:], os.environ['PLAYED_SETTING'])\n"
        "print('a', end='', flush=True); print('b\\xe9'); print('wrong', file=sys.stderr)\n"
        # short sleeps: Python runs a handler after the sleep when the signal came just before it
        "while True: time.sleep(0.05)\n"
    )
    log = Log()
    child = child_of(log, trial=True, arguments=("--one", "two"))
    keeper = asyncio.create_task(child.keep_running())
    assert [await log.hear() for _ in range(3)] == ["['--one', 'two'] here", "abé", "wrong"]
    await child.stop(keeper, time.monotonic() + 20)
    assert await log.hear() == "end"
    assert log.lines[1] == "TRIAL player   | abé\n"
    assert all(line.startswith("TRIAL ") for line in log.lines)


async def test_a_line_without_end_does_not_fill_the_memory(
    play: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless line is cut into pieces."""
    monkeypatch.setattr(processes, "LONGEST_LINE_BYTES", 100)
    play("import time; print('x' * 1000, flush=True); time.sleep(60)")
    log = Log()
    child = child_of(log)
    keeper = asyncio.create_task(child.keep_running())
    assert 100 < len(await log.hear()) <= 200
    await child.stop(keeper, time.monotonic() + 20)


async def test_a_child_that_cannot_be_started_is_tried_again(
    play: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no process to give the log says so, and the next try may find one; a stop ends that, too."""
    monkeypatch.setattr(processes, "FIRST_PAUSE_S", 0.01)
    play("import time; print('alive', flush=True); time.sleep(60)")
    log = Log()
    child = child_of(log)
    with monkeypatch.context() as without:
        without.setattr(sys, "executable", "/nowhere/python")
        keeper = asyncio.create_task(child.keep_running())
        async with asyncio.timeout(20):
            await child.died.wait()
    assert await log.hear() == "alive"
    said = "relay    | player cannot be started: No such file or directory; again in 0.01 s\n"
    assert log.lines[0] == said
    await child.stop(keeper, time.monotonic() + 20)


async def test_a_dead_child_comes_back(
    play: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that was killed is started again, and the log says so."""
    monkeypatch.setattr(processes, "FIRST_PAUSE_S", 0.01)
    play("import time; print('alive', flush=True); time.sleep(60)")
    log = Log()
    child = child_of(log)
    keeper = asyncio.create_task(child.keep_running())
    await log.hear()
    first = child.pid
    child.signal(signal.SIGKILL)
    assert await log.hear() == "alive"
    assert child.pid != first
    assert child.died.is_set()
    await child.stop(keeper, time.monotonic() + 20)
    assert "relay    | player ended (signal 9); again in 0.01 s\n" in log.lines


async def test_a_child_between_two_runs_can_be_stopped(
    play: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long back-off does not hold up the end."""
    monkeypatch.setattr(processes, "FIRST_PAUSE_S", 600)
    play("raise SystemExit(3)")
    log = Log()
    child = child_of(log)
    keeper = asyncio.create_task(child.keep_running())
    await child.died.wait()
    await child.stop(keeper, time.monotonic() + 20)
    assert log.lines == ["relay    | player ended (status 3); again in 600 s\n"]


async def test_a_child_that_does_not_stop_is_killed(play: Callable[[str], object]) -> None:
    """At the deadline SIGKILL ends what ignores SIGTERM."""
    play(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True); time.sleep(60)"
    )
    log = Log()
    child = child_of(log)
    keeper = asyncio.create_task(child.keep_running())
    await log.hear()
    await child.stop(keeper, time.monotonic())
    assert log.lines[-1] == "relay    | player does not stop; it is killed\n"


def test_a_child_does_not_outlive_a_killed_supervisor(
    play: Callable[[str], object], tmp_path: Path
) -> None:
    """After SIGKILL of the supervisor the kernel closes the lifeline, and the child ends itself."""
    held = tmp_path / "held"
    play(
        "import fcntl, time\n"
        f"file = open({str(held)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True); time.sleep(600)"
    )
    code = (
        "import asyncio\n"
        "from console.processes import Child, Terminal, child_environment\n"
        "child = Child('player', 'played', [], child_environment({}), Terminal())\n"
        "asyncio.run(child.keep_running())"
    )
    with (
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as supervisor,
        held.open("a") as file,
    ):
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "player   | held\n"
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        supervisor.kill()
        fcntl.flock(file, fcntl.LOCK_EX)  # granted by the kernel when the child is gone


def test_an_installed_package_is_not_put_before_the_standard_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PYTHONPATH names a clone, with what was there before, but never site-packages."""
    monkeypatch.setenv("PYTHONPATH", "/before")
    assert child_environment({})["PYTHONPATH"] == f"{ROOT}{os.pathsep}/before"
    monkeypatch.delenv("PYTHONPATH")
    assert child_environment({})["PYTHONPATH"] == str(ROOT)
    monkeypatch.setattr(processes, "ROOT", tmp_path / "site-packages")
    assert "PYTHONPATH" not in child_environment({})


def test_a_terminal_that_went_away_is_no_error() -> None:
    """A closed terminal must not stop the relay."""

    def gone(text: str) -> None:
        raise BrokenPipeError

    Terminal(write=gone).say("relay", "anybody there?")

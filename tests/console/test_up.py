"""`relay up` as a process: a trial runs through, an end is clean, and a kill loses nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from console import up as up_module
from console.processes import Child, Terminal, child_environment
from console.trial import trial_settings
from console.up import up
from pipeline.home import Address, Home
from pipeline.settings import Settings, load_settings
from sandbox import crm

ROOT = Path(__file__).parents[2]
CODE = (
    "import sys; from console.up import up; from pipeline.settings import load_settings\n"
    "sys.exit(up(load_settings()))"
)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an empty working directory with a short path, and an environment without settings."""
    path = Path(tempfile.mkdtemp(prefix="relay-"))
    monkeypatch.chdir(path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(listener.getsockname()[1]))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CONSOLE_PORT", str(listener.getsockname()[1]))
    yield path
    monkeypatch.chdir(ROOT)
    shutil.rmtree(path)


@contextmanager
def relay_up() -> Iterator[subprocess.Popen[str]]:
    """Run `relay up` in a process of its own, in the working directory."""
    with subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """Return the lines up to the first that holds *wanted*."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if wanted in line:
            return lines
    pytest.fail(f"{wanted!r} was never printed:\n" + "\n".join(lines))


def _page(port: str) -> str:
    """Return the console's first page, once the console answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _stop_while_somebody_looks(process: subprocess.Popen[str], port: str) -> list[str]:
    """Ask for the end while a stream of the console's is open, which ends whole; return the lines up to the last."""
    with httpx.stream(
        "GET", f"http://127.0.0.1:{port}/api/live", trust_env=False, timeout=60
    ) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        process.send_signal(signal.SIGINT)
        rest = lines_until(process, "stopped")
        assert all(not line or line.startswith("data: ") for line in lines)
    return rest


def test_a_taken_console_port_does_not_stop_the_relay(folder: Path) -> None:
    """Where another program has CONSOLE_PORT, the relay says so and runs without its page."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(os.environ["CONSOLE_PORT"])))
        other.listen()
        with relay_up() as process:
            text = "\n".join(lines_until(process, "goes on running"))
            process.send_signal(signal.SIGINT)
            lines_until(process, "stopped")
            assert process.wait(30) == 0
    assert "set CONSOLE_PORT" in text
    assert "they balance" in text


def test_a_trial_shows_the_whole_way(folder: Path) -> None:
    """Samples arrive at the stand-ins, the books balance, Ctrl-C ends all, no address is left."""
    home = Home(folder / ".relay")
    with relay_up() as process:
        lines = lines_until(process, "goes on running")
        text = "\n".join(lines)
        assert all(line.startswith("TRIAL ") for line in lines)
        assert "they balance" in text
        assert re.search(r"arrived at the stand-ins: .*\bevents [1-9].*\bcrm_accepted [1-9]", text)
        token = home.trial().read_tokens()
        assert token is not None
        assert token not in text
        assert home.redis_address() is not None
        page = _page(os.environ["CONSOLE_PORT"])
        assert "The books balance" in page
        rest = _stop_while_somebody_looks(process, os.environ["CONSOLE_PORT"])
        assert process.wait(30) == 0
        assert not [line for line in rest if "killed" in line or "exceeded" in line]
        assert all(line.startswith("TRIAL ") for line in rest)
    assert home.redis_address() is None
    assert home.read_version() is None  # a real relay has no data yet: the trial's is its own
    assert home.trial().read_version() is not None


def test_a_killed_relay_starts_again_with_all_its_data(folder: Path) -> None:
    """After SIGKILL the next start takes over: same data, same token, same port."""
    with relay_up() as first:
        lines_until(first, "goes on running")
        token = Home(folder / ".relay").trial().read_tokens()
        first.kill()
        first.wait()
    with relay_up() as second:
        text = "\n".join(lines_until(second, "goes on running"))
        assert Home(folder / ".relay").trial().read_tokens() == token
        unpacked = re.search(r"unpack +(\d+)", text)
        posted = text.count("POST /hooks/")
        assert unpacked is not None
        # more where a write that took long was spilled, and stored all the same
        assert int(unpacked[1]) >= 2 * posted
        second.send_signal(signal.SIGTERM)
        lines_until(second, "stopped")
        assert second.wait(30) == 0


def test_a_taken_port_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program on the port ends the start with 1 and a sentence that names the setting."""
    monkeypatch.setattr(up_module, "PORT_FREE_WITHIN_S", 0.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(os.environ["PORT"])))
        other.listen()
        assert up(load_settings()) == 1
    assert "set PORT" in capsys.readouterr().out


def test_two_on_one_home_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second `relay up` on the same RELAY_HOME ends with 1 and touches nothing."""
    with ExitStack() as stack:
        stack.enter_context(Home(folder / ".relay").lock())
        assert up(load_settings()) == 1
    assert "Another `relay up`" in capsys.readouterr().out


def test_a_child_that_cannot_start_ends_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before all is ready a dead child means a wrong set-up: everything stops, the status is 1."""
    monkeypatch.setattr(up_module._Relay, "_uvicorn_arguments", lambda self: ["--no-such-option"])
    monkeypatch.setenv("AUDIENCEPOINT_API_KEY", "invented")
    assert up(load_settings()) == 1
    shown = capsys.readouterr().out
    assert "The receiver does not start" in shown
    assert "TRIAL" not in shown
    assert Home(folder / ".relay").redis_address() is None


def test_the_parts_stop_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each part is asked to stop while the others still do: two that wait for each other both end."""
    (folder / "played.py").write_text(
        "import pathlib, signal, sys, time\n"
        "own, other = map(pathlib.Path, sys.argv[1:])\n"
        "asked = []\n"
        "signal.signal(signal.SIGTERM, lambda *about: asked.append(1))\n"
        "print('alive', flush=True)\n"
        "while not asked: time.sleep(0.02)\n"
        "own.touch()\n"
        "while not other.exists(): time.sleep(0.02)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{folder}")

    async def play() -> None:
        relay = up_module._Relay(load_settings(), Home(folder / ".relay"), Terminal())
        alive: asyncio.Queue[str] = asyncio.Queue()
        for names in (("a", "b"), ("b", "a")):
            environment = child_environment({})
            child = Child("player", "played", names, environment, Terminal(), alive.put_nowait)
            relay._supervise(child)
        async with asyncio.timeout(60):
            for _ in range(2):
                await alive.get()
        await relay._stop_all()

    asyncio.run(play())
    assert "killed" not in capsys.readouterr().out


def test_a_damaged_tokens_file_ends_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token that nobody could use is a wrong setting: status 2, and it is not shown."""
    home = Home(folder / ".relay")
    home.make()
    home.trial().make()
    home.trial().tokens_file.write_text("hunter2\n")
    assert up(load_settings()) == 2
    shown = capsys.readouterr().out
    assert "shorter than 16" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize("where", ["embedded", "outside"])
def test_a_promise_that_redis_cannot_keep_ends_the_command(
    folder: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    """ACK_POLICY=replicated without a replica is a wrong setting: status 2, one sentence, no child."""
    monkeypatch.setenv("AUDIENCEPOINT_API_KEY", "invented")
    monkeypatch.setenv("ACK_POLICY", "replicated")
    if where == "outside":
        monkeypatch.setenv("REDIS_URL", redis_url)
    assert up(load_settings()) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "ACK_POLICY=replicated needs a replica" in lines[-1]
    assert all(line.startswith("relay ") for line in lines)


def test_a_redis_that_is_not_there_yet_is_no_broken_promise(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be asked yet is said; the receiver goes on asking."""
    monkeypatch.setenv("ACK_POLICY", "fsynced")
    relay = up_module._Relay(load_settings(), Home(folder / ".relay"), Terminal())
    asyncio.run(relay._check_ack_policy("redis://127.0.0.1:1/0"))
    assert "ACK_POLICY is not checked yet" in capsys.readouterr().out


def test_an_address_of_before_is_taken_away(
    folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an outside Redis no command finds the embedded one of a `relay up` that was killed."""
    home = Home(folder / ".relay")
    home.make()
    home.write_address(Address("unix:///gone", home.path))
    monkeypatch.setenv("AUDIENCEPOINT_API_KEY", "invented")
    monkeypatch.setenv("REDIS_URL", redis_url)
    relay = up_module._Relay(load_settings(), home, Terminal())
    assert asyncio.run(relay._start_redis()) == redis_url
    assert home.redis_address() is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"title": "no", "detail": "Redis is nearly full"}', "Redis is nearly full"),
        (b"[]", "[]"),
        (b"no JSON", "no JSON"),
    ],
)
def test_why_it_is_not_ready_is_told_without_its_wrapping(body: bytes, told: str) -> None:
    """Of a problem's JSON an operator needs the sentence; of anything else what it says."""
    assert up_module._what_is_wrong(httpx.Response(503, content=body)) == told


def test_refused_data_ends_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data of a newer server ends the start with 1 and the server's sentence."""
    home = Home(folder / ".relay").trial()
    home.path.parent.mkdir()
    home.make()
    home.version_file.write_text("redis 99.0.0\n")
    assert up(load_settings()) == 1
    assert "written by redis 99.0.0" in capsys.readouterr().out


def test_nothing_of_the_operators_vendors_is_in_a_trial(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial's children get the stand-ins' addresses and key, and default paths."""
    monkeypatch.setenv("REDIS_URL", "redis://example.com/0")
    monkeypatch.setenv("AUDIENCEPOINT_BASE_URL", "https://example.com/own")
    monkeypatch.setenv("AUDIENCEPOINT_EVENTS_PATH", "/own")
    monkeypatch.setenv("SCORES_WEBHOOK_URL", "https://example.com/crm")
    monkeypatch.setenv("SCORES_WEBHOOK_SECRET", crm.KEY.replace("whsec_", "whsec_AAAA"))
    monkeypatch.setenv("SEEN_WINDOW_H", "24")
    settings = load_settings()
    children = trial_settings(settings, "unix:///x", "invented-token-012345", "http://127.0.0.1:1")
    assert "example.com" not in str(children)
    assert children["AUDIENCEPOINT_EVENTS_PATH"] == ""
    assert children["AUDIENCEPOINT_BASE_URL"] == "http://127.0.0.1:1/audiencepoint/v1"
    assert children["SCORES_WEBHOOK_URL"] == "http://127.0.0.1:1/crm"
    assert children["SCORES_WEBHOOK_SECRET"] == crm.KEY
    assert children["SEEN_WINDOW_H"] == "24"
    assert set(children) == {name.upper() for name in Settings.model_fields}

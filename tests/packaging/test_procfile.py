"""The Procfile is really started, as a platform starts it: a wrong word in it shows itself nowhere else.

honcho runs each line through the shell, in a folder that holds the packages and no .env, with nothing in the
environment but a PATH and the settings.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest
import redis

from tests.vendors import KEY, Sandbox, sandbox_in_thread
from tests.workbench import mail_event

ROOT = Path(__file__).parents[2]
PACKAGES = ("receiver", "pipeline", "workers", "console", "sandbox")
BIN = Path(sys.executable).parent
TOKEN = "procfile-token-0123456789"
# far more than a start needs, so that a busy machine does not fail the test
PATIENCE_S = 60.0


@pytest.fixture
def slug(tmp_path: Path) -> Path:
    """Give a folder with what a platform unpacks: the Procfile and the packages."""
    for name in ("Procfile", *PACKAGES):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def settings(redis_url: str, box: Sandbox, port: int) -> dict[str, str]:
    """Return the environment that an operator would give the platform."""
    return {
        "REDIS_URL": redis_url,
        "HOOK_TOKENS": TOKEN,
        "AUDIENCEPOINT_API_KEY": KEY,
        "AUDIENCEPOINT_BASE_URL": box.audiencepoint_url,
        "AUDIENCELAB_API_KEY": KEY,
        "AUDIENCELAB_BASE_URL": box.audiencelab_url,
        "EMAIL_FORMAT": "plain",
        "FORWARD_MAX_WAIT_S": "0.1",
        "PORT": str(port),
        "CONSOLE_PORT": str(free_port()),
    }


@contextmanager
def honcho(slug: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start every line of the Procfile; stop what is left at the end."""
    log = slug / "log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [str(BIN / "honcho"), "start"],
            cwd=slug,
            env={"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()  # not kill: its children have sessions of their own and would stay
        process.wait(PATIENCE_S)


def until(process: subprocess.Popen[str], slug: Path, check: Callable[[], bool]) -> None:
    """Wait until *check* is true; fail with the log when everything ended or it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail((slug / "log").read_text(encoding="utf-8"))
        time.sleep(0.05)


def console(environment: dict[str, str]) -> str:
    """Return the address of the console that *environment* starts."""
    return f"http://127.0.0.1:{environment['CONSOLE_PORT']}"


def answers(client: httpx.Client, path: str) -> bool:
    """Tell whether *path* is answered with 200; a process that does not listen yet does not."""
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_the_procfile_runs_the_relay(slug: Path, redis_url: str) -> None:
    """All start, an event posted to PORT arrives at AudiencePoint, the console shows it, SIGTERM ends them."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    port = free_port()
    with (
        sandbox_in_thread() as box,
        honcho(slug, environment := settings(redis_url, box, port)) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
        httpx.Client(base_url=console(environment), trust_env=False) as operator,
    ):
        # receiver, Redis and worker; the console is a process of its own, which may be the last one to listen
        until(process, slug, lambda: answers(http, "/readyz"))
        until(process, slug, lambda: answers(operator, "/"))
        answer = http.post(f"/hooks/events/{TOKEN}", content=orjson.dumps(mail_event(1)))
        assert answer.status_code == 202
        until(process, slug, lambda: bool(box.memory.events))
        assert [event["email"] for event in box.memory.events] == ["person1@example.com"]

        assert "The books balance" in operator.get("/").text

        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    log = (slug / "log").read_text(encoding="utf-8")
    # their own last words: the status that honcho prints is that of the shell around them
    assert "Finished server process" in log
    assert "worker stopped" in log
    assert "SIGKILL" not in log
    assert TOKEN not in log


def test_a_promise_that_redis_cannot_keep_ends_web(redis_url: str) -> None:
    """With an ACK_POLICY that Redis cannot give, uvicorn ends with 3 and says what to change."""
    ended = subprocess.run(
        [str(BIN / "uvicorn"), "receiver.main:app", "--port", str(free_port())],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "REDIS_URL": redis_url,
            "HOOK_TOKENS": TOKEN,
            "AUDIENCEPOINT_API_KEY": KEY,
            "ACK_POLICY": "replicated",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 3
    said = ended.stdout + ended.stderr
    assert "ACK_POLICY=replicated needs a replica" in said
    assert "Traceback" not in said

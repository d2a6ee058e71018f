"""Real worker processes whose Redis is not there: they wait for it, stop without it, and say so in a sentence."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from console.redis_server import EmbeddedRedis
from tests.flow.processes import ROOT
from tests.workbench import PATIENCE_S, TOKEN

#: what platforms give a process before they kill it
KILLED_AFTER_S = 30.0


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """Give a running server of this test's own, which may be stopped; its path is short, so that the socket fits."""
    binary = os.environ.get("TEST_REDIS_SERVER")
    home = Path(tempfile.mkdtemp(prefix="relay-"))
    try:
        with EmbeddedRedis(home, Path(binary) if binary else None, appendfsync="no") as server:
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


class Worker:
    """A worker process and the file that it logs to."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def said(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text()

    def wait_for(self, words: str) -> None:
        """Wait until it has said *words*."""
        until = time.monotonic() + PATIENCE_S
        while words not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(0.02)


@contextmanager
def worker(url: str, log: Path) -> Iterator[Worker]:
    """Run a worker as the Procfile does; kill it at the end when it still lives."""
    environment = {
        "PATH": os.environ["PATH"],
        "REDIS_URL": url,
        "HOOK_TOKENS": TOKEN,
        "RELAY_HOME": str(log.parent),
    }
    command = [str(Path(sys.executable).parent / "arq"), "workers.main.WorkerSettings"]
    with log.open("wb") as told:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=told, stderr=told)
    try:
        yield Worker(process, log)
    finally:
        process.kill()
        process.wait(60)


def test_a_worker_waits_for_a_redis_that_is_not_there_yet(
    own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """It says that it waits, once, and begins as soon as it is there."""
    own_redis.stop()
    with worker(own_redis.url, tmp_path / "log") as one:
        one.wait_for("worker waits for Redis error=")
        own_redis.start()
        one.wait_for("worker started")
        assert one.said().count("waits for Redis") == 1
        assert "Traceback" not in one.said()


def test_a_worker_that_waits_to_be_started_can_be_stopped(
    own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """SIGTERM ends it with 0, without a traceback, before it would be killed."""
    own_redis.stop()
    with worker(own_redis.url, tmp_path / "log") as one:
        one.wait_for("worker waits for Redis error=")
        one.process.terminate()
        assert one.process.wait(KILLED_AFTER_S) == 0
        assert "Traceback" not in one.said()


@pytest.mark.parametrize("is_first", [True, False], ids=["gone before", "gone after"])
def test_a_stop_does_not_wait_for_a_redis_that_is_gone(
    own_redis: EmbeddedRedis, tmp_path: Path, is_first: bool
) -> None:
    """Whichever ends first, the worker closes everything and ends with 0 before it would be killed."""
    with worker(own_redis.url, tmp_path / "log") as one:
        one.wait_for("worker started")
        if not is_first:
            one.process.terminate()
        os.kill(own_redis.pid, 9)
        if is_first:
            one.process.terminate()
        assert one.process.wait(KILLED_AFTER_S) == 0
        assert "worker stopped" in one.said()
        assert "Traceback" not in one.said()


def test_a_stop_does_not_wait_for_a_redis_that_hangs(
    own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """Nor for one that takes connections and answers nothing."""
    with worker(own_redis.url, tmp_path / "log") as one:
        one.wait_for("worker started")
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            one.process.terminate()
            assert one.process.wait(KILLED_AFTER_S) == 0
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        assert "worker stopped" in one.said()
        assert "Traceback" not in one.said()


def test_a_refused_password_is_one_sentence(own_redis: EmbeddedRedis, tmp_path: Path) -> None:
    """No waiting mends it: the worker ends with 1, and says what Redis said."""
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("requirepass", "right-word")
    url = own_redis.url.replace("unix://", "unix://:wrong-word@")
    with worker(url, tmp_path / "log") as one:
        assert one.process.wait(PATIENCE_S) == 1
        assert "The worker ends without Redis: invalid username-password pair" in one.said()
        assert "Traceback" not in one.said()
        assert "wrong-word" not in one.said()

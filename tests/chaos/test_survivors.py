"""A run that is killed leaves nothing running."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.parts import ROOT
from chaos.survivors import living
from tests.workbench import PATIENCE_S

RUN = """
import os, signal, sys
from pathlib import Path
from chaos.parts import Relay
relay = Relay(Path(sys.argv[1]))
relay.start()
os.kill(relay.redis.pid, signal.SIGSTOP)
for name in ("receiver 1", "worker 1"):
    relay.parts[name].send(signal.SIGSTOP)
print(relay.redis.pid, *(part.process.pid for part in relay.parts.values()), flush=True)
signal.pause()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a folder whose path is short, so that the socket fits."""
    path = Path(tempfile.mkdtemp(prefix="chaos-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_killed_run_takes_everybody_with_it(home: Path) -> None:
    """After SIGKILL of the run Redis and all parts end, those too that stand still."""
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", RUN, str(home)], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    with run:
        assert run.stdout is not None
        pids = [int(each) for each in run.stdout.readline().split()]
        run.kill()
    assert len(pids) == 6
    until = time.monotonic() + PATIENCE_S
    while any(map(_lives, pids)):
        assert time.monotonic() < until
        time.sleep(0.02)
    with (home / "redis" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_has_ended_is_not_killed() -> None:
    """A number that was given back may be another's by then."""
    assert living(["+7\n", "+8\n", "-7\n", "+9\n", "-7\n"]) == {8, 9}


def _lives(pid: int) -> bool:
    """Tell whether a process runs; one that ended and was not waited for by anybody does not."""
    told = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(told.stdout.strip()) and not told.stdout.startswith("Z")

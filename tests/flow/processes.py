"""The relay's own programs as processes, in the settings of a test's workbench."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.vendors import KEY
from tests.workbench import TOKEN, Workbench

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def running(
    bench: Workbench,
    command: Sequence[str],
    settings: Mapping[str, str],
    end: signal.Signals = signal.SIGKILL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command*, a program of this environment and its arguments, in *settings* too; *end* it at the end."""
    url = bench.settings.redis_url
    assert url is not None
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        "REDIS_URL": url.get_secret_value(),
        "HOOK_TOKENS": TOKEN,
        "AUDIENCEPOINT_API_KEY": KEY,
        "AUDIENCEPOINT_BASE_URL": bench.box.audiencepoint_url,
        "AUDIENCELAB_API_KEY": KEY,
        "AUDIENCELAB_BASE_URL": bench.box.audiencelab_url,
        "AUDIENCEPOINT_RATE": "0",
        "EMAIL_FORMAT": "plain",
        "FORWARD_MAX_WAIT_S": "0.05",
        **settings,
    }
    program, *arguments = command
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(end)
        process.wait(60)


@contextmanager
def worker(bench: Workbench, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker as the Procfile does, *more* being settings; kill it at the end when it still lives."""
    with running(bench, ["arq", "workers.main.WorkerSettings"], more) as process:
        yield process


@contextmanager
def two_receivers(bench: Workbench, port: int, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run two receivers on one port; theirs is the process that SIGTERM lets end them both."""
    command = ["uvicorn", "receiver.main:app", "--workers", "2", "--port", str(port)]
    with running(bench, command, more, signal.SIGTERM) as process:
        yield process


async def stopped(bench: Workbench, process: subprocess.Popen[bytes]) -> int:
    """Wait until *process* has ended; return its exit code."""
    await bench.until(lambda: process.poll() is not None)
    return process.returncode

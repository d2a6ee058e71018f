"""The console as a process: who looks at the flow does not keep it from ending."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from redis import Redis as SyncRedis

ROOT = Path(__file__).parents[3]
PATIENCE_S = 60.0


def test_an_open_stream_does_not_hold_the_end(redis_url: str, tmp_path: Path) -> None:
    """Asked to end, the process ends its streams itself: no answer is cut off, and nothing is logged as a fault."""
    with SyncRedis.from_url(redis_url) as redis:
        redis.flushall()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "console.main:app", "--port", str(port)]
    environment = {**os.environ, "REDIS_URL": redis_url, "RELAY_HOME": str(tmp_path / "home")}
    log = tmp_path / "log"
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [*command, "--timeout-graceful-shutdown", "30"],
            cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S) as http,
    ):  # fmt: skip
        try:
            _until_it_answers(http, log)
            with http.stream("GET", "/api/live") as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("data: ")
                process.send_signal(signal.SIGTERM)
                assert all(not line or line.startswith("data: ") for line in lines)
            process.wait(PATIENCE_S)
        finally:
            process.kill()
    said = log.read_text(encoding="utf-8")
    assert "Finished server process" in said
    assert "exceeded" not in said
    assert "Traceback" not in said


def _until_it_answers(http: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            http.get("/healthz")
        except httpx.TransportError:
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        else:
            return

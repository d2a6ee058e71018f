"""Real worker processes, killed and stopped in mid-call: nothing is lost, and what is doubled is counted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import keys
from pipeline.outcomes import Stage
from sandbox.faults import slow
from tests.flow.processes import ROOT, stopped, worker
from tests.workbench import Workbench, mail_events

pytestmark = pytest.mark.anyio


async def test_a_worker_killed_in_mid_call_loses_nothing(bench: Workbench) -> None:
    """After kill -9 of the only worker a new one takes its work up, long before arq would, doubles counted."""
    bench.box.faults.add(slow("events", 20.0, times=3))
    await bench.put("events", mail_events(90))
    with worker(bench) as first:
        await bench.until(lambda: len(bench.box.memory.batches) == 3)
        first.send_signal(signal.SIGKILL)
        await stopped(bench, first)

    # the heartbeat has to grow old (8 s); arq's own lock would last two minutes
    with worker(bench):
        await bench.until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 90, "done": 90}
    assert set(bench.arrived) == {f"person{n}@example.com" for n in range(90)}
    doubled = len(bench.arrived) - 90
    counted = int(await bench.redis.hget("{relay}:books", "maybe_duplicate") or 0)
    assert 0 < doubled <= counted
    await bench.assert_balanced()


async def test_a_stop_lets_calls_in_flight_finish(bench: Workbench) -> None:
    """SIGTERM takes nothing new, waits for the answer, gives back the rest and exits 0."""
    bench.box.faults.add(slow("events", 1.0, times=1))
    await bench.put("events", mail_events(30))
    with worker(bench) as process:
        await bench.until(lambda: len(bench.box.memory.batches) == 1)
        process.terminate()
        assert await stopped(bench, process) == 0

    assert await bench.row(Stage.FORWARD) == {"in": 30, "done": 30}
    assert await bench.redis.hget("{relay}:books", "maybe_duplicate") is None
    assert await bench.redis.zcard("{relay}:workers") == 0


def test_a_worker_with_wrong_settings_exits_2() -> None:
    """Nothing is started with settings that cannot be; the exit code says so."""
    environment = {"PATH": os.environ["PATH"], "FORWARD_MAX_WAIT_S": "soon", "REDIS_URL": "x"}
    command = [str(Path(sys.executable).parent / "arq"), "workers.main.WorkerSettings"]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, timeout=30, check=False
    )
    assert ended.returncode == 2
    assert b"FORWARD_MAX_WAIT_S" in ended.stderr


async def test_a_worker_that_is_stopped_while_it_starts_leaves_no_sign_of_life(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes it for one that lives, and waits for what it might hold."""
    beaten: list[int] = []

    async def stop(_: object) -> None:
        beaten.append(await bench.redis.zcard(keys.WORKERS))
        raise asyncio.CancelledError

    monkeypatch.setattr("workers.app.ring_for_work", stop)
    with suppress(asyncio.CancelledError):
        await bench.work()
    assert beaten == [1]
    assert await bench.redis.zcard(keys.WORKERS) == 0

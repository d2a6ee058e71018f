"""No stop is ever ignored: SIGTERM at any moment ends a worker, cleanly, with everything given back."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from functools import partial

import pytest

from pipeline.outcomes import Stage
from tests.flow.processes import ROOT, stopped, worker
from tests.vendors import KEY
from tests.workbench import TOKEN, Workbench, mail_events

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]


async def test_four_hundred_stops(bench: Workbench) -> None:
    """Of 400 stops at random moments of work, every one ends the worker, and no task is left over."""
    url = bench.settings.redis_url
    assert url is not None
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": url.get_secret_value(),
        "HOOK_TOKENS": TOKEN,
        "AUDIENCEPOINT_API_KEY": KEY,
        "AUDIENCEPOINT_BASE_URL": bench.box.audiencepoint_url,
        "AUDIENCEPOINT_RATE": "0",
        "FORWARD_MAX_WAIT_S": "0",
    }
    loop = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "tests" / "chaos" / "stop_loop.py"),
        "400",
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    feeding = asyncio.create_task(feed(bench))
    async with asyncio.timeout(900):
        told, _ = await loop.communicate()
    feeding.cancel()

    assert loop.returncode == 0, "a stop was ignored"
    assert int(told) == 400
    async with bench.at_work():  # whatever came in faster than the stopping workers took it
        await bench.until(bench.is_idle, within_s=240)
    await bench.assert_balanced()
    assert not await bench.dead()


async def feed(bench: Workbench) -> None:
    """Keep the workers busy."""
    first = 0
    while True:
        await bench.put("events", mail_events(10, first))
        first += 10
        await asyncio.sleep(0.03)


async def test_twenty_stops_of_the_command_line(bench: Workbench) -> None:
    """Real worker processes stop with exit code 0 at any moment, and nothing is lost."""
    codes = []
    for n in range(20):
        await bench.put("events", mail_events(200, n * 200))
        with worker(bench) as process:
            await bench.until(partial(_lives, bench, process.pid))
            await asyncio.sleep(
                random.uniform(0.0, 0.3)
            )  # any moment, not enough time for anything
            process.terminate()
            codes.append(await stopped(bench, process))

    assert codes == [0] * 20
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.FORWARD) == {"in": 4000, "done": 4000}


async def _lives(bench: Workbench, pid: int) -> bool:
    # one that was stopped while it started may have left its sign of life
    workers = await bench.redis.zrange("{relay}:workers", 0, -1)
    return any(f":{pid}:" in name.decode() for name in workers)

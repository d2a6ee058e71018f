"""A worker is killed with -9 at each await of a bulk job: the next one goes on, and nobody is lost or asked twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import keys
from pipeline.outcomes import Stage
from sandbox.faults import Fault
from tests.flow.conftest import box, make_bench
from tests.vendors import KEY
from tests.workbench import Workbench
from tests.workers.test_bulk import MakeBench, calls, check_all_done, crowd, see

__all__ = ["box", "make_bench"]

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]

ROOT = Path(__file__).parents[2]
STRANGERS = 997


@pytest.fixture
def bench(make_bench: MakeBench) -> Workbench:
    """Give a workbench without a worker."""
    return make_bench(email_format="plain", subscribe="off")


class Workers:
    """Workers one after the other, each a process."""

    def __init__(self, redis_url: str, bench: Workbench) -> None:
        self._environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "HOOK_TOKENS": "chaos-token-0123456789",
            "AUDIENCEPOINT_API_KEY": KEY,
            "AUDIENCEPOINT_BASE_URL": bench.box.audiencepoint_url,
            "AUDIENCELAB_API_KEY": KEY,
            "AUDIENCELAB_BASE_URL": bench.box.audiencelab_url,
            "AUDIENCELAB_RATE": "0",
            "SUBSCRIBE": "off",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the next one."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.bulk_worker"], cwd=ROOT, env=self._environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self) -> None:
        """Kill it with -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """Let it stand still where it is."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)


@pytest.fixture
def workers(redis_url: str, bench: Workbench) -> Iterator[Workers]:
    """Give workers; the last one is killed at the end."""
    some = Workers(redis_url, bench)
    yield some
    some.kill()


async def has_id(bench: Workbench) -> bool:
    """Tell whether the relay knows the id of the job."""
    names = await bench.redis.zrange(keys.BULK, 0, 0)
    return bool(names) and await bench.redis.hexists(keys.bulk_job(names[0].decode()), "id")


@pytest.mark.parametrize("moment", ["made", "known", "looked at", "read", "merged in part"])
async def test_a_kill_loses_nobody_and_asks_nobody_twice(
    bench: Workbench, workers: Workers, moment: str
) -> None:
    """One job is made and no single call; everybody is done once, and the books balance at the kill and after."""
    faults, memory = bench.box.faults, bench.box.memory
    endpoint = {"made": "create-enrichment", "looked at": "enrichments", "read": "enrichment-file"}
    if (
        moment in endpoint
    ):  # the vendor has done it, and its answer is on its way for as long as it takes
        faults.add(Fault(endpoint=endpoint[moment], latency_s=2.0, times=1))
    await see(bench, crowd(STRANGERS))
    workers.start()

    async def has_come() -> bool:
        match moment:
            case "made":
                return len(memory.account.jobs) == 1
            case "known":
                return await has_id(bench)
            case "looked at":
                return any(job.looks for job in memory.account.jobs.values())
            case "read":
                return faults.hits > 0
        return await bench.count(Stage.ENRICH, "done") > 0

    await bench.until(has_come, within_s=60)
    workers.freeze()
    row = await bench.row(Stage.ENRICH)
    await bench.assert_balanced()
    workers.kill()
    assert row["waiting"] == 1000 - row.get("done", 0) > 0
    if moment == "merged in part":
        assert row["done"] > 0
    if moment == "made":
        assert not await has_id(bench)

    workers.start()
    await bench.until(bench.is_idle, within_s=60)
    await bench.until(lambda: is_tidy(bench), within_s=10)
    assert calls(bench) == (1, 0)
    await check_all_done(bench, 1000)


async def is_tidy(bench: Workbench) -> bool:
    """Tell whether nothing is left of any job."""
    return not await bench.redis.keys(f"{keys.BULK}*")

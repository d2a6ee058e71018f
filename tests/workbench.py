"""A whole relay for tests: real Redis, the real worker in this process, both vendors' stand-ins over TCP.

Waiting is always for an outcome and bounded; nothing sleeps in the hope that it was long enough.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pipeline import books, dead_letters, keys
from pipeline.dead_letters import DeadLetter, Filter
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from pipeline.outcomes import Stage
from pipeline.settings import Settings
from tests.given import GivenSettings
from tests.vendors import KEY, Sandbox
from workers.app import worker_settings
from workers.timing import Timing

TOKEN = "hook-token-0123456789"
#: far more than any outcome here needs, so that a slow machine does not fail a test
PATIENCE_S = 60.0

QUICK = Timing(
    backoff_base_s=0.005,
    backoff_cap_s=0.02,
    probe_min_s=0.02,
    probe_max_s=0.05,
    misconfigured_probe_s=0.05,
    rest_s=0.02,
    patience_s=0.2,
    stop_s=5.0,
    sweep_s=0.05,
    bulk_poll_s=0.02,
    bulk_lease_s=5.0,
)


def settings_for(redis_url: str, box: Sandbox, **changed: object) -> Settings:
    """Return settings that point at the stand-ins and never read the environment."""
    values: dict[str, object] = {
        "redis_url": redis_url,
        "hook_tokens": TOKEN,
        "audiencepoint_api_key": KEY,
        "audiencepoint_base_url": box.audiencepoint_url,
        "audiencelab_api_key": KEY,
        "audiencelab_base_url": box.audiencelab_url,
        "audiencepoint_rate": 0,
        "audiencelab_rate": 0,
        "forward_max_wait_s": 0.05,
    }
    return GivenSettings.model_validate(values | changed)


def mail_event(n: int, **changed: object) -> dict[str, object]:
    """Return AudiencePoint's event number *n*, of a person of its own."""
    moment = time.gmtime(1_767_225_600 + n)
    return {
        "email": f"person{n}@example.com",
        "type": "Open",
        "occurred_at_utc": time.strftime("%Y-%m-%dT%H:%M:%S", moment),
        "send_id": "newsletter-1",
        **changed,
    }


def mail_events(count: int, first: int = 0) -> bytes:
    """Return a body with *count* events."""
    return orjson.dumps([mail_event(n) for n in range(first, first + count)])


async def close(worker: Worker) -> None:
    """Stop *worker* as a signal would; arq closes its pool by a name that redis-py finds old."""
    if "context" in worker.ctx:
        worker.ctx["context"].stopping.set()
    await asyncio.gather(*worker.tasks.values())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Call to deprecated close", DeprecationWarning)
        await worker.close()


@dataclass
class Workbench:
    """What a flow test holds in its hands."""

    redis: Redis
    box: Sandbox
    settings: Settings
    timing: Timing = QUICK
    inbox: Inbox = field(init=False)

    def __post_init__(self) -> None:
        """Make the inbox; the fixture starts it."""
        self.inbox = Inbox(self.redis)

    async def put(self, source: str, *bodies: bytes, tag: str | None = None) -> list[str]:
        """Store *bodies* as one flush; return the deliveries' ids."""
        now = int(time.time() * 1000)
        deliveries = [
            Delivery(new_delivery_id(), source, body, now, "application/json", tag)
            for body in bodies
        ]
        await self.inbox.put(deliveries)
        return [delivery.id for delivery in deliveries]

    def worker(self, *, burst: bool, **changed: Any) -> Worker:
        """Return a worker as the command line would make it, in this process."""
        options = worker_settings(self.settings, self.timing, catches_signals=False)
        options |= {"burst": burst, "poll_delay": 0.01, "handle_signals": False}
        return Worker(**(options | changed))

    async def work(self) -> None:
        """Work until nothing more can be done now."""
        worker = self.worker(burst=True)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await worker.async_run()
        finally:
            await close(worker)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Worker]:
        """Keep a worker working until the block ends."""
        worker = self.worker(burst=False)
        running = asyncio.create_task(worker.async_run())
        try:
            await self.until(lambda: "context" in worker.ctx or running.done())
            yield worker
        finally:
            # the polling ends by itself: cancelled in the middle of a command it would leave a warning
            worker.ctx["context"].stopping.set()
            worker.burst, worker.max_burst_jobs = True, 0
            with suppress(
                RedisError
            ):  # full or away; polling that listens looks again within a second
                await self.redis.xadd(keys.RUNG, {"job": "none"}, maxlen=1, approximate=False)
            await running
            await close(worker)

    async def until(
        self, check: Callable[[], Awaitable[bool] | bool], within_s: float = PATIENCE_S
    ) -> None:
        """Wait until *check* is true."""
        async with asyncio.timeout(within_s):
            while True:
                answer = check()
                if answer if isinstance(answer, bool) else await answer:
                    return
                await asyncio.sleep(0.01)

    async def work_until(self, check: Callable[[], Awaitable[bool] | bool]) -> None:
        """Work until *check* is true."""
        async with self.at_work():
            await self.until(check)

    async def row(self, stage: Stage) -> dict[str, int]:
        """Return the books of *stage* without the zeros."""
        stages = (await books.snapshot(self.redis))["stages"]
        return {name: n for name, n in stages[str(stage)].items() if n}

    async def count(self, stage: Stage, counter: str) -> int:
        """Return one number of the books."""
        return (await self.row(stage)).get(counter, 0)

    async def pause(self, stage: Stage) -> dict[str, str | None] | None:
        """Return the pause of *stage* as the command shows it."""
        paused: dict[str, str | None] | None = (await books.snapshot(self.redis))["paused"][
            str(stage)
        ]
        return paused

    async def is_paused(self, stage: Stage) -> bool:
        """Tell whether *stage* is paused."""
        return await self.pause(stage) is not None

    async def is_idle(self) -> bool:
        """Tell whether nothing waits in any stage."""
        stages = (await books.snapshot(self.redis))["stages"].values()
        return not any(row["waiting"] for row in stages)

    async def dead(self, stage: Stage | None = None) -> Sequence[DeadLetter]:
        """Return the dead letters, newest first."""
        return await dead_letters.newest(self.redis, Filter(stage=stage))

    async def assert_balanced(self) -> None:
        """Hold the books against themselves and against the data."""
        told = await books.snapshot(self.redis)
        assert told["balanced"], told["stages"]
        counted = await books.recount(self.redis)
        for stage, numbers in counted.items():
            row = told["stages"][str(stage)]
            assert {name: row[name] for name in numbers} == numbers, stage

    @property
    def arrived(self) -> list[str]:
        """Return the addresses of all events that arrived, as they arrived."""
        return [event["email"] for event in self.box.memory.events]

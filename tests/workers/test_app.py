"""A worker's life: what keeps something going beside the stages."""

from __future__ import annotations

import asyncio
import logging

import pytest
from redis.asyncio import Redis

from pipeline.settings import load_settings
from workers.app import _opened
from workers.timing import Timing

pytestmark = pytest.mark.anyio


async def test_a_part_of_the_worker_that_fails_ends_the_worker(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """What lasts as long as the worker does not end without a word, and not without the worker."""

    async def keep() -> None:
        raise RuntimeError("about 'ann@example.com'")

    async def last() -> None:
        """End as a part does when the worker stops."""

    stopped = asyncio.Event()
    opened = _opened(load_settings(), redis, Timing())
    opened._tasks = [asyncio.create_task(last(), name="keep_beating")]
    opened.stop_when_a_part_fails(stopped.set)
    await asyncio.wait(opened._tasks)
    assert not stopped.is_set()
    opened._tasks = [asyncio.create_task(keep(), name="keep_sweeping")]
    opened.stop_when_a_part_fails(stopped.set)
    await stopped.wait()
    (told,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "part=keep_sweeping error=RuntimeError" in told.getMessage()
    assert "ann@example.com" not in told.getMessage()

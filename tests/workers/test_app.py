"""A worker's life: what keeps something going beside the stages."""

from __future__ import annotations

import asyncio
import logging

import pytest

from workers.app import _say_if_failed

pytestmark = pytest.mark.anyio


async def test_a_part_of_the_worker_that_ends_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """What keeps something for as long as the worker lives does not end without a word."""

    async def keep() -> None:
        raise RuntimeError("about 'ann@example.com'")

    task = asyncio.create_task(keep(), name="keep_sweeping")
    task.add_done_callback(_say_if_failed)
    await asyncio.wait({task})
    (told,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "part=keep_sweeping error=RuntimeError" in told.getMessage()
    assert "ann@example.com" not in told.getMessage()

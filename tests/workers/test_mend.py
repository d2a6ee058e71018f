"""Mend: one worker at a time, leaving Redis to others, and quietly where there is no room."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pipeline import dead_index, keys, leases
from tests.pipeline.burials import bury
from tests.pipeline.work import full
from tests.workbench import Workbench
from tests.workers.test_sweep import context_of
from workers import mend as mending
from workers.mend import keep_mending, mend

pytestmark = pytest.mark.anyio

KIND = "forward/sendgrid/refused"


async def break_index(bench: Workbench) -> None:
    """Leave three letters that stand in no index of their kind."""
    await bury(bench.redis, payloads=[b"{}"] * 3)
    await bench.redis.delete(keys.dead_of(KIND), keys.DEAD_KINDS)
    assert not await is_whole(bench)


async def is_whole(bench: Workbench) -> bool:
    """Tell whether the index is believed."""
    return await dead_index.read(bench.redis) == {KIND: 3}


async def test_a_worker_mends_the_index_of_letters_by_kind(bench: Workbench) -> None:
    """Letters that an older version buried stand in it soon after a worker of this version began."""
    await break_index(bench)

    async def is_done() -> bool:
        return await is_whole(bench)

    await bench.work_until(is_done)


async def test_one_worker_mends_at_a_time(bench: Workbench) -> None:
    """While another one is at it a worker does nothing; whoever is done lets the next one at it."""
    await break_index(bench)
    assert await leases.hold(bench.redis, leases.MENDING, "another", 60_000)
    await mend(context_of(bench))
    assert not await is_whole(bench)
    await leases.leave(bench.redis, leases.MENDING, "another")
    await mend(context_of(bench))
    assert await is_whole(bench)
    assert await leases.hold(bench.redis, leases.MENDING, "another", 60_000)


async def test_redis_is_left_to_others_between_pieces(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker rests after each piece, and may be stopped there; then another one goes on at once."""
    await break_index(bench)
    context = context_of(bench)
    monkeypatch.setattr(mending, "REST", 1e9)
    task = asyncio.create_task(mend(context))

    async def is_at_it() -> bool:
        return bool(await bench.redis.exists("{relay}:mending"))

    await bench.until(is_at_it)
    assert not await is_whole(bench)
    context.stopping.set()
    async with asyncio.timeout(60):
        await task
    assert not await is_whole(bench)
    assert not await bench.redis.exists("{relay}:mending")


async def test_a_full_server_is_told_of_once_and_asked_again_later(
    bench: Workbench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that says so, no failure; when there is room the index is mended."""
    await break_index(bench)
    context = context_of(bench)
    caplog.set_level(logging.INFO, "workers.mend")
    async with full(bench.redis):
        task = asyncio.create_task(keep_mending(context))
        await bench.until(lambda: bool(caplog.records))
        assert not await is_whole(bench)
    context.stopping.set()
    await task
    (line,) = caplog.messages
    assert line == "index of dead letters not mended: Redis is full again_in_s=600"
    assert caplog.records[0].exc_info is None
    caplog.clear()
    monkeypatch.setattr(mending, "WHEN_FULL_S", 0.01)
    context.stopping.clear()
    task = asyncio.create_task(keep_mending(context))
    await bench.until(lambda: bool(caplog.records))
    context.stopping.set()
    await task
    assert await is_whole(bench)
    assert caplog.messages == ["index of dead letters mended places=4"]

"""Drains: one at a time for each stage of a process, and none that ends the worker."""

from __future__ import annotations

import asyncio

import pytest

from pipeline import keys
from pipeline.outcomes import Stage
from tests.workbench import Workbench
from workers import drains
from workers.context import Context

pytestmark = pytest.mark.anyio


async def test_a_bell_during_a_run_is_not_lost(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever rings while a stage is drained makes it look once more, under a raised number."""
    numbers: list[int] = []

    async def verb(context: Context, wake: asyncio.Event, until: float) -> None:
        numbers.append(int(await context.redis.hget(keys.BELLS, "scores") or 0))
        if len(numbers) == 1:
            await drain.drain(Stage.SCORES)

    async with bench.at_work() as worker:
        monkeypatch.setitem(drains.VERBS, Stage.SCORES, verb)
        drain: drains.Drains = worker.ctx["drains"]
        await drain.drain(Stage.SCORES)
    assert numbers == [1, 2]


async def test_a_failing_drain_leaves_the_stage_usable(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a verb raises ends its drain only; the next one runs."""
    runs = 0

    async def verb(context: Context, wake: asyncio.Event, until: float) -> None:
        nonlocal runs
        runs += 1
        raise ZeroDivisionError if runs == 1 else ConnectionError

    async with bench.at_work() as worker:
        monkeypatch.setitem(drains.VERBS, Stage.SCORES, verb)
        for _ in range(3):
            await worker.ctx["drains"].drain(Stage.SCORES)
    assert runs == 3

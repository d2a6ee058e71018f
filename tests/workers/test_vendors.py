"""The vendors' clients of a worker."""

from __future__ import annotations

import pytest

from pipeline import dialects
from pipeline.outcomes import Stage
from tests.workbench import Workbench

pytestmark = pytest.mark.anyio


async def test_a_worker_remembers_which_dialect_worked(bench: Workbench) -> None:
    """What one worker found out the next one begins with, and the doctor shows."""
    await dialects.keep(bench.redis, "create_pixel", "documented")
    async with bench.at_work() as worker:
        lab = worker.ctx["context"].audiencelab
        assert lab._dialects.worked == {"create_pixel": "documented"}
        await lab.enrich(email="nobody@example.com")
        await bench.until(lambda: _is_kept(bench, "observed"))
    bench.box.settings.change({"dialect": "documented"})
    async with bench.at_work() as worker:
        await worker.ctx["context"].audiencelab.enrich(email="nobody@example.com")
    # what was learned last is kept before the worker is gone
    assert await _is_kept(bench, "documented")
    assert not await bench.is_paused(Stage.ENRICH)


async def _is_kept(bench: Workbench, dialect: str) -> bool:
    return (await dialects.read(bench.redis)).get("enrich") == dialect

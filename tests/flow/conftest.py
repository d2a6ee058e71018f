"""A whole relay on a real Redis, with the vendors' stand-ins beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline.queues import create_groups
from tests.vendors import Sandbox, running_sandbox
from tests.workbench import Workbench, settings_for


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    """Run both vendors' stand-ins."""
    async with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def make_bench(
    redis: Redis, redis_url: str, box: Sandbox, tmp_path: Path
) -> Callable[..., Workbench]:
    """Give a maker of workbenches; keywords are settings."""
    await create_groups(redis)

    def make(**changed: object) -> Workbench:
        own = {"relay_home": tmp_path / "home"}
        return Workbench(redis, box, settings_for(redis_url, box, **own | changed))

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Workbench]) -> Workbench:
    """Give a workbench with plain addresses, which are easier to compare."""
    return make_bench(email_format="plain")

"""A visitor of whom a sender tells a hundred thousand things: the page shows some, and asks Redis about those only."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from console import person
from console.web.pages.visitors import MOST
from pipeline.visitors import Visitor
from tests.console.web.conftest import Open
from tests.pipeline.acquaintances import meet

pytestmark = pytest.mark.anyio

MANY = 100_000


async def test_of_a_hundred_thousand_addresses_some_are_looked_at(
    open_console: Open, redis: Redis
) -> None:
    """Nobody waits for all of them; the page says how many there are."""
    visitor = Visitor(
        "id-1",
        uuid="id-1",
        personal_emails=[f"a{n}@example.com" for n in range(MANY)],
        phones=[f"+1555{n:07}" for n in range(MANY)],
        fields={"PERSONAL_ADDRESS": [f"{n} Main St" for n in range(MANY)], "STREET": "x" * 300_000},
    )
    await meet(redis, visitor)
    known, _ = await person.look(redis, "id-1", MOST)
    assert known is not None
    assert (len(known.visitor.emails), known.address_count) == (MOST, MANY)
    await redis.config_resetstat()
    console = await open_console()
    text = (await console.get("/visitors/id-1")).text
    assert f"And {MANY - MOST:,} more".replace(",", "\u202f") in text
    assert len(text) < 500_000
    asked = await redis.info("commandstats")
    assert sum(each["calls"] for each in asked.values()) < 20 * MOST

"""Scores: kept with whoever has the address."""

from __future__ import annotations

import orjson
import pytest

from pipeline import dead_letters, keys, visitors
from pipeline.origins import Origin
from pipeline.outcomes import Stage
from tests.workbench import Workbench
from tests.workers.test_enrich import named, score_of, see

pytestmark = pytest.mark.anyio


async def test_scores_are_kept_with_the_visitor(bench: Workbench) -> None:
    """Changed scores are written to whoever has the address; the same again are ignored."""
    await see(bench, named("ada@example.com", "U"))
    await bench.work_until(bench.is_idle)
    for _ in range(2):
        await bench.put("scores", orjson.dumps([score_of("ada@example.com")]))
        await bench.work_until(bench.is_idle)

    found = await visitors.find(bench.redis, "ada@example.com")
    assert found is not None
    assert found.id == "U"
    assert found.scores
    assert await bench.row(Stage.SCORES) == {"in": 2, "done": 1, "ignored": 1}


async def test_a_dead_score_is_read_again(bench: Workbench) -> None:
    """A wrong score change is buried in `scores`, and a retry has its source read it again."""
    await bench.put(
        "scores", orjson.dumps([{**score_of("ada@example.com"), "emailAddress": "nonsense"}])
    )
    await bench.work_until(bench.is_idle)
    letters = await bench.dead()
    for letter in letters:
        await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)
    assert len(await bench.dead()) == len(letters) == 1
    await bench.assert_balanced()


async def test_a_change_that_trips_our_code_is_buried_alone(bench: Workbench) -> None:
    """A stored change that this version cannot read is tried three times; the others are kept."""
    await bench.redis.xadd(
        keys.queue("scores"), {"p": b'{"strange": 1}', "m": Origin("scores", 0).pack()}
    )
    for counter in ("in", "waiting"):
        await bench.redis.hincrby(keys.BOOKS, f"scores:{counter}", 1)
    await bench.put("scores", orjson.dumps([score_of("ada@example.com")]))
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.SCORES) == {"in": 2, "done": 1, "dead": 1}
    assert [(letter.reason, letter.attempts) for letter in await bench.dead()] == [("bug", 3)]

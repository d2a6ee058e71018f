"""Two worker processes at one stage: they share its work and never do a piece of it twice."""

from __future__ import annotations

import asyncio

import pytest

from pipeline import keys
from pipeline.outcomes import Stage
from sandbox.faults import slow
from tests.flow.processes import worker
from tests.workbench import PATIENCE_S, Workbench, mail_events

pytestmark = pytest.mark.anyio

#: eight batches, all that one worker posts at a time
HANDFUL = 240


async def test_two_workers_share_a_stage(bench: Workbench) -> None:
    """Every event arrives exactly once, both workers had batches in their hands, and the books balance."""
    bench.box.faults.add(slow("events", 0.1))
    with worker(bench), worker(bench):
        await bench.until(lambda: _live(bench, 2))
        sent = await feed_until_shared(bench)
        await bench.until(bench.is_idle)

    assert sorted(bench.arrived) == sorted(f"person{n}@example.com" for n in range(sent))
    assert await bench.row(Stage.FORWARD) == {"in": sent, "done": sent}
    assert await bench.row(Stage.UNPACK) == {"in": sent // HANDFUL, "done": sent // HANDFUL}
    assert await bench.redis.hget(keys.BOOKS, "maybe_duplicate") is None
    await bench.assert_balanced()


async def feed_until_shared(bench: Workbench) -> int:
    """Keep more on its way than one worker can have in its hands until two have; return how many events there were."""
    sent, workers = 0, set[bytes]()
    async with asyncio.timeout(PATIENCE_S):
        while len(workers) < 2:
            # counted from the start of the way: what nobody has unpacked yet is enough, too
            if sent - await bench.count(Stage.FORWARD, "done") < 4 * HANDFUL:
                await bench.put("events", mail_events(HANDFUL, first=sent))
                sent += HANDFUL
            workers |= await holders(bench)
            await asyncio.sleep(0.01)
    return sent


async def holders(bench: Workbench) -> set[bytes]:
    """Return the workers that have batches of `forward` in their hands at this moment."""
    queue = keys.queue(keys.batches(Stage.FORWARD))
    pending = await bench.redis.xpending(queue, keys.GROUP)
    names = {consumer["name"] for consumer in pending["consumers"]}
    return names - {keys.RELEASED.encode()}


async def _live(bench: Workbench, n: int) -> bool:
    return bool(await bench.redis.zcard(keys.WORKERS) == n)

"""Switched off: what waits for calls that the settings no longer want is finished without them.

`ENRICH=off`, `SUBSCRIBE=off` and no `SCORES_WEBHOOK_URL` are meant for work that was queued before, too. Nobody
is called, so neither a missing key nor the relay's own pause or a back-off stands in the way; an operator's
pause does. What another worker has in its hands at that moment is still called for.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.moves import Move
from pipeline.outcomes import Stage
from pipeline.queues import Entry, fields
from pipeline.scripts import script

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

MOST_BATCHES = 100
MOST_BYTES = 4_000_000
#: items sealed in one step, which keeps Redis busy for a millisecond or two
MOST_SEALED = 240


async def finish(
    context: Context, stage: Stage, until: float, end: Callable[[Entry], Awaitable[Move]]
) -> None:
    """Take every batch of *stage*, also held ones and parts of bulk jobs, out by the move that *end* makes of it."""
    for queue in keys.sealed(stage):
        while not context.stopping.is_set() and monotonic() < until:
            batches = await take(context, stage, queue)
            if not batches:
                break
            await context.mover.apply([await end(batch) for batch in batches])
            logger.info("finished without a call stage=%s batches=%d", stage, len(batches))


async def finish_sealed(
    context: Context,
    stage: Stage,
    until: float,
    end: Callable[[Entry], Awaitable[Move]],
    most: int,
) -> None:
    """Do the same, and seal what waits to be sealed, at most *most* items a batch, until nothing is left."""
    await finish(context, stage, until, end)
    while not context.stopping.is_set() and monotonic() < until:
        # only a sealed batch can be in one worker's hands
        sealed = await context.queues.seal(
            stage, most=most, batches=MOST_SEALED // most, ripe_s=0.0
        )
        if not sealed.batches + sealed.retried:
            return
        await finish(context, stage, until, end)


async def take(context: Context, stage: Stage, queue: str) -> list[Entry]:
    """Take batches of *queue* into this worker's hands; what they have been through does not matter any more."""
    args: list[str | int] = [queue, stage, context.consumer, MOST_BATCHES, MOST_BYTES, ""]
    _, rows, _ = await script(context.redis, "take")(args=args)
    return [Entry(queue, row[0].decode(), *fields(row[1])) for row in rows]

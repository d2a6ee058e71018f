"""Mishaps: what happens to a queue's entry on which our own code fails before any vendor is called.

Three tries, then it is buried with the traceback's last line, and the stage goes on. Without this, one entry
that trips the code would come back first at every drain and stop its stage for ever.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pipeline.moves import Move
from pipeline.origins import Origin
from pipeline.outcomes import Reason, Stage
from pipeline.queues import Entry
from workers.fates import BUG_TRIES, last_line

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)


async def failed(context: Context, stage: Stage, entry: Entry, failure: Exception) -> None:
    """Give *entry* back for another try, or bury it after the third."""
    tries, error = await context.queues.failed(entry), last_line(failure)
    logger.error(
        "unexpected failure stage=%s entry=%s tries=%d error=%s", stage, entry.id, tries, error
    )
    if tries < BUG_TRIES:
        await context.queues.give_back(entry.queue, [entry.id])
        return
    move, origin = Move(entry.queue, [entry.id]), Origin.unpack(entry.origins[0])
    move.bury(stage, Reason.BUG, error, entry.payloads[0], origin, attempts=tries)
    move.settle(stage, "dead")
    await context.mover.apply([move])

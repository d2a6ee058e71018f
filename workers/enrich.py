"""Enrich: keeps who was seen, asks AudienceLab about those it told too little of, hands on their addresses.

Two steps. *Merge* adds every visitor event to its visitor and queues the identified address for `subscribe`;
it needs no vendor, so AudienceLab being down delays nobody who is known already. A visitor without a name and
a verified address then waits, in the same stage, for *look up*; when many wait, for a job in *bulk*.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pipeline.outcomes import Stage
from workers.bulk import Bulk
from workers.dispatch import Dispatch
from workers.look_up import LookUp, leave_unasked
from workers.merge import merge_all, merge_some

if TYPE_CHECKING:
    from workers.context import Context


async def enrich(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the stage: merge what is new, then look up who is missing."""
    await merge_all(context, until)
    if context.settings.is_off(Stage.ENRICH):
        await leave_unasked(context, until)
        return
    if context.audiencelab is None:
        return
    look_up = LookUp(context, context.audiencelab)
    await look_up.seal()
    looking_up = asyncio.create_task(Dispatch(context, look_up).drain(wake, until))
    in_bulk = asyncio.create_task(
        Bulk(context, context.audiencelab, look_up).drain(until, looking_up)
    )
    calls = {looking_up, in_bulk}
    try:
        # an AudienceLab that hangs must not delay who is known already
        while running := {task for task in calls if not task.done()}:
            if context.stopping.is_set() or not await merge_some(context):
                await asyncio.wait(running, timeout=context.timing.merge_every_s)
    finally:
        for task in calls:
            task.cancel()  # those that have ended stay as they are
        await asyncio.gather(*calls, return_exceptions=True)
    for task in calls:
        task.result()

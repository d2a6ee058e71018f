"""Enrich: keeps who was seen, asks AudienceLab about those it told too little of, hands on their addresses.

Two steps. *Merge* adds every visitor event to its visitor and queues the identified address for `subscribe`;
it needs no vendor, so AudienceLab being down delays nobody who is known already. A visitor without a name and
a verified address then waits, in the same stage, for *look up*.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pipeline.outcomes import Stage
from workers.dispatch import Dispatch
from workers.look_up import LookUp, leave_unasked
from workers.merge import merge_all, merge_some
from workers.switched_off import is_off

if TYPE_CHECKING:
    from workers.context import Context


async def enrich(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the stage: merge what is new, then look up who is missing."""
    await merge_all(context, until)
    if is_off(context, Stage.ENRICH):
        await leave_unasked(context, until)
        return
    if context.audiencelab is None:
        return
    looking_up = asyncio.create_task(
        Dispatch(context, LookUp(context, context.audiencelab)).drain(wake, until)
    )
    try:
        # an AudienceLab that hangs must not delay who is known already
        while not looking_up.done():
            if context.stopping.is_set() or not await merge_some(context):
                await asyncio.wait({looking_up}, timeout=context.timing.merge_every_s)
    finally:
        if not looking_up.done():
            looking_up.cancel()
        await looking_up

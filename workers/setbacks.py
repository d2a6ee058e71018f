"""Setbacks: the next call of a stage, or of the polling, is put off, and a batch given back, in one step."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pipeline.scripts import script

if TYPE_CHECKING:
    from workers.batches import Batch
    from workers.context import Context
    from workers.fates import Setback


async def put_off(
    context: Context,
    name: str,
    setback: Setback,
    *,
    batch: Batch | None = None,
    sent: int = 0,
    held: bool = False,
) -> tuple[int, bool]:
    """Put off the calls of *name*, and give *batch* back, unless a move took it.

    *sent*: 1 when it may have been carried out; *held* when it waits behind the others. Returns the milliseconds until
    the next call, and whether that is a pause.
    """
    timing = context.timing
    probe_min = timing.probe_min_s if setback.probe_s is None else setback.probe_s
    delay_ms, is_paused = await script(context.redis, "setback")(
        args=[
            *(name, context.consumer),
            *((batch.queue, batch.id) if batch else ("", "")),
            *(sent, random.random(), timing.backoff_base_s * 1000, timing.backoff_cap_s * 1000),
            int(setback.at_least_s * 1000),
            *(timing.pauses_after, probe_min * 1000, timing.probe_max_s * 1000),
            *(setback.reason, int(setback.at_once), int(held)),
        ]
    )
    return delay_ms, bool(is_paused)

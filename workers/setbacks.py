"""Setbacks: the next call of a stage, or of the polling, is put off, and a batch given back, in one step; and a vendor
that asks for fewer requests is called less often by all.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

from pipeline import paces
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.batches import Batch
    from workers.clients.errors import Throttled
    from workers.context import Context
    from workers.fates import Setback

logger = logging.getLogger(__name__)


async def put_off(
    context: Context,
    name: str,
    setback: Setback,
    *,
    batch: Batch | None = None,
    sent: int = 0,
    held: bool = False,
) -> int:
    """Put off the calls of *name*, and give *batch* back, unless a move took it.

    *sent*: 1 when it may have been carried out; *held* when it waits behind the others. Returns the milliseconds until
    the next call.
    """
    timing = context.timing
    probe_min = timing.probe_min_s if setback.probe_s is None else setback.probe_s
    delay_ms: int
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
    if is_paused:
        logger.error("calls paused of=%s next_call_ms=%d reason=%s", name, delay_ms, setback.reason)
    return delay_ms


async def slow_down(
    redis: Redis, vendor: str, calls_per_s: float, failure: Throttled, begun_ms: int | None = None
) -> None:
    """Halve the rate of *vendor*, because it asked for fewer requests in answer to a call begun at *begun_ms*.

    *calls_per_s* is the configured rate; None for a call of which nobody knows when it was begun, by Redis's clock.
    """
    if await paces.slow_down(redis, vendor, calls_per_s, failure.sentence, begun_ms):
        logger.warning("rate halved vendor=%s configured=%s", vendor, calls_per_s)

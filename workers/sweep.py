"""Sweep: every second, whatever nobody else would notice.

Rings for stages that have work (a bell may be lost, a pause or a back-off may be over), gives back what dead
workers had in their hands, and lets go of what is too old: dead letters into `dropped`, seen marks, visitors.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pipeline import dead_letters, heartbeats, keys, paces, pauses, seen
from pipeline.clock import DAY_MS
from pipeline.outcomes import Stage
from pipeline.scripts import script, words_of
from workers.ringing import Pause, Seen, look, ring_for_work
from workers.stopping import rest
from workers.width import narrowed

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

#: places of visitors, who are gone by themselves, that a sweep clears: some milliseconds
MOST_VISITORS = 5_000


async def keep_sweeping(context: Context) -> None:
    """Sweep until the worker stops; Redis being away is waited for."""
    while not context.stopping.is_set():
        try:
            await sweep(context)
        except Exception as error:  # whatever it was, the next second tries again
            logger.warning("sweep failed error=%s", words_of(error))
        await rest(context.stopping, context.timing.sweep_s)


async def keep_beating(context: Context) -> None:
    """Note every two seconds that this worker lives."""
    was_narrow = False
    while not context.stopping.is_set():
        try:
            await heartbeats.beat(context.redis, context.consumer)
            narrow = narrowed(context.widths)
            if narrow or was_narrow:
                await paces.tell_widths(context.redis, context.consumer, narrow)
            was_narrow = bool(narrow)
            await context.tally.tell(context.redis)
        except Exception as error:  # without a heartbeat others would take this worker's work
            logger.warning("heartbeat failed error=%s", words_of(error))
        await rest(context.stopping, heartbeats.EVERY_S)


async def sweep(context: Context) -> None:
    """Sweep once; when several workers sweep in the same second, only the first does anything."""
    lock_ms = max(1, int(context.timing.sweep_s * 900))
    if not await script(context.redis, "lock_sweep")(args=[context.consumer, lock_ms]):
        return
    if adopted := await context.queues.adopt():
        logger.warning("work of dead workers taken over entries=%d", adopted)
        # a job that died with its worker keeps its number locked in arq
        await script(context.redis, "raise_bells")(args=list(Stage))
    stand = await look(context)
    if await pause_without_keys(context, stand):
        stand = await look(context)
    await ring_for_work(context, stand)
    await let_go(context, stand)


async def let_go(context: Context, stand: Seen) -> None:
    """Let go of a bounded number of things that are too old, where *stand* has any."""
    redis, now_ms = context.redis, stand.now_ms
    keep_ms = int(context.settings.dead_keep_d * DAY_MS)
    if stand.oldest_letter_ms <= now_ms - keep_ms:
        dropped = await dead_letters.drop_old(redis, keep_ms)
        logger.info("dead letters dropped by age letters=%d", dropped)
    if seen.is_over(stand.oldest_slot_ms, now_ms, context.window_ms):
        await seen.forget_old_slots(redis, context.window_ms)
    too_old = now_ms - context.visitor_keep_ms
    if stand.oldest_visitor_ms <= too_old:
        # of a million in one step Redis would do nothing else for a second
        last = await redis.zrange(
            keys.VISITORS, MOST_VISITORS - 1, MOST_VISITORS - 1, withscores=True
        )
        until = min(too_old, int(last[0][1])) if last else too_old
        await redis.zremrangebyscore(keys.VISITORS, "-inf", until)


async def pause_without_keys(context: Context, stand: Seen) -> bool:
    """Pause the stages whose vendor's key is not set, and lift such a pause where it is set now.

    A stage that calls nobody needs no pause of the relay's own. Where *stand* says that nothing is to be changed
    Redis is not asked; return whether it was.
    """
    missing, has_asked = stages_without_key(context), False
    for stage in paces.CALLING:
        pause = stand.paused.get(stage, Pause())
        reason = f"{pauses.NO_KEY}: set {missing.get(stage)} and restart the workers"
        if pause.by == "operator" or (stage in missing and pause.reason == reason):
            continue
        if stage in missing:
            await pauses.pause_without_key(context.redis, stage, reason)
        elif context.settings.is_off(stage) and pause.by:
            await pauses.end_own_pause(context.redis, stage)
        elif pause.reason.startswith(pauses.NO_KEY):
            await pauses.end_pause_without_key(context.redis, stage)
        else:
            continue
        has_asked = True
    return has_asked


def stages_without_key(context: Context) -> dict[Stage, str]:
    """Return the stages that lack their vendor's key and are not switched off, and which setting that is."""
    missing: dict[Stage, str] = {}
    if context.audiencelab is None:
        missing[Stage.ENRICH] = "AUDIENCELAB_API_KEY"
    if context.audiencepoint is None:
        missing[Stage.FORWARD] = "AUDIENCEPOINT_API_KEY"
        missing[Stage.SUBSCRIBE] = "AUDIENCEPOINT_API_KEY"
    return {stage: key for stage, key in missing.items() if not context.settings.is_off(stage)}

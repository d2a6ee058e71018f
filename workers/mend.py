"""Mend: the index of dead letters by kind is whole, whoever wrote them.

Only processes of an older version leave anything to be mended. One worker at a time goes through the index, and
leaves Redis to others in between. Readers walk the index of all letters meanwhile, so nothing hangs on it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from pipeline import dead_index, leases
from pipeline.scripts import is_full, words_of
from workers.stopping import rest

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

#: how often a worker asks whether there is anything to mend: one question
EVERY_S = 60.0
#: a full Redis needs time to drain
WHEN_FULL_S = 600.0
#: who is at it, for so long after its last sign of life
LEASE_MS = 30_000
#: after a piece Redis is left to others for so many times as long as the piece took
REST = 4


async def keep_mending(context: Context) -> None:
    """Mend the index until the worker stops, where it needs it."""
    while not context.stopping.is_set():
        after_s = EVERY_S
        try:
            await mend(context)
        except Exception as error:  # the index of all letters is walked meanwhile
            if is_full(error):
                after_s = WHEN_FULL_S
                logger.warning(
                    "index of dead letters not mended: Redis is full again_in_s=%d", after_s
                )
            else:
                logger.warning("index of dead letters not mended error=%s", words_of(error))
        await rest(context.stopping, after_s)


async def mend(context: Context) -> None:
    """Go once through the index where it needs it and no other worker is at it."""
    if not await dead_index.is_to_be_mended(context.redis):
        return
    if not await _hold(context):
        return
    try:
        await _go_through(context)
    finally:
        await leases.leave(context.redis, leases.MENDING, context.consumer)


async def _go_through(context: Context) -> None:
    loop = asyncio.get_running_loop()
    mended, began, leased = 0, loop.time(), loop.time()
    async with aclosing(dead_index.mend(context.redis)) as pieces:
        async for wrong in pieces:
            mended += wrong
            await rest(context.stopping, REST * (loop.time() - began))
            if context.stopping.is_set():
                return
            if loop.time() - leased > LEASE_MS / 4000:
                leased = loop.time()
                if not await _hold(context):  # it ran out, and another one is at it now
                    return
            began = loop.time()
    if mended:
        logger.info("index of dead letters mended places=%d", mended)


async def _hold(context: Context) -> bool:
    return await leases.hold(context.redis, leases.MENDING, context.consumer, LEASE_MS)

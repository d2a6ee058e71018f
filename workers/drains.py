"""Drains: the one job arq runs, `drain(stage)`, which works until the stage is empty or its time is up.

A process drains a stage once at a time; a bell that rings meanwhile is remembered and answered by another
look before the drain ends. The stage's bell number is raised before every look, so that a bell rung after the
last one makes a new job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from pipeline import keys
from pipeline.outcomes import Stage
from workers.dispatch import Dispatch
from workers.enrich import enrich
from workers.forward import Forward
from workers.scores import scores
from workers.subscribe import Subscribe
from workers.unpack import unpack

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

Verb = Callable[["Context", asyncio.Event, float], Awaitable[None]]


async def subscribe(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the stage `subscribe`; without a key everything waits."""
    if context.audiencepoint is not None:
        await Dispatch(context, Subscribe(context, context.audiencepoint)).drain(wake, until)


async def forward(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the stage `forward`; without a key everything waits."""
    if context.audiencepoint is not None:
        await Dispatch(context, Forward(context, context.audiencepoint)).drain(wake, until)


VERBS: dict[Stage, Verb] = {
    Stage.UNPACK: unpack,
    Stage.ENRICH: enrich,
    Stage.SUBSCRIBE: subscribe,
    Stage.FORWARD: forward,
    Stage.SCORES: scores,
}


class Drains:
    """The drains of one process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: dict[Stage, asyncio.Event] = {}
        self._rung_again: set[Stage] = set()

    async def drain(self, stage: Stage) -> None:
        """Drain *stage*. When cancelled, let calls in flight finish first, for a bounded time."""
        if stage in self._running:
            self._rung_again.add(stage)
            self._running[stage].set()
            return
        wake = self._running[stage] = asyncio.Event()
        work = asyncio.create_task(self._work(stage, wake))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._context.stopping.set()
            await asyncio.wait({work}, timeout=self._context.timing.stop_s)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def _work(self, stage: Stage, wake: asyncio.Event) -> None:
        until = monotonic() + self._context.timing.drain_s
        try:
            await self._context.queues.release(stage)
            while True:
                self._rung_again.discard(stage)
                number = int(await self._context.redis.hincrby(keys.BELLS, stage, 1))
                await VERBS[stage](self._context, wake, until)
                if self._context.stopping.is_set() or stage not in self._rung_again:
                    break
                if monotonic() >= until:
                    break
        except (RedisError, OSError) as error:
            logger.warning("drain ended stage=%s error=%s", stage, type(error).__name__)
            return
        finally:
            del self._running[stage]
        if monotonic() >= until and not self._context.stopping.is_set():
            await self._context.bell.ring(stage, number)


async def drain(ctx: dict[str, Any], stage: str) -> None:
    """The job: *stage* has work."""
    drains: Drains = ctx["drains"]
    await drains.drain(Stage(stage))

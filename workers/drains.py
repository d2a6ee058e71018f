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
from pipeline.scripts import script
from workers.dispatch import Dispatch
from workers.enrich import enrich
from workers.fates import last_line
from workers.forward import Forward
from workers.notify import Notify, leave_untold
from workers.reread import WANTED, reread
from workers.scores import scores
from workers.subscribe import Subscribe, leave_unwatched
from workers.unpack import unpack

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

Verb = Callable[["Context", asyncio.Event, float], Awaitable[None]]


async def subscribe(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the stage `subscribe`; without a key everything waits, unless nothing is to be subscribed."""
    if context.settings.is_off(Stage.SUBSCRIBE):
        await leave_unwatched(context, until)
    elif context.audiencepoint is not None:
        await Dispatch(context, Subscribe(context, context.audiencepoint)).drain(wake, until)


async def forward(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the stage `forward`; without a key everything waits."""
    if context.audiencepoint is not None:
        await Dispatch(context, Forward(context, context.audiencepoint)).drain(wake, until)


async def notify(context: Context, wake: asyncio.Event, until: float) -> None:
    """Drain the stage `notify`; without an address what waits is ignored."""
    if context.crm is None:
        await leave_untold(context, until)
    else:
        await Dispatch(context, Notify(context, context.crm)).drain(wake, until)


VERBS: dict[Stage, Verb] = {
    Stage.UNPACK: unpack,
    Stage.ENRICH: enrich,
    Stage.SUBSCRIBE: subscribe,
    Stage.FORWARD: forward,
    Stage.SCORES: scores,
    Stage.NOTIFY: notify,
}


class Drains:
    """The drains of one process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: dict[Stage, asyncio.Event] = {}
        self._rung_again: set[Stage] = set()

    async def drain(self, stage: Stage) -> None:
        """Drain *stage*, unless this process drains it already, or stops."""
        if self._context.stopping.is_set():
            return  # the next worker looks at every stage when it starts
        if stage in self._running:
            self._rung_again.add(stage)
            self._running[stage].set()
            return
        wake = self._running[stage] = asyncio.Event()
        await self._finish(asyncio.create_task(self._work(stage, wake)))

    async def _finish(self, work: asyncio.Task[None]) -> None:
        """Wait for *work*; once the worker stops, only as long as calls in flight may still take."""
        context = self._context
        stopping = asyncio.create_task(context.stopping.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait({work}, timeout=context.timing.stop_s)
        finally:  # the time is up, or arq gave the job up
            stopping.cancel()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _work(self, stage: Stage, wake: asyncio.Event) -> None:
        context = self._context
        until = monotonic() + context.timing.drain_s
        try:
            number = await self._look(stage, wake, until)
        except (RedisError, OSError) as error:  # the sweep rings again
            logger.warning("drain ended stage=%s error=%s", stage, last_line(error))
            return
        except Exception as failure:
            logger.error("drain failed stage=%s error=%s", stage, last_line(failure))  # noqa: TRY400
            return
        finally:
            del self._running[stage]
        if monotonic() >= until and not context.stopping.is_set():
            await context.bell.ring(stage, number)

    async def _look(self, stage: Stage, wake: asyncio.Event, until: float) -> int:
        """Drain until no bell rang during the last look; return the bell number raised before it."""
        context = self._context
        number = await raise_bell(context, stage)
        # what `unpack` looked at already it keeps in hand, so that each has its turn
        await context.queues.release(stage, spares=keys.UNPROVEN)
        while True:
            self._rung_again.discard(stage)
            if stage in WANTED:
                await reread(context, stage, until)
            await VERBS[stage](context, wake, until)
            is_over = context.stopping.is_set() or monotonic() >= until
            if is_over or stage not in self._rung_again:
                return number
            number = await raise_bell(context, stage)


async def raise_bell(context: Context, stage: Stage) -> int:
    """Raise the stage's bell number: whoever rings from now on makes a new job."""
    return int(await script(context.redis, "raise_bells")(args=[stage]))


async def drain(ctx: dict[str, Any], stage: str) -> None:
    """The job: *stage* has work."""
    drains: Drains = ctx["drains"]
    await drains.drain(Stage(stage))

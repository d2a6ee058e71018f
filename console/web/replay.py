"""Replay: what was ordered on the page of dead letters, carried out in the background of this process.

One order at a time. A retry by filter is the relay's one retry run, which Redis knows: any console or `relay dead` sees
how far it came, can stop it, and can go on with it where it was interrupted. Everything else is known to this process
only, and a letter that it did not come to is still there. The audit says what was begun, and what it came to; who did
it is whoever has CONSOLE_TOKEN, which is all that is known of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import RedisError

from console.commands import ring
from console.orders import total
from pipeline import audit, dead_letters, retry_runs
from pipeline.dead_letters import Filter
from pipeline.outcomes import Stage
from pipeline.retry_runs import RATE, Retrier, Run, RunExists, filter_view

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

WHO = "console"
Verb = Literal["retry", "drop"]
#: in one step, while which Redis does nothing else
_CHUNK = 500


class Busy(Exception):
    """Another order is being carried out. The message is a sentence for the operator."""


@dataclass(slots=True)
class Order:
    """One order and how far it has come; *state* is a word for people."""

    verb: Verb
    words: Mapping[str, object]
    meant: int
    done: int = 0
    skipped: int = 0
    state: Literal["going on", "finished", "stopped", "failed"] = "going on"
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def goes_on(self) -> bool:
        """Whether it is still carried out."""
        return self.state == "going on"


class Replays:
    """Carries out one order at a time."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._task: asyncio.Task[None] | None = None
        self.order: Order | None = None

    async def retry(self, wanted: Filter) -> Order:
        """Begin to put the letters of *wanted* back to work; raises `Busy`."""
        self._check_free()
        try:
            run = await retry_runs.begin(self._redis, wanted)
        except RunExists:
            raise Busy(
                "Another retry goes on at this moment: stop it first, or wait for it."
            ) from None
        return await self._begin_run(run, "retry")

    async def resume(self) -> Order:
        """Go on with the retry that was interrupted; raises `Busy` when there is none, or one goes on."""
        self._check_free()
        try:
            run = await retry_runs.interrupted(self._redis)
        except RunExists:
            raise Busy("The retry goes on already.") from None
        if run is None:
            raise Busy("No retry was interrupted.")
        return await self._begin_run(run, "retry resumed")

    async def retry_named(self, ids: Sequence[str]) -> Order:
        """Begin to put the letters of *ids* back to work; raises `Busy`."""
        self._check_free()
        order = Order("retry", _named(ids), len(ids))
        return await self._start(order, "retry", self._retry_named(order, ids))

    async def drop(self, wanted: Filter, meant: int) -> Order:
        """Begin to drop the letters of *wanted*; raises `Busy`."""
        self._check_free()
        order = Order("drop", filter_view(wanted), meant)
        return await self._start(order, "drop", self._drop(order, wanted))

    async def drop_named(self, ids: Sequence[str]) -> Order:
        """Begin to drop the letters of *ids*; raises `Busy`."""
        self._check_free()
        order = Order("drop", _named(ids), len(ids))
        return await self._start(order, "drop", self._drop_some(order, ids))

    async def stop(self) -> None:
        """Have the order stop after what is under way, also a retry that somebody else carries out."""
        if self.order is not None:
            self.order.stopping.set()
        await retry_runs.stop(self._redis)

    async def close(self) -> None:
        """Stop what goes on, at the process's end, and wait until it is written down."""
        if self._task is None or self.order is None:
            return
        self.order.stopping.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.wait([self._task])

    def _check_free(self) -> None:
        if self.order is not None and self.order.goes_on:
            raise Busy(
                f"A {self.order.verb} goes on at this moment: stop it first, or wait for it."
            )

    async def _begin_run(self, run: Run, what: str) -> Order:
        left = total(await dead_letters.counts(self._redis, run.wanted))
        await retry_runs.take_up(self._redis, run, left)
        order = Order("retry", filter_view(run.wanted), left)
        return await self._start(order, what, self._carry_on(order, run))

    async def _start(self, order: Order, what: str, work: Coroutine[Any, Any, bool]) -> Order:
        await audit.record(self._redis, what, who=WHO, count=order.meant, wanted=order.words)
        self.order = order
        self._task = asyncio.create_task(self._carry_out(order, work))
        return order

    async def _carry_out(self, order: Order, work: Coroutine[Any, Any, bool]) -> None:
        """Do *work*, and write down what it came to."""
        try:
            is_whole = await work
            order.state = "finished" if is_whole else "stopped"
            what = f"{order.verb} finished" if is_whole else f"{order.verb} interrupted"
            await audit.record(self._redis, what, who=WHO, count=order.done, wanted=order.words)
        except (RedisError, OSError) as error:
            order.state = "failed"
            log.warning("console: the %s failed error=%s", order.verb, type(error).__name__)

    def _retrier(self, order: Order) -> Retrier:
        async def ring_for(stages: set[Stage]) -> None:
            await ring(self._redis, stages)

        def tell(_: int) -> None:
            order.done, order.skipped = retrier.retried.total(), retrier.skipped

        retrier = Retrier(self._redis, rate=RATE, ring=ring_for, stopping=order.stopping, tell=tell)
        return retrier

    async def _carry_on(self, order: Order, run: Run) -> bool:
        return await self._retrier(order).carry_on(run)

    async def _retry_named(self, order: Order, ids: Sequence[str]) -> bool:
        await self._retrier(order).retry(ids)
        return not order.stopping.is_set()

    async def _drop(self, order: Order, wanted: Filter) -> bool:
        async for page in dead_letters.places(self._redis, wanted):
            if not await self._drop_some(order, [place.id for place in page]):
                return False
        return True

    async def _drop_some(self, order: Order, ids: Sequence[str]) -> bool:
        for start in range(0, len(ids), _CHUNK):
            if order.stopping.is_set():
                return False
            some = ids[start : start + _CHUNK]
            dropped = await dead_letters.drop(self._redis, some)
            order.done += dropped
            order.skipped += len(some) - dropped
        return True


def _named(ids: Sequence[str]) -> dict[str, object]:
    return {"ids": sorted(ids)[:100]}

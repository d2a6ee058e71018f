"""Replay: what was ordered on the page of dead letters, carried out in the background of this process.

One order at a time. A retry by filter is the relay's one retry run, which Redis knows: any console or `relay dead` sees
how far it came, can stop it, and can go on with it where it was interrupted. Everything else is known to this process
only, and a letter that it did not come to is still there. The audit says what was begun, and what it came to; who did
it is whoever has CONSOLE_TOKEN, which is all that is known of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from console.commands import ring
from console.orders import total
from console.web.errands import Busy, Errand, Errands
from pipeline import audit, dead_letters, retry_runs
from pipeline.dead_letters import Filter
from pipeline.outcomes import Stage
from pipeline.retry_runs import RATE, Retrier, Run, RunExists, filter_view

if TYPE_CHECKING:
    from redis.asyncio import Redis

WHO = "console"
Verb = Literal["retry", "drop"]
#: what is begun once it is written down; it answers whether it came to its end
Work = Callable[[], Coroutine[Any, Any, bool]]
#: in one step, while which Redis does nothing else
_CHUNK = 500


@dataclass(slots=True)
class Order(Errand):
    """One order and how far it has come."""

    verb: Verb
    words: Mapping[str, object]
    meant: int
    done: int = 0
    skipped: int = 0


class Replays(Errands[Order]):
    """Carries out one order at a time."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self._redis = redis
        self._lock = asyncio.Lock()

    @property
    def order(self) -> Order | None:
        """Return the last order."""
        return self.last

    async def retry(self, wanted: Filter) -> Order:
        """Begin to put the letters of *wanted* back to work; raises `Busy`, also when there are none."""
        async with self._alone():
            try:
                left = total(await dead_letters.counts(self._redis, wanted))
                if not left:  # a run of nothing would take the place of an interrupted one
                    raise Busy("No dead letter is like that any more.")
                run = await retry_runs.begin(self._redis, wanted, left)
            except RunExists:
                raise Busy(
                    "Another retry goes on at this moment: stop it first, or wait for it."
                ) from None
            return await self._begin_run(run, left, "retry")

    async def resume(self) -> Order:
        """Go on with the retry that was interrupted; raises `Busy` when there is none, or one goes on."""
        async with self._alone():
            try:
                run = await retry_runs.interrupted(self._redis)
                if run is None:
                    raise Busy("No retry was interrupted.")
                left = total(await dead_letters.counts(self._redis, run.wanted))
                run = await retry_runs.take_up(self._redis, run, left)
            except RunExists:
                raise Busy("The retry goes on already.") from None
            return await self._begin_run(run, left, "retry resumed")

    async def retry_named(self, ids: Sequence[str]) -> Order:
        """Begin to put the letters of *ids* back to work; raises `Busy`."""
        async with self._alone():
            order = Order("retry", _named(ids), len(ids))
            return await self._begin(order, "retry", lambda: self._retry_named(order, ids))

    async def drop(self, wanted: Filter, meant: int) -> Order:
        """Begin to drop the letters of *wanted*; raises `Busy`."""
        async with self._alone():
            order = Order("drop", filter_view(wanted), meant)
            return await self._begin(order, "drop", lambda: self._drop(order, wanted))

    async def drop_named(self, ids: Sequence[str]) -> Order:
        """Begin to drop the letters of *ids*; raises `Busy`."""
        async with self._alone():
            order = Order("drop", _named(ids), len(ids))
            return await self._begin(order, "drop", lambda: self._drop_some(order, ids))

    async def stop(self) -> None:
        """Have the order stop after what is under way, also a retry that somebody else carries out."""
        await audit.record(self._redis, "stop", who=WHO, count=1)
        if self.order is not None:
            self.order.stopping.set()
        await retry_runs.stop(self._redis)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Let nobody else begin meanwhile; raises `Busy` while an order goes on."""
        async with self._lock:
            if order := self.going_on:
                raise Busy(f"A {order.verb} goes on at this moment: stop it first, or wait for it.")
            yield

    async def _begin_run(self, run: Run, left: int, what: str) -> Order:
        order = Order("retry", filter_view(run.wanted), left)
        return await self._begin(order, what, lambda: self._carry_on(order, run))

    async def _begin(self, order: Order, what: str, work: Work) -> Order:
        await audit.record(self._redis, what, who=WHO, count=order.meant, wanted=order.words)
        return self.start(order, self._audited(order, work))

    async def _audited(self, order: Order, work: Work) -> bool:
        """Do *work*, and write down what it came to."""
        is_whole = await work()
        what = f"{order.verb} finished" if is_whole else f"{order.verb} interrupted"
        await audit.record(self._redis, what, who=WHO, count=order.done, wanted=order.words)
        return is_whole

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

"""Retrying and dropping many letters: in chunks, at a rate, stoppable, and written into the audit.

Ctrl-C sets an event; the chunk that is under way is finished and written down. What may go wrong: a SIGKILL
leaves a retry run that looks alive for a few seconds; after that it can be resumed.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from console.commands import Failed, operator, ring
from console.output import progress
from console.selection import Wanted
from pipeline import audit, dead_letters, retry_runs
from pipeline.clock import iso
from pipeline.dead_letters import Filter
from pipeline.outcomes import Stage
from pipeline.retry_runs import Retrier, Run, RunExists, filter_view

if TYPE_CHECKING:
    from redis.asyncio import Redis


class GoesOn(Failed):
    """Another retry goes on at this moment."""

    def __init__(self) -> None:
        super().__init__(
            "Another retry goes on at this moment."
            " Stop it first; if it was killed, try again in a few seconds."
        )


def total(counted: Mapping[Stage, Mapping[str, int]]) -> int:
    """Return how many letters the table of `dead_letters.counts` counts."""
    return sum(n for row in counted.values() for n in row.values())


async def interrupted(redis: Redis) -> Run:
    """Return the run to resume; raises `Failed` when there is none."""
    try:
        run = await retry_runs.interrupted(redis)
    except RunExists:
        raise GoesOn from None
    if run is None:
        raise Failed("No retry was interrupted; there is nothing to resume.")
    return run


@dataclass(slots=True)
class RetryOrder:
    """What `relay dead retry` was told, and how it is carried out."""

    wanted: Wanted
    rate: float
    as_json: bool

    async def named(self, redis: Redis, ids: list[str]) -> dict[str, Any]:
        """Retry the letters of *ids*."""
        found = {place.id for place in await dead_letters.find(redis, ids)}
        with _stopping() as stopping:
            retrier = Retrier(redis, rate=self.rate, ring=_ringer(redis), stopping=stopping)
            await retrier.retry([dead_id for dead_id in ids if dead_id in found])
        count = retrier.retried.total()
        words = _named(found)
        await audit.record(redis, "retry", who=operator(), count=count, wanted=words)
        missing = [dead_id for dead_id in ids if dead_id not in found]
        return {"retried": count, "skipped": len(ids) - len(missing) - count, "not_found": missing}

    async def begin(self, redis: Redis) -> dict[str, Any]:
        """Begin a run with the filters."""
        try:
            run = await retry_runs.begin(redis, await self.wanted.filter(redis))
        except RunExists:
            raise GoesOn from None
        return await self._carry_on(redis, run, "retry")

    async def resume(self, redis: Redis) -> dict[str, Any]:
        """Go on with the run that was interrupted."""
        return await self._carry_on(redis, await interrupted(redis), "retry resumed")

    async def _carry_on(self, redis: Redis, run: Run, what: str) -> dict[str, Any]:
        count = total(await dead_letters.counts(redis, run.wanted))
        words = filter_view(run.wanted)
        await audit.record(redis, what, who=operator(), count=count, wanted=words)
        with (
            _stopping() as stopping,
            progress("retrying", count, wanted=not self.as_json) as (advance, name),
        ):

            def tell(n: int) -> None:
                name("retrying")
                advance(n)

            retrier = Retrier(
                redis,
                rate=self.rate,
                ring=_ringer(redis),
                stopping=stopping,
                tell=tell,
                hold=lambda stage, n: name(f"holding back, {n} wait in {stage}"),
            )
            finished = await retrier.carry_on(run)
        done = retrier.retried.total()
        ended = "retry finished" if finished else "retry interrupted"
        await audit.record(redis, ended, who=operator(), count=done, wanted=words)
        return {
            "retried": run.done + done,
            "skipped": run.skipped + retrier.skipped,
            "finished": finished,
            "filter": words,
            "started_at": iso(run.started_at_ms),
        }


@dataclass(slots=True)
class DropOrder:
    """What `relay dead drop` was told, and how it is carried out."""

    rate: float
    as_json: bool

    async def named(self, redis: Redis, ids: list[str]) -> dict[str, Any]:
        """Drop the letters of *ids*."""
        found = {place.id for place in await dead_letters.find(redis, ids)}
        dropped = await dead_letters.drop(redis, [dead_id for dead_id in ids if dead_id in found])
        await audit.record(redis, "drop", who=operator(), count=dropped, wanted=_named(found))
        missing = [dead_id for dead_id in ids if dead_id not in found]
        return {"dropped": dropped, "skipped": len(found) - dropped, "not_found": missing}

    async def filtered(self, redis: Redis, wanted: Wanted) -> dict[str, Any]:
        """Drop the letters that *wanted* means."""
        meant = await wanted.filter(redis)
        count = total(await dead_letters.counts(redis, meant))
        dropped = met = 0
        finished = True
        with (
            _stopping() as stopping,
            progress("dropping", count, wanted=not self.as_json) as (advance, _),
        ):
            async for some in _chunks(redis, meant, self.rate):
                met += len(some)
                dropped += await dead_letters.drop(redis, some)
                advance(len(some))
                if await self._is_over(stopping, len(some)):
                    finished = False
                    break
        await audit.record(redis, "drop", who=operator(), count=dropped, wanted=filter_view(meant))
        return {"dropped": dropped, "skipped": met - dropped, "finished": finished}

    async def _is_over(self, stopping: asyncio.Event, n: int) -> bool:
        """Wait as the rate says; return whether to stop."""
        if self.rate:
            try:
                async with asyncio.timeout(n / self.rate):
                    await stopping.wait()
            except TimeoutError:
                pass
        return stopping.is_set()


async def _chunks(redis: Redis, meant: Filter, rate: float) -> AsyncIterator[list[str]]:
    size = min(500, max(1, int(rate / 2))) if rate else 500
    async for page in dead_letters.places(redis, meant):
        for start in range(0, len(page), size):
            yield [place.id for place in page[start : start + size]]


def _named(found: set[str]) -> dict[str, object]:
    """Return the audit's filter for named letters; a word that is no letter's id is kept out of it."""
    return {"ids": sorted(found)[:100]}


def _ringer(redis: Redis) -> Callable[[set[Stage]], Awaitable[None]]:
    async def ring_for(stages: set[Stage]) -> None:
        await ring(redis, stages)

    return ring_for


@contextmanager
def _stopping() -> Iterator[asyncio.Event]:
    """Give an event that the first Ctrl-C sets, so that what is under way is finished and written down."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():  # signals reach only that one
        yield event
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, event.set)
    try:
        yield event
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)

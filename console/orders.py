"""Retrying and dropping many letters: in chunks, at a rate, stoppable, and written into the audit.

The audit is told how many letters are meant before the first is touched, and at the end how many were done; an
order without an end was killed, or lost Redis. Ctrl-C sets an event; the chunk that is under way is finished and
written down. What may go wrong: a SIGKILL leaves a retry run that looks alive for a few seconds; after that it can
be resumed.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from console.commands import Failed, operator, ring
from console.output import progress
from console.selection import Wanted
from pipeline import audit, dead_letters, retry_runs
from pipeline.clock import iso, redis_now_ms
from pipeline.outcomes import Stage
from pipeline.retry_runs import Retrier, Run, RunExists, filter_view

if TYPE_CHECKING:
    from redis.asyncio import Redis

# dropped in one step, while which Redis does nothing else
LARGEST_CHUNK = 500


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
        words = _named(found)
        await _begin(redis, "retry", len(found), words)
        with (
            self._retrier(redis, len(found)) as (retrier, stopping),
            _failure_told("retry", "retried", lambda: retrier.retried.total()),
        ):
            await retrier.retry([dead_id for dead_id in ids if dead_id in found])
            count, met = retrier.retried.total(), retrier.retried.total() + retrier.skipped
            finished = met == len(found) or not stopping.is_set()
            await _end(redis, "retry", count, words, finished=finished)
        return {
            "retried": count,
            # one that went in the very last moment was met by nobody
            "skipped": (len(found) if finished else met) - count,
            "not_found": [dead_id for dead_id in ids if dead_id not in found],
            "finished": finished,
        }

    async def begin(self, redis: Redis) -> dict[str, Any]:
        """Begin a run with the filters."""
        wanted = await self.wanted.filter(redis)
        now_ms = await redis_now_ms(redis)
        wanted = replace(wanted, until_ms=wanted.until_ms or now_ms)
        count = total(await dead_letters.counts(redis, wanted))
        if not count:  # nothing to begin, and what was interrupted keeps its place
            return {
                **{"retried": 0, "skipped": 0, "finished": True},
                "filter": filter_view(wanted),
                "started_at": iso(now_ms),
            }
        try:
            run = await retry_runs.begin(redis, wanted, count)
        except RunExists:
            raise GoesOn from None
        return await self._carry_on(redis, run, count, "retry")

    async def resume(self, redis: Redis) -> dict[str, Any]:
        """Go on with the run that was interrupted."""
        run = await interrupted(redis)
        left = total(await dead_letters.counts(redis, run.wanted))
        try:
            run = await retry_runs.take_up(redis, run, left)
        except RunExists:
            raise GoesOn from None
        return await self._carry_on(redis, run, left, "retry resumed")

    async def _carry_on(self, redis: Redis, run: Run, count: int, what: str) -> dict[str, Any]:
        words = filter_view(run.wanted)
        await _begin(redis, what, count, words)
        go_on = "`relay dead retry --resume` goes on when it is back."
        with (
            self._retrier(redis, count) as (retrier, _),
            _failure_told("retry", "retried", lambda: run.done + retrier.retried.total(), go_on),
        ):
            finished = await retrier.carry_on(run)
            await _end(redis, "retry", retrier.retried.total(), words, finished=finished)
        return {
            "retried": run.done + retrier.retried.total(),
            "skipped": run.skipped + retrier.skipped,
            "finished": finished,
            "filter": words,
            "started_at": iso(run.started_at_ms),
        }

    @contextmanager
    def _retrier(self, redis: Redis, count: int) -> Iterator[tuple[Retrier, asyncio.Event]]:
        """Give what retries, with a bar for *count* letters, and the event that Ctrl-C sets."""
        with (
            stopping_on_signals() as stopping,
            progress("retrying", count, wanted=not self.as_json) as (advance, name),
        ):

            def tell(n: int) -> None:
                name("retrying")
                advance(n)

            yield (
                Retrier(
                    redis,
                    rate=self.rate,
                    ring=_ringer(redis),
                    stopping=stopping,
                    tell=tell,
                    hold=lambda stage, n: name(f"holding back, {n} wait in {stage}"),
                ),
                stopping,
            )


@dataclass(slots=True)
class DropOrder:
    """What `relay dead drop` was told, and how it is carried out."""

    rate: float
    as_json: bool

    async def named(self, redis: Redis, ids: list[str]) -> dict[str, Any]:
        """Drop the letters of *ids*."""
        found = {place.id for place in await dead_letters.find(redis, ids)}
        missing = [dead_id for dead_id in ids if dead_id not in found]

        async def pages() -> AsyncIterator[list[str]]:
            yield [dead_id for dead_id in ids if dead_id in found]

        result = await self._drop(redis, pages(), len(found), _named(found))
        return {**result, "not_found": missing}

    async def filtered(self, redis: Redis, wanted: Wanted) -> dict[str, Any]:
        """Drop the letters that *wanted* means."""
        meant = await wanted.filter(redis)

        async def pages() -> AsyncIterator[list[str]]:
            async for page in dead_letters.places(redis, meant):
                yield [place.id for place in page]

        count = total(await dead_letters.counts(redis, meant))
        return await self._drop(redis, pages(), count, filter_view(meant))

    async def _drop(
        self,
        redis: Redis,
        pages: AsyncIterator[list[str]],
        count: int,
        words: Mapping[str, object],
    ) -> dict[str, Any]:
        dropped = met = 0
        finished = True
        await _begin(redis, "drop", count, words)
        with (
            stopping_on_signals() as stopping,
            progress("dropping", count, wanted=not self.as_json) as (advance, _),
            _failure_told("drop", "dropped", lambda: dropped),
        ):
            pace = _Pace(self.rate, stopping)
            async for some in _chunks(pages, self.rate):
                if not await pace.may_go(len(some)):
                    finished = False
                    break
                dropped += await dead_letters.drop(redis, some)
                met += len(some)
                advance(len(some))
            await _end(redis, "drop", dropped, words, finished=finished)
        return {"dropped": dropped, "skipped": met - dropped, "finished": finished}


class _Pace:
    """Lets *rate* letters a second go, as `Retrier` does; 0 is no limit."""

    def __init__(self, rate: float, stopping: asyncio.Event) -> None:
        self._rate = rate
        self._stopping = stopping
        self._next_at = monotonic()

    async def may_go(self, n: int) -> bool:
        """Wait until *n* letters may go; return False when asked to stop meanwhile."""
        wait_s = self._next_at - monotonic()
        if wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
        if self._rate:
            # a second that nobody used is not made up for
            self._next_at = max(self._next_at, monotonic() - 1) + n / self._rate
        return not self._stopping.is_set()


async def _chunks(pages: AsyncIterator[list[str]], rate: float) -> AsyncIterator[list[str]]:
    # about half a second's worth, so that a stop is heeded soon
    size = min(LARGEST_CHUNK, max(1, int(rate / 2))) if rate else LARGEST_CHUNK
    async for page in pages:
        for start in range(0, len(page), size):
            yield page[start : start + size]


async def _begin(redis: Redis, what: str, count: int, words: Mapping[str, object]) -> None:
    """Write down how many letters are meant."""
    await audit.record(redis, what, who=operator(), count=count, wanted=words)


async def _end(
    redis: Redis, verb: str, count: int, words: Mapping[str, object], *, finished: bool
) -> None:
    """Write down how many letters were done."""
    what = f"{verb} finished" if finished else f"{verb} interrupted"
    await audit.record(redis, what, who=operator(), count=count, wanted=words)


@contextmanager
def _failure_told(
    verb: str,
    done: str,
    count: Callable[[], int],
    go_on: str = "what was on its way may be gone, too; the others are still there.",
) -> Iterator[None]:
    """Raise `Failed` with the *count* of what was *done* when Redis is lost, or refuses to go on."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise Failed(
            f"Redis failed in the middle of the {verb} ({type(error).__name__}),"
            f" after {count()} of the letters: {go_on}",
            {done: count(), "finished": False},
        ) from None


def _named(found: set[str]) -> dict[str, object]:
    """Return the audit's filter for named letters; a word that is no letter's id is kept out of it."""
    return {"ids": sorted(found)[:100]}


def _ringer(redis: Redis) -> Callable[[set[Stage]], Awaitable[None]]:
    async def ring_for(stages: set[Stage]) -> None:
        await ring(redis, stages)

    return ring_for


@contextmanager
def stopping_on_signals() -> Iterator[asyncio.Event]:
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

"""A retry run: many dead letters go back to work, at a rate, and can be stopped and taken up again.

The run is written down in Redis: its filter, when it began, how far it came. It means only letters that
were buried before it began, so it ends even when everything it retries dies again. There is one run at a
time; it shows that it goes on by a beat, and a run without one was interrupted and may be resumed. What may
go wrong: after a kill -9 in the middle of a chunk, `done` is too low by that chunk, and after a lost reply a chunk
counts as `skipped`; the letters themselves move one by one, each in one step, and none is lost or doubled. A full
server is no hindrance.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING

from pipeline import books, dead_letters, heartbeats, keys
from pipeline.clock import iso, redis_now_ms
from pipeline.dead_letters import Filter, Place
from pipeline.outcomes import Reason, Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: a third of what AudiencePoint takes at the default rate (5 requests of 30 events): live work keeps the rest
RATE = 50.0
#: a run without a beat for this long was killed; it beats at least once a second
BEAT_FRESH_MS = 5_000
LARGEST_CHUNK = 100
#: What is retried has a line of its own where it leads to a call, and its share of the calls, however much new work
#: waits. The run waits while so much is in that line, so that a stop leaves little behind: as much as one bulk job asks
#: about. A stage without such a line works on it among all else: there what counts is all that waits.
MOST_WAITING = 1_000
HOLD_S = 0.5


class RunExists(Exception):
    """Another retry run goes on at this moment."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run as it is written down. *done* letters went back to work, *skipped* were gone already."""

    id: str
    wanted: Filter
    started_at_ms: int
    done: int = 0
    skipped: int = 0
    #: letters that it means, as they were counted; 0 before they are
    meant: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A run, whether somebody carries it out, and whether it was asked to stop."""

    run: Run
    goes_on: bool
    is_stopping: bool


def filter_view(wanted: Filter) -> dict[str, str]:
    """Return what is set of a filter, times in ISO-8601."""
    words = {"stage": wanted.stage, "source": wanted.source, "reason": wanted.reason}
    times = {"since": wanted.since_ms, "until": wanted.until_ms}
    return {name: str(word) for name, word in words.items() if word is not None} | {
        name: iso(at_ms) for name, at_ms in times.items() if at_ms is not None
    }


async def begin(redis: Redis, wanted: Filter, meant: int = 0) -> Run:
    """Write down a new run, in the place of one that was interrupted. Raises `RunExists`.

    It means the letters that are there now: *wanted* is given its upper bound in time. *meant* is how many were
    counted.
    """
    now = await redis_now_ms(redis)
    until = wanted.until_ms or now
    run = Run(token_hex(8), replace(wanted, until_ms=until), now, meant=meant)
    since = "" if wanted.since_ms is None else wanted.since_ms
    fields: list[str | int] = ["stage", wanted.stage or "", "source", wanted.source or ""]
    fields += ["reason", wanted.reason or "", "since_ms", since, "until_ms", until]
    fields += ["started_at_ms", now, "done", 0, "skipped", 0, "meant", meant]
    args = [run.id, BEAT_FRESH_MS, len(fields), *fields]
    if not await script(redis, "begin_run")(args=args):
        raise RunExists
    return run


async def interrupted(redis: Redis) -> Run | None:
    """Return the run that was interrupted, or None. Raises `RunExists` while one goes on."""
    found = await progress(redis)
    if found is not None and found.goes_on:
        raise RunExists
    return found.run if found else None


async def progress(redis: Redis) -> Progress | None:
    """Return how far the run has come that goes on or was interrupted, or None when there is none."""
    stored: Mapping[bytes, bytes] = await redis.hgetall(keys.RETRY_RUN)
    if not stored:
        return None
    words = {name.decode(): value.decode() for name, value in stored.items()}
    goes_on = int(words["beat_at_ms"]) > await redis_now_ms(redis) - BEAT_FRESH_MS
    return Progress(_run(words), goes_on, "stopping" in words)


async def stop(redis: Redis) -> bool:
    """Ask whoever carries out the run to stop, which takes a second; return whether anybody does."""
    return bool(await script(redis, "stop_run")(args=[BEAT_FRESH_MS]))


async def take_up(redis: Redis, run: Run, left: int) -> Run:
    """Return *run*, which was interrupted, as one's own; *left* letters are still meant by it. Raises `RunExists`.

    It gets another id: somebody who carried it out, and stood still, stops when he goes on.
    """
    mine = replace(run, id=token_hex(8), meant=run.done + run.skipped + left)
    args: list[str | int] = [run.id, mine.id, BEAT_FRESH_MS, mine.meant]
    if not await script(redis, "take_run")(args=args):
        raise RunExists
    return mine


def _run(words: Mapping[str, str]) -> Run:
    return Run(
        id=words["id"],
        wanted=Filter(
            stage=Stage(words["stage"]) if words["stage"] else None,
            source=words["source"] or None,
            reason=Reason(words["reason"]) if words["reason"] else None,
            since_ms=int(words["since_ms"]) if words["since_ms"] else None,
            until_ms=int(words["until_ms"]),
        ),
        started_at_ms=int(words["started_at_ms"]),
        done=int(words["done"]),
        skipped=int(words["skipped"]),
        meant=int(words.get("meant", 0)),
    )


class Retrier:
    """Puts letters back to work at a rate, and tells after each chunk.

    *rate* is letters a second, 0 is no limit and no regard for what waits. *ring* is called with the stages
    that got work, *tell* with how many letters were dealt with, *hold* with the stage in which too much waits.
    When *stopping* is set, the chunk that is under way is finished and no other begun.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        rate: float,
        ring: Callable[[set[Stage]], Awaitable[None]],
        stopping: asyncio.Event,
        tell: Callable[[int], None] = lambda n: None,
        hold: Callable[[Stage, int], None] = lambda stage, waiting: None,
    ) -> None:
        self._redis = redis
        self._rate = rate
        self._ring = ring
        self._stopping = stopping
        self._tell = tell
        self._hold = hold
        self._next_at = monotonic()
        self.retried: Counter[Stage] = Counter()
        self.skipped = 0

    async def retry(self, dead_ids: Sequence[str]) -> None:
        """Retry the letters of *dead_ids*, which somebody named."""
        for place in await dead_letters.find(self._redis, dead_ids):
            await self._chunk([place], None)
            if self._stopping.is_set():
                return

    async def carry_on(self, run: Run) -> bool:
        """Retry what is left of *run*, oldest first; return whether it came to its end."""
        async for chunk in self._chunks(run):
            await self._chunk(chunk, run)
            if self._stopping.is_set() or not await self._beat(run):
                await self._note(run, goes_on=False)  # it may be resumed at once
                return False
        await self._redis.delete(keys.RETRY_RUN)
        return True

    async def _chunks(self, run: Run) -> AsyncIterator[list[Place]]:
        # about half a second's worth, so that a stop is heeded soon
        size = min(LARGEST_CHUNK, max(1, int(self._rate / 2))) if self._rate else LARGEST_CHUNK
        async for page in dead_letters.places(self._redis, run.wanted, oldest_first=True):
            for start in range(0, len(page), size):
                yield page[start : start + size]

    async def _chunk(self, places: Sequence[Place], run: Run | None) -> None:
        await self._wait(places, run)
        if self._stopping.is_set():
            return
        found = await dead_letters.retry_all(self._redis, [place.id for place in places])
        self.retried += found
        self.skipped += len(places) - found.total()
        if run is not None:  # sums, not steps: they may be written twice
            done, skipped = run.done + self.retried.total(), run.skipped + self.skipped
            await self._note(run, "done", done, "skipped", skipped)
        if self._rate:
            self._next_at = max(self._next_at, monotonic() - 1) + len(places) / self._rate
        await self._ring(set(found))
        self._tell(len(places))

    async def _wait(self, places: Sequence[Place], run: Run | None) -> None:
        """Wait for the rate, and until no stage of *places* has too much work."""
        while not self._stopping.is_set():
            wait_s = self._next_at - monotonic()
            if wait_s <= 0 and self._rate:
                wait_s = HOLD_S if await self._too_much({place.stage for place in places}) else 0
            if wait_s <= 0:
                return
            if run is not None:
                await self._beat(run)
            try:
                async with asyncio.timeout(min(wait_s, 1.0)):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _too_much(self, stages: set[Stage]) -> bool:
        """Tell whether enough is under way; without a worker nothing is, and nobody is kept waiting."""
        for stage in stages:
            waiting = await self._waiting(stage)
            if waiting >= MOST_WAITING:
                age_s = await heartbeats.youngest_age_s(self._redis)
                if age_s is None or age_s * 1000 > heartbeats.FRESH_MS:
                    return False
                self._hold(stage, waiting)
                return True
        return False

    async def _waiting(self, stage: Stage) -> int:
        """Return how much of what was retried waits in *stage*, counted no further than needed."""
        line, raw = keys.retried(stage), keys.raw(stage)
        if line not in keys.QUEUES[stage]:
            return int(await self._redis.hget(keys.BOOKS, f"{stage}:waiting") or 0)
        waiting = 0
        for name in keys.QUEUES[stage]:
            if name == raw or name.startswith(line):
                waiting += await books.payloads(self._redis, name, most=MOST_WAITING - waiting)
            if waiting >= MOST_WAITING:
                break
        return waiting

    async def _beat(self, run: Run) -> bool:
        """Note that the run goes on; return False when it is no longer ours."""
        if await self._note(run):
            return True
        self._stopping.set()
        return False

    async def _note(self, run: Run, *fields: str | int, goes_on: bool = True) -> bool:
        """Write *fields*, names and values in turn, and whether the run goes on; return whether it is still ours."""
        args = [run.id, int(goes_on), len(fields), *fields]
        return bool(await script(self._redis, "note_run")(args=args))

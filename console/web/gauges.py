"""Gauges: the relay's figures of now, with how fast they change; one reading a second for however many look.

How fast is the difference of two readings of this process, up to a minute apart; before there are two, of the
history's last minutes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from pipeline import books, calls, history, keys, levels
from pipeline.endpoints import OWN_PAUSE
from pipeline.levels import Level
from pipeline.outcomes import Stage
from pipeline.paces import CALLING

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

#: readings are shared for so long
FRESH_S = 1.0
#: a Redis that needs longer is as good as gone
WITHIN_S = 3.0
#: over which a speed is reckoned
OVER_MS = 60_000
_DONE = ("done", "duplicate", "ignored")
_SPEEDS = (
    "in_per_minute",
    "done_per_minute",
    "out_per_minute",
    "calls_per_minute",
    "drains_in_s",
)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The books of each stage at a moment, and how many calls it had made, by slot; the history knows no calls."""

    at_ms: int
    books: Mapping[Stage, Mapping[str, int]]
    calls: Mapping[str, Mapping[int, int]]


_Found = tuple[dict[str, Any], Mapping[Stage, Level]]


class Gauges:
    """Reads the figures."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._readings: deque[_Reading] = deque()
        self._last: tuple[float, _Found | Exception] | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> dict[str, Any]:
        """Return `relay status --json`, each stage's level and speed by the minute, and which tasks are paused."""
        return (await self.look())[0]

    async def look(self) -> tuple[dict[str, Any], Mapping[Stage, Level]]:
        """Return the same, and the levels as they were read for it."""
        async with self._lock:
            if self._last is None or monotonic() - self._last[0] > FRESH_S:
                found = await self._read_in_time()
                self._last = (monotonic(), found)
            found = self._last[1]
        if isinstance(found, Exception):
            raise found
        return found

    async def forget(self) -> None:
        """Read anew at the next look: somebody has changed something, and shall see that it is so."""
        async with self._lock:
            self._last = None

    async def _read_in_time(self) -> _Found | Exception:
        """Return the figures, or why there are none: a failure is shared, too, so that nobody waits in a row for it."""
        try:
            async with asyncio.timeout(WITHIN_S):
                return await self._read()
        except (RedisError, OSError) as error:
            return error

    async def _read(self) -> _Found:
        home = self._settings.data_home()
        status = await books.snapshot(self._redis, home, self._settings)
        now, full = await levels.read(self._redis)
        stages = {Stage(name): row for name, row in status["stages"].items()}
        reading = _Reading(now, stages, await calls.counts(self._redis, CALLING, now))
        before = await self._before(reading)
        flow = {
            str(stage): {**full[stage].view(), **_speed(stage, before, reading)} for stage in stages
        }
        held = await self._redis.hmget(keys.PAUSED, *OWN_PAUSE)
        tasks = {
            str(name): books.pause_view(kept) for name, kept in zip(OWN_PAUSE, held, strict=True)
        }
        return status | {"flow": flow, "tasks": tasks}, full

    async def _before(self, reading: _Reading) -> _Reading | None:
        """Return what *reading* is compared with, and keep it for those to come."""
        kept = self._readings
        while kept and reading.at_ms - kept[0].at_ms > OVER_MS:
            kept.popleft()
        # books that went back are others: the server was emptied
        if kept and any(
            reading.books[stage]["in"] < b["in"] for stage, b in kept[-1].books.items()
        ):
            kept.clear()
        oldest = kept[0] if kept else None
        kept.append(reading)
        # seconds say nothing of a minute: one event would be thirty
        if oldest is None or reading.at_ms - oldest.at_ms < OVER_MS / 2:
            return await self._from_history(reading.at_ms) or oldest
        return oldest

    async def _from_history(self, now_ms: int) -> _Reading | None:
        moments = [
            one for one in await history.read(self._redis, 2 * OVER_MS, 2) if one.at_ms < now_ms
        ]
        if not moments:
            return None
        at_ms, numbers = moments[0].at_ms, moments[0].numbers
        stages = {
            stage: {name: numbers.get(f"{stage}:{name}", 0) for name in keys.COUNTERS}
            for stage in Stage
        }
        return _Reading(at_ms, stages, {})


def _speed(stage: Stage, before: _Reading | None, now: _Reading) -> dict[str, float | None]:
    """Return items a minute that came, were done and left, calls a minute, and in how many seconds all will have left.

    What is retried comes back from the dead: there are fewer of them then, and more that wait.
    """
    if before is None or now.at_ms <= before.at_ms:
        return dict.fromkeys(_SPEEDS)
    minutes = (now.at_ms - before.at_ms) / 60_000
    then, books = before.books[stage], now.books[stage]
    grown = {name: books[name] - then[name] for name in keys.COUNTERS}
    lost = grown["dead"] + grown["dropped"]
    came = max(0, grown["in"]) + max(0, -lost)
    left = max(0, sum(grown[name] for name in _DONE)) + max(0, lost)
    called = _called(stage, before, now)
    fall = -grown["waiting"] / minutes
    waiting = books["waiting"]
    return {
        "in_per_minute": round(came / minutes, 1),
        "done_per_minute": round(max(0, grown["done"]) / minutes, 1),
        "out_per_minute": round(left / minutes, 1),
        "calls_per_minute": None if called is None else round(called / minutes, 1),
        "drains_in_s": round(waiting / fall * 60, 1) if waiting and fall > 0 else None,
    }


def _called(stage: Stage, before: _Reading, now: _Reading) -> int | None:
    """Return how many calls were made; None where none are made, or nobody knows how many had been."""
    if stage not in before.calls:
        return None
    had = before.calls[stage]
    return sum(max(0, count - had.get(slot, 0)) for slot, count in now.calls[stage].items())

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

from pipeline import books, history, keys, levels
from pipeline.outcomes import Stage

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


@dataclass(frozen=True, slots=True)
class _Reading:
    """The books of each stage at a moment."""

    at_ms: int
    books: Mapping[Stage, Mapping[str, int]]


class Gauges:
    """Reads the figures."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._readings: deque[_Reading] = deque()
        self._last: tuple[float, dict[str, Any] | Exception] | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> dict[str, Any]:
        """Return `relay status --json`, and for each stage its level, and events a minute in and out."""
        async with self._lock:
            if self._last is None or monotonic() - self._last[0] > FRESH_S:
                found = await self._read_in_time()
                self._last = (monotonic(), found)
            found = self._last[1]
        if isinstance(found, Exception):
            raise found
        return found

    async def _read_in_time(self) -> dict[str, Any] | Exception:
        """Return the figures, or why there are none: a failure is shared, too, so that nobody waits in a row for it."""
        try:
            async with asyncio.timeout(WITHIN_S):
                return await self._read()
        except (RedisError, OSError) as error:
            return error

    async def _read(self) -> dict[str, Any]:
        home = self._settings.data_home()
        status = await books.snapshot(self._redis, home, self._settings)
        now, full = await levels.read(self._redis)
        stages = {Stage(name): row for name, row in status["stages"].items()}
        reading = _Reading(now, stages)
        before = await self._before(reading)
        flow = {
            str(stage): {**full[stage].view(), **_speed(stage, before, reading)} for stage in stages
        }
        return status | {"flow": flow}

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
        before = kept[0] if kept else await self._from_history(reading.at_ms)
        kept.append(reading)
        return before

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
        return _Reading(at_ms, stages)


def _speed(stage: Stage, before: _Reading | None, now: _Reading) -> dict[str, float | None]:
    """Return items a minute that came and left, and in how many seconds what waits will have left at that speed.

    What is retried comes back from the dead: there are fewer of them then, and more that wait.
    """
    if before is None or now.at_ms <= before.at_ms:
        return {"in_per_minute": None, "out_per_minute": None, "drains_in_s": None}
    minutes = (now.at_ms - before.at_ms) / 60_000
    then, books = before.books[stage], now.books[stage]
    grown = {name: books[name] - then[name] for name in keys.COUNTERS}
    lost = grown["dead"] + grown["dropped"]
    came = max(0, grown["in"]) + max(0, -lost)
    left = max(0, sum(grown[name] for name in _DONE)) + max(0, lost)
    fall = -grown["waiting"] / minutes
    waiting = books["waiting"]
    return {
        "in_per_minute": round(came / minutes, 1),
        "out_per_minute": round(left / minutes, 1),
        "drains_in_s": round(waiting / fall * 60, 1) if waiting and fall > 0 else None,
    }

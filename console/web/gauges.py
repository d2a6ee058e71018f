"""Gauges: the relay's figures of now, with how fast they change; one reading a second for however many look.

How fast is the difference of two readings of this process, up to a minute apart; before there are two, of the
history's last minutes. A stage's work leaves it as anything but waiting, so that is what its speed counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from pipeline import books, history, levels
from pipeline.outcomes import Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

#: readings are shared for so long
FRESH_S = 1.0
#: over which a speed is reckoned
OVER_MS = 60_000
_LEAVES = ("done", "duplicate", "ignored", "dead", "dropped")


@dataclass(frozen=True, slots=True)
class _Reading:
    at_ms: int
    came: dict[Stage, int]
    left: dict[Stage, int]


class Gauges:
    """Reads the figures."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._readings: deque[_Reading] = deque()
        self._last: tuple[float, dict[str, Any]] | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> dict[str, Any]:
        """Return `relay status --json`, and for each stage its level, and events a minute in and out."""
        async with self._lock:
            if self._last is None or monotonic() - self._last[0] > FRESH_S:
                self._last = (monotonic(), await self._read())
            return self._last[1]

    async def _read(self) -> dict[str, Any]:
        home = self._settings.data_home()
        status = await books.snapshot(self._redis, home, self._settings)
        now, full = await levels.read(self._redis)
        stages = {Stage(name): row for name, row in status["stages"].items()}
        reading = _Reading(
            now,
            {stage: row["in"] for stage, row in stages.items()},
            {stage: sum(row[name] for name in _LEAVES) for stage, row in stages.items()},
        )
        before = await self._before(reading)
        flow = {
            str(stage): {**full[stage].view(), **_speed(stage, before, reading, row["waiting"])}
            for stage, row in stages.items()
        }
        return status | {"flow": flow}

    async def _before(self, reading: _Reading) -> _Reading | None:
        """Return what *reading* is compared with, and keep it for those to come."""
        kept = self._readings
        while kept and reading.at_ms - kept[0].at_ms > OVER_MS:
            kept.popleft()
        # books that went back are others: the server was emptied
        if kept and any(reading.came[stage] < n for stage, n in kept[-1].came.items()):
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
        return _Reading(
            at_ms,
            {stage: numbers.get(f"{stage}:in", 0) for stage in Stage},
            {stage: sum(numbers.get(f"{stage}:{name}", 0) for name in _LEAVES) for stage in Stage},
        )


def _speed(
    stage: Stage, before: _Reading | None, now: _Reading, waiting: int
) -> dict[str, float | None]:
    """Return items a minute that came and left, and in how many seconds what waits will have left at that speed."""
    if before is None or now.at_ms <= before.at_ms:
        return {"in_per_minute": None, "out_per_minute": None, "drains_in_s": None}
    minutes = (now.at_ms - before.at_ms) / 60_000
    came = max(0, now.came[stage] - before.came[stage]) / minutes
    left = max(0, now.left[stage] - before.left[stage]) / minutes
    net = left - came
    return {
        "in_per_minute": round(came, 1),
        "out_per_minute": round(left, 1),
        "drains_in_s": round(waiting / net * 60, 1) if waiting and net > 0 else None,
    }

"""Levels: how full each stage is at one instant, and how long its oldest work has waited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

_QUEUES = [(stage, name) for stage, names in keys.QUEUES.items() for name in names]


@dataclass(slots=True)
class Level:
    """One stage: sealed *batches*, and what is *in_hands* of workers, in entries.

    *oldest_s* is None when nothing waits.
    """

    batches: int = 0
    in_hands: int = 0
    oldest_s: float | None = None

    def view(self) -> dict[str, float | int | None]:
        """Return the facts for programs."""
        return {
            "batches": self.batches,
            "in_hands": self.in_hands,
            "oldest_s": self.oldest_s,
        }


async def read(redis: Redis) -> tuple[int, dict[Stage, Level]]:
    """Return Redis's time in Unix milliseconds, and the level of every stage."""
    names = [name for _, name in _QUEUES]
    now, lengths, held, oldest = await script(redis, "levels")(args=[len(names), *names])
    levels = {stage: Level() for stage in Stage}
    for (stage, name), length, in_hands, since in zip(_QUEUES, lengths, held, oldest, strict=True):
        level = levels[stage]
        level.in_hands += int(in_hands)
        if name in keys.sealed(stage):
            level.batches += int(length)
        if since:
            age_s = max(0.0, round((int(now) - int(since)) / 1000, 1))
            level.oldest_s = max(age_s, level.oldest_s or 0.0)
    return int(now), levels

"""Polls: how the poll of AudiencePoint's scores stands, which is no stage and has no books.

The walk's place, the failures of its calls and its pause are written by `workers.poll_scores`, under the name that
its calls are put off by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import keys
from pipeline.books import pause_view
from pipeline.clock import redis_now_ms

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: the name under which failed calls are put off, as those of a stage are
NAME = "polling"


@dataclass(frozen=True, slots=True)
class Poll:
    """How the poll stands. Times are Unix milliseconds of Redis's clock; 0 is never.

    *failures* are those in a row, of which a few make a *pause*, as `relay status --json` shows it; *due_ms* is the
    next call.
    """

    now_ms: int
    pushed_ms: int
    began_ms: int
    is_over: bool
    failures: int
    due_ms: int
    pause: dict[str, str | None] | None


async def read(redis: Redis) -> Poll:
    """Return how the poll stands."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hget(keys.SENDERS, "scores:pushed:last")
        pipe.hget(keys.POLL, "place")
        pipe.hmget(f"{keys.PREFIX}destination:{NAME}", "failures", "due")
        pipe.hget(keys.PAUSED, NAME)
        pushed, place, (failures, due), pause = await pipe.execute()
    began, _, cursor = (place or b"").decode().partition(":")
    return Poll(
        now_ms=await redis_now_ms(redis),
        pushed_ms=int(pushed or 0),
        began_ms=int(began or 0),
        is_over=cursor == "end",
        failures=int(failures or 0),
        due_ms=int(due or 0),
        pause=pause_view(pause),
    )

"""Pauses: a stage that takes nothing new, by the operator's word or by the relay's own.

An operator's pause stops the whole stage until it is resumed. The relay's own pause stops only the calls to
the vendor: it ends at its time, or for good with the first call that goes well. Calls in flight finish, the
receiver goes on, and both kinds survive restarts. A server that is full can be paused and resumed, too.

Tasks of the workers that are no stage and call somebody (`endpoints.OWN_PAUSE`) are paused by their name, likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

NO_KEY = "no key"
#: why a stage is paused, in as few words as an alarm tells apart: by an operator; for a key that is not set; because of
#: what came of its calls
WHYS = ("asked", "no_key", "calls")


def why(by: str, reason: str) -> str:
    """Return the one of `WHYS` that a pause *by* somebody for a *reason* falls under."""
    if by == "operator":
        return "asked"
    return "no_key" if reason.startswith(NO_KEY) else "calls"


async def pause(redis: Redis, stage: str, reason: str, *, by: str = "operator") -> None:
    """Pause *stage* until somebody resumes it."""
    await script(redis, "pause")(args=[stage, by, reason])


async def resume(redis: Redis, stage: str) -> bool:
    """Lift a pause of either kind and forget the failures behind it; return whether there was one."""
    return bool(await script(redis, "resume")(args=[stage, "", ""]))


async def probe(redis: Redis, stage: str) -> str:
    """Let the next call of *stage* go now, whatever a back-off or the relay's own pause has put off.

    Return `due`, or why nothing changed: `operator` or `key`, whose pause it is, or `free`, when nothing was put off.
    """
    answer: bytes = await script(redis, "probe")(args=[stage])
    return answer.decode()


async def is_asked_for(redis: Redis, name: str) -> bool:
    """Tell whether an operator has paused *name*."""
    kept: bytes | None = await redis.hget(keys.PAUSED, name)
    return kept is not None and orjson.loads(kept)["by"] == "operator"


async def end_own_pause(redis: Redis, stage: Stage, reason: str = "") -> None:
    """Lift a pause that the relay made itself for a reason that begins with *reason*; no operator's pause."""
    await script(redis, "resume")(args=[stage, "relay", reason])


async def pause_without_key(redis: Redis, stage: Stage, reason: str) -> None:
    """Pause *stage* because its vendor's key is not set; an operator's pause stays as it is."""
    await script(redis, "pause_without_key")(args=[stage, reason])


async def end_pause_without_key(redis: Redis, stage: Stage) -> None:
    """Lift the pause that `pause_without_key` made, once the key is set."""
    await end_own_pause(redis, stage, NO_KEY)

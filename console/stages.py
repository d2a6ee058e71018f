"""`relay pause` and `relay resume`: a stage that takes nothing new, and one that goes on.

What calls somebody and is no stage, imports and the polling of scores, is paused likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import AsJson, operator, ring, run
from pipeline.endpoints import OWN_PAUSE
from pipeline.outcomes import Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

NAMES = [str(name) for name in (*Stage, *OWN_PAUSE)]


def _name(word: str) -> str:
    if word not in NAMES:
        raise typer.BadParameter(f"{word!r} is not one of {', '.join(NAMES)}.")
    return word


WhichStage = Annotated[str, typer.Argument(metavar="STAGE", help=" | ".join(NAMES), parser=_name)]


def pause(
    stage: WhichStage,
    reason: Annotated[
        str, typer.Option(help="Why; shown by `relay status`.")
    ] = "paused by the operator",
    as_json: AsJson = False,
) -> None:
    """Pause a stage: calls in flight finish, nothing new is taken, receiving goes on."""
    from console.output import print_json, say

    async def work(redis: Redis) -> dict[str, Any] | None:
        from pipeline import audit, books, keys, pauses

        await pauses.pause(redis, stage, reason[:500])
        await audit.record(redis, "pause", who=operator(), count=1, wanted={"stage": stage})
        return books.pause_view(await redis.hget(keys.PAUSED, stage))

    paused = run(work)
    if as_json:
        print_json({"stage": stage, "paused": paused})
    else:
        say(f"{stage} is paused until `relay resume {stage}`; what comes in waits.")


def resume(stage: WhichStage, as_json: AsJson = False) -> None:
    """Lift a pause, the operator's or the relay's own, and let the stage try again at once."""
    from console.output import print_json, say

    async def work(redis: Redis) -> bool:
        from pipeline import audit, pauses

        was_paused = await pauses.resume(redis, stage)
        await audit.record(redis, "resume", who=operator(), count=1, wanted={"stage": stage})
        if stage not in OWN_PAUSE:
            await ring(redis, {Stage(stage)})
        return was_paused

    was_paused = run(work)
    if as_json:
        print_json({"stage": stage, "paused": None, "was_paused": was_paused})
    else:
        say(f"{stage} goes on." if was_paused else f"{stage} was not paused.")

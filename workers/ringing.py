"""Ringing: which stages have something to do now, as the sweep sees it every second.

A stage that would take nothing is left alone: an operator paused it, or all that waits there waits for calls and
the relay's own pause or back-off lasts. It is rung for a little before that ends, because a drain waits for the
moment itself; a resumed stage is rung for by the next sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.scripts import script
from workers.switched_off import is_off

if TYPE_CHECKING:
    from workers.context import Context

#: work that waited this long under one bell number: the job of that number is dead or stuck in arq
STALE_S = 5.0

#: what waits for a call to a vendor; other queues are worked on while calls are put off
CALLS: dict[Stage, tuple[str, ...]] = {
    Stage.ENRICH: tuple(
        name for name in keys.QUEUES[Stage.ENRICH] if name.endswith((":batches", ":held", ":bulk"))
    ),
    Stage.SUBSCRIBE: keys.QUEUES[Stage.SUBSCRIBE],
    Stage.FORWARD: tuple(
        name for name in keys.QUEUES[Stage.FORWARD] if name != keys.raw(Stage.FORWARD)
    ),
    Stage.NOTIFY: keys.QUEUES[Stage.NOTIFY],
}


async def ring_for_work(context: Context) -> None:
    """Ring for every stage that has something to do now.

    A job that died with its worker before its drain raised the number stays locked in arq for longer than
    anyone wants to wait; work that has waited long under one number gets a new one.
    """
    seen = await look(context)
    for stage in Stage:
        has_work = has_something_to_do(context, stage, seen)
        number = seen.bells.get(stage, 0)
        if context.bells_seen.is_stale(stage, number if has_work else None, STALE_S):
            number = int(await script(context.redis, "raise_bells")(args=[stage]))
        if has_work:
            context.bell.forget(stage)
            await context.ring({stage: number}, [stage])


@dataclass(frozen=True, slots=True)
class Seen:
    """How the stages stand at one moment. Times are Redis's, in Unix milliseconds."""

    now_ms: float
    bells: Mapping[str, int]
    #: who paused a stage, and when the next call may be made (None: nobody knows)
    paused: Mapping[str, tuple[str, float | None]]
    #: when the back-off of a stage ends
    due_ms: Mapping[str, float]
    #: when the next bulk job is due (None: there is none; parts that are left have lost theirs)
    bulk_due_ms: float | None
    #: how many entries each queue has
    lengths: Mapping[str, int]


async def look(context: Context) -> Seen:
    """Read how the stages stand."""
    names = [name for queues in keys.QUEUES.values() for name in queues]
    async with context.redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(keys.BELLS)
        pipe.hgetall(keys.PAUSED)
        pipe.zrange(keys.BULK, 0, 0, withscores=True)
        for stage in CALLS:
            pipe.hget(keys.destination(stage), "due")
        for name in names:
            pipe.xlen(keys.queue(name))
        (seconds, micros), bells, paused, jobs, *numbers = await pipe.execute()
    due, lengths = numbers[: len(CALLS)], numbers[len(CALLS) :]
    pauses = {stage.decode(): orjson.loads(stored) for stage, stored in paused.items()}
    return Seen(
        now_ms=seconds * 1000 + micros / 1000,
        bells={stage.decode(): int(number) for stage, number in bells.items()},
        paused={stage: (pause["by"], pause.get("until_ms")) for stage, pause in pauses.items()},
        due_ms={stage: float(at or 0) for stage, at in zip(CALLS, due, strict=True)},
        bulk_due_ms=jobs[0][1] if jobs else None,
        lengths=dict(zip(names, lengths, strict=True)),
    )


def has_something_to_do(context: Context, stage: Stage, seen: Seen) -> bool:
    """Tell whether a drain of *stage* would find work that it may do now, or very soon."""
    by, until_ms = seen.paused.get(stage, ("", 0.0))
    if by == "operator":
        return False
    queues = set(keys.QUEUES[stage])
    if stage in CALLS and not is_off(context, stage):
        soon_ms = seen.now_ms + context.timing.patience_s * 1000
        if until_ms is None or max(until_ms, seen.due_ms[stage]) > soon_ms:
            queues -= set(CALLS[stage])
        if stage is Stage.ENRICH and (seen.bulk_due_ms or 0) > soon_ms:
            queues.discard(keys.bulk(stage))
    return any(seen.lengths[name] for name in queues)

"""Ringing: which stages have something to do now, as the sweep sees it every second.

A stage that would take nothing is left alone: an operator paused it, or all that waits there waits for calls and
the relay's own pause or back-off lasts. It is rung for a little before that ends, because a drain waits for the
moment itself; a resumed stage is rung for by the next sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from pipeline import keys
from pipeline.outcomes import Stage
from pipeline.paces import CALLING
from pipeline.scripts import script

if TYPE_CHECKING:
    from workers.context import Context

#: work that waited this long under one bell number: the job of that number is dead or stuck in arq
STALE_S = 5.0


async def ring_for_work(context: Context, seen: Seen | None = None) -> None:
    """Ring for every stage that has something to do now, as *seen* a moment ago.

    A job that died with its worker before its drain raised the number stays locked in arq for longer than
    anyone wants to wait; work that has waited long under one number gets a new one.
    """
    seen = seen or await look(context)
    for stage in Stage:
        has_work = has_something_to_do(context, stage, seen)
        number = seen.bells.get(stage, 0)
        if context.bells_seen.is_stale(stage, number if has_work else None, STALE_S):
            number = int(await script(context.redis, "raise_bells")(args=[stage]))
        if has_work:
            context.bell.forget(stage)
            await context.ring({stage: number}, [stage])


@dataclass(frozen=True, slots=True)
class Pause:
    """Who paused a stage and why, and when the next call may be made (None: nobody knows)."""

    by: str = ""
    reason: str = ""
    until_ms: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """How the stages stand at one moment. Times are Redis's, in Unix milliseconds."""

    now_ms: float
    bells: Mapping[str, int]
    paused: Mapping[str, Pause]
    #: when the back-off of a stage ends
    due_ms: Mapping[str, float]
    #: when the next bulk job is due (None: there is none; parts that are left have lost theirs)
    bulk_due_ms: float | None
    #: how many entries each queue has
    lengths: Mapping[str, int]
    #: the oldest of what is kept for a time only; infinite where there is none
    oldest_letter_ms: float
    oldest_visitor_ms: float
    oldest_slot_ms: float


async def look(context: Context) -> Seen:
    """Read how the stages stand."""
    args: list[str | int] = [len(CALLING), *CALLING, len(keys.ALL_QUEUES), *keys.ALL_QUEUES]
    answer = await script(context.redis, "look")(args=args)
    now, bells, paused, bulk_due, due, lengths, *oldest = answer
    letter, visitor, slot = (float(at or math.inf) for at in oldest)
    pauses = {stage: orjson.loads(stored) for stage, stored in _pairs(paused)}
    return Seen(
        now_ms=float(now),
        bells={stage: int(number) for stage, number in _pairs(bells)},
        paused={
            stage: Pause(pause["by"], pause.get("reason", ""), pause.get("until_ms"))
            for stage, pause in pauses.items()
        },
        due_ms={stage: float(at) for stage, at in zip(CALLING, due, strict=True)},
        bulk_due_ms=float(bulk_due) if bulk_due else None,
        lengths=dict(zip(keys.ALL_QUEUES, lengths, strict=True)),
        oldest_letter_ms=letter,
        oldest_visitor_ms=visitor,
        oldest_slot_ms=slot,
    )


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the fields of a hash as a script answers them."""
    return ((name.decode(), value) for name, value in zip(flat[::2], flat[1::2], strict=True))


def has_something_to_do(context: Context, stage: Stage, seen: Seen) -> bool:
    """Tell whether a drain of *stage* would find work that it may do now, or very soon."""
    pause = seen.paused.get(stage, Pause())
    if pause.by == "operator":
        return False
    queues = set(keys.QUEUES[stage])
    if stage in CALLING and not context.settings.is_off(stage):
        soon_ms = seen.now_ms + context.timing.patience_s * 1000
        if pause.until_ms is None or max(pause.until_ms, seen.due_ms[stage]) > soon_ms:
            queues -= set(keys.calls_of(stage))
        if stage is Stage.ENRICH and (seen.bulk_due_ms or 0) > soon_ms:
            queues.discard(keys.bulk(stage))
    return any(seen.lengths[name] for name in queues)

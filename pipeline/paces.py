"""Paces: how fast each vendor is asked, which is what the settings say until it asks for fewer requests.

A 429 halves the rate that all workers share; every call that goes well after it raises it a little, up to the
configured one again (`lua/pace.lua` has the arithmetic). The quota's 429 is none of this: no pace helps against it, so
the stage pauses. Pauses, back-off and `Retry-After` stand beside it. Where no rate is configured there is nothing to
halve: there the number of calls at a time is what gives way (`workers.width`). Each worker has its own, and tells with
its heartbeat where it makes fewer calls than it may; what it told is gone soon after it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import TYPE_CHECKING

from pipeline import heartbeats, keys
from pipeline.clock import iso
from pipeline.outcomes import Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.settings import Settings

#: the stages that call somebody
CALLING = (Stage.ENRICH, Stage.SUBSCRIBE, Stage.FORWARD, Stage.NOTIFY)
#: calls of one stage by one worker at a time, when all is well
WIDTH = 8
#: whose calls have a rate
VENDORS = ("audiencepoint", "audiencelab")
#: below it a rate is the configured one: what shows is two digits
_WHOLE = 0.995


View = dict[str, float | str | None]
Pause = Mapping[str, str | None] | None


@dataclass(frozen=True, slots=True)
class Pace:
    """The rate of one vendor in calls a second, 0 for no limit, and why it is not the *configured* one."""

    configured: float
    now: float
    why: str | None = None
    halved_at_ms: int | None = None

    def view(self) -> View:
        """Return it as `relay status --json` shows it."""
        since = None if self.halved_at_ms is None else iso(self.halved_at_ms)
        return {
            "configured": self.configured,
            "now": self.now,
            "why": self.why,
            "slowed_at": since,
        }


async def turn(redis: Redis, vendor: str, calls_per_s: float, rank: int) -> float:
    """Use one call of the rate of *vendor* outside the stages: 0 when it may be made now.

    Else the seconds to wait before asking again. *calls_per_s* is the configured rate, and *rank* 0 is served first.
    """
    if not calls_per_s:
        return 0.0
    wait_ms: int = await script(redis, "turn")(args=[vendor, 1000 / calls_per_s, rank])
    return wait_ms / 1000


async def went_well(redis: Redis, vendor: str) -> None:
    """Note a call outside the stages that *vendor* answered well."""
    await script(redis, "went_well")(args=[vendor])


async def slow_down(
    redis: Redis, vendor: str, calls_per_s: float, why: str, begun_ms: int | None = None
) -> bool:
    """Halve the rate of *vendor*, which asked for fewer requests; return whether this call has done it.

    *calls_per_s* is the configured rate. Of calls that were on their way together one counts: *begun_ms* is when the
    call was claimed, by Redis's clock; None for one of which nobody knows it.
    """
    gap_ms = 1000 / calls_per_s if calls_per_s else 0
    args: list[str | float] = [vendor, gap_ms, "" if begun_ms is None else begun_ms, why]
    return bool(await script(redis, "slow_down")(args=args))


def rates_view(settings: Settings, rows: Sequence[Sequence[bytes | None]]) -> dict[str, View]:
    """Return the pace of each vendor as `relay status --json` shows it, of what `lua/status.lua` answers."""
    configured = (settings.audiencepoint_rate, settings.audiencelab_rate)
    return {
        vendor: _pace(rate, *row).view()
        for vendor, rate, row in zip(VENDORS, configured, rows, strict=True)
    }


def _pace(
    rate: float, share: bytes | None, gap: bytes | None, why: bytes | None, halved: bytes | None
) -> Pace:
    if not rate or share is None or gap is None or halved is None or float(share) >= _WHOLE:
        return Pace(rate, rate)
    if not isclose(float(gap), 1000 / rate, rel_tol=1e-6):  # of another setting
        return Pace(rate, rate)
    words = (why or b"").decode(errors="replace")
    return Pace(rate, round(rate * float(share), 4), words, int(halved))


async def tell_widths(redis: Redis, worker: str, narrowed: Mapping[Stage, tuple[int, str]]) -> None:
    """Note for a few heartbeats for which stages *worker* makes fewer calls at a time than it may, and why."""
    key, told = keys.width(worker), {str(s): f"{n}|{why}" for s, (n, why) in narrowed.items()}
    async with redis.pipeline(transaction=True) as pipe:
        pipe.delete(key)
        if told:
            pipe.hset(key, mapping=told)
            pipe.pexpire(key, heartbeats.FRESH_MS)
        await pipe.execute()


def calls_view(
    settings: Settings, paused: Mapping[str, Pause], widths: Sequence[Mapping[str, bytes]]
) -> dict[str, View]:
    """Return how many calls of each stage all workers may have on their way, as `relay status --json` shows it.

    *widths* has what each worker that lives has told: one that told nothing makes all the calls it may.
    """
    return {str(stage): _calls(settings, stage, paused[stage], widths) for stage in CALLING}


def _calls(
    settings: Settings, stage: Stage, pause: Pause, widths: Sequence[Mapping[str, bytes]]
) -> View:
    if settings.is_off(stage):
        return {"now": 0, "most": 0, "why": "switched off"}
    most = WIDTH * len(widths)
    if pause and (pause["by"] == "operator" or pause["until"] is None):
        return {"now": 0, "most": most, "why": "paused"}
    if pause:  # the probe
        return {"now": min(1, most), "most": most, "why": "paused until one goes well"}
    now, why = 0, None
    for told in widths:
        number, _, words = told.get(stage, b"").decode(errors="replace").partition("|")
        now, why = now + int(number or WIDTH), words or why
    return {"now": now, "most": most, "why": why}

"""The books: for every stage, at every instant, in = waiting + done + duplicate + ignored + dead + dropped.

The counters are changed by the same atomic steps that move the work. `snapshot` reads them in one script;
`recount` counts the work itself, which tests and the doctor hold against the books. What receivers have spilled is in
no counter, because Redis was not there to count: whoever can see the files adds them.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

import orjson

from pipeline import heartbeats, keys, paces
from pipeline.clock import iso
from pipeline.outcomes import Stage
from pipeline.scripts import script
from pipeline.spill import survey

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.home import Home
    from pipeline.settings import Settings

FATES = ("waiting", "done", "duplicate", "ignored", "dead", "dropped")
REFUSALS = ("token", "signature", "too_large")
ALL_QUEUES = [name for queues in keys.QUEUES.values() for name in queues]


async def snapshot(
    redis: Redis, home: Home | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Return what `relay status --json` prints, read at one instant (contract of the command).

    With *settings* also how fast the vendors are asked by these, and how much of what was retried waits. What is
    spilled in *home* and not yet in Redis is `in` and `waiting` in `unpack`, and told as `spilled` when there is any;
    files that cannot be read are told as `spill_unreadable`. Files are looked at before Redis is asked how far it has
    them: what is stored meanwhile is counted there.
    """
    found = await asyncio.to_thread(survey, home) if home else None
    spilled = found.looks if found else []
    names = [look.name for look in spilled]
    args: list[str | int] = [heartbeats.FRESH_MS, len(ALL_QUEUES), *ALL_QUEUES]
    args += [len(names), *names, len(paces.VENDORS), *paces.VENDORS]
    answer = await script(redis, "status")(args=args)
    now, books, refused, paused, oldest, lengths, places, rates, widths = answer
    left = [look.left(int(place)) for look, place in zip(spilled, places, strict=True)]
    numbers = _pairs(books)
    stages = {
        str(stage): {name: int(numbers.get(f"{stage}:{name}", 0)) for name in keys.COUNTERS}
        for stage in Stage
    }
    for name in ("in", "waiting"):
        stages[Stage.UNPACK][name] += sum(left)
    pauses = _pairs(paused)
    refusals = _pairs(refused)
    since = [int(at_ms) for at_ms in oldest if at_ms]
    since += [look.begun_ms for look, count in zip(spilled, left, strict=True) if count]
    told: dict[str, Any] = {
        "stages": stages,
        "balanced": all(row["in"] == sum(row[fate] for fate in FATES) for row in stages.values()),
        "paused": {str(stage): pause_view(pauses.get(str(stage))) for stage in Stage},
        "maybe_duplicate": int(numbers.get("maybe_duplicate", 0)),
        "refused": {name: int(refusals.get(name, 0)) for name in REFUSALS},
        "workers": len(widths),
        "oldest_waiting_s": max(0.0, round((now - min(since)) / 1000, 3)) if since else 0.0,
    }
    if settings:
        told["retried"] = _retried(dict(zip(ALL_QUEUES, map(int, lengths), strict=True)))
        told["rates"] = paces.rates_view(settings, rates)
        told["calls"] = paces.calls_view(settings, told["paused"], list(map(_pairs, widths)))
    if any(left):
        told["spilled"] = sum(left)
    if found and found.unreadable:
        told["spill_unreadable"] = found.unreadable
    return told


def _retried(lengths: dict[str, int]) -> dict[str, dict[str, int]]:
    """Return how much of what was retried waits in each stage that has a line for it."""
    lines = {stage: keys.retried(stage) for stage in paces.CALLING}
    return {
        str(stage): {
            "single": lengths[line],
            "batches": lengths[keys.batches(line)],
            "held": lengths[keys.held(line)],
        }
        for stage, line in lines.items()
    }


def pause_view(stored: bytes | None) -> dict[str, str | None] | None:
    """Return a stored pause as the contract shows it: by, reason, since, until."""
    if stored is None:
        return None
    pause = orjson.loads(stored)
    until = pause.get("until_ms")
    return {
        "by": pause["by"],
        "reason": pause["reason"],
        "since": iso(pause["since_ms"]),
        "until": None if until is None else iso(until),
    }


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


async def recount(redis: Redis) -> dict[Stage, dict[str, int]]:
    """Count what waits and what is dead from the data itself. Slow: it reads every queue."""
    counted = {stage: {"waiting": 0, "dead": 0} for stage in Stage}
    for stage, queues in keys.QUEUES.items():
        for name in queues:
            counted[stage]["waiting"] += await payloads(redis, name)
    cursor = 0
    while True:
        cursor, members = await redis.zscan(keys.DEAD, cursor, count=1000)
        for member, _ in members:
            counted[Stage(member.split(b"/", 1)[0].decode())]["dead"] += 1
        if cursor == 0:
            return counted


async def payloads(redis: Redis, queue: str, most: float = inf) -> int:
    """Count the pieces of work in *queue*, page by page; once there are *most*, the rest is not looked at."""
    page, total, start = 1_000 if most == inf else 100, 0, "-"
    while True:
        found, rows, last = await script(redis, "payloads")(args=[queue, start, page])
        total += int(found)
        if rows < page or total >= most:
            return total
        start = "(" + last.decode()

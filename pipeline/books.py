"""The books: for every stage, at every instant, in = waiting + done + duplicate + ignored + dead + dropped.

The counters are changed by the same atomic steps that move the work. `snapshot` reads them in one script;
`recount` counts the work itself, which tests and the doctor hold against the books. What receivers have spilled is in
no counter, because Redis was not there to count: whoever can see the files adds them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
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
    from pipeline.spill import Look, Survey

FATES = ("waiting", "done", "duplicate", "ignored", "dead", "dropped")
REFUSALS = ("token", "signature", "too_large")


async def snapshot(
    redis: Redis, home: Home | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Return what `relay status --json` prints, read at one instant.

    With *settings* also how fast the vendors are asked by these, and how much of what was retried waits. What is
    spilled in *home* and not yet in Redis is `in` and `waiting` in `unpack`, and told as `spilled` when there is any;
    files that cannot be read are told as `spill_unreadable`. Files are looked at before Redis is asked how far it has
    them: what is stored meanwhile is counted there.
    """
    found = await asyncio.to_thread(survey, home) if home else None
    told = await _ask(redis, found.looks if found else [])
    _add_spill(told, found)
    return _tell(told, found, settings)


async def last_refused(redis: Redis) -> dict[str, int | None]:
    """Return when the last request was refused, by cause: Unix time in ms, None for a cause that never came."""
    found = await redis.hmget(keys.REFUSED, [f"{cause}:last" for cause in REFUSALS])
    return {cause: int(at) if at else None for cause, at in zip(REFUSALS, found, strict=True)}


@dataclass(slots=True)
class _Told:
    """What Redis answered, and how many deliveries of each spilled file it does not have yet."""

    now_ms: int
    counts: dict[str, int]
    refused: dict[str, int]
    pauses: dict[str, bytes]
    since_ms: list[int]
    lengths: dict[str, int]
    left: list[int]
    rates: list[Any]
    widths: list[dict[str, bytes]]


async def _ask(redis: Redis, spilled: Sequence[Look]) -> _Told:
    names = [look.name for look in spilled]
    args: list[str | int] = [heartbeats.FRESH_MS, len(keys.ALL_QUEUES), *keys.ALL_QUEUES]
    args += [len(names), *names, len(paces.VENDORS), *paces.VENDORS]
    answer = await script(redis, "status")(args=args)
    now, books, refused, paused, oldest, lengths, places, rates, widths = answer
    return _Told(
        now_ms=int(now),
        counts={name: int(count) for name, count in _pairs(books).items()},
        refused={name: int(count) for name, count in _pairs(refused).items()},
        pauses=_pairs(paused),
        since_ms=[int(at_ms) for at_ms in oldest if at_ms],
        lengths=dict(zip(keys.ALL_QUEUES, map(int, lengths), strict=True)),
        left=[look.left(int(place)) for look, place in zip(spilled, places, strict=True)],
        rates=rates,
        widths=list(map(_pairs, widths)),
    )


def _add_spill(told: _Told, found: Survey | None) -> None:
    """Count what lies in the spill as what has come in and waits."""
    for name in ("in", "waiting"):
        counter = f"{Stage.UNPACK}:{name}"
        told.counts[counter] = told.counts.get(counter, 0) + sum(told.left)
    looks = found.looks if found else []
    told.since_ms += [look.begun_ms for look, count in zip(looks, told.left, strict=True) if count]


def _tell(told: _Told, found: Survey | None, settings: Settings | None) -> dict[str, Any]:
    stages = {
        str(stage): {name: told.counts.get(f"{stage}:{name}", 0) for name in keys.COUNTERS}
        for stage in Stage
    }
    since = told.since_ms
    snapshot: dict[str, Any] = {
        "stages": stages,
        "balanced": all(row["in"] == sum(row[fate] for fate in FATES) for row in stages.values()),
        "paused": {str(stage): pause_view(told.pauses.get(str(stage))) for stage in Stage},
        "maybe_duplicate": told.counts.get("maybe_duplicate", 0),
        "refused": {name: told.refused.get(name, 0) for name in REFUSALS},
        "workers": len(told.widths),
        "oldest_waiting_s": max(0.0, round((told.now_ms - min(since)) / 1000, 3)) if since else 0.0,
    }
    if settings:
        snapshot["retried"] = _retried(told.lengths)
        snapshot["rates"] = paces.rates_view(settings, told.rates)
        snapshot["calls"] = paces.calls_view(settings, snapshot["paused"], told.widths)
    if any(told.left):
        snapshot["spilled"] = sum(told.left)
    if found and found.unreadable:
        snapshot["spill_unreadable"] = found.unreadable
    return snapshot


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
    """Return a stored pause as `relay status --json` shows it: by, reason, since, until."""
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

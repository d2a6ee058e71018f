"""Dead letters: what failed for good, kept whole, so that somebody can understand it and try again.

A bug is pushed, a vendor refuses an event, a sender sends what nobody knows: the letter says which, in whose
words, how often, since when, and holds the original. Fix the cause, `relay dead retry`, and the work goes
back to its stage; or `relay dead drop` it. The sweep drops letters by age, never by count: a bad night must
not push last week's letters out. Burying itself is part of a move (`moves.Move.bury`).

The index is one sorted set by time of burial whose members read `stage/source/reason/id`, so filters need no
look at the letters themselves.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from pipeline import keys
from pipeline.clock import iso, redis_now_ms
from pipeline.deliveries import Delivery
from pipeline.outcomes import Reason, Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: every set field must match. *since_ms* is about the time of burial."""

    stage: Stage | None = None
    source: str | None = None
    reason: Reason | None = None
    since_ms: int | None = None

    def matches(self, stage: str, source: str, reason: str) -> bool:
        """Tell whether a letter of these three words is meant."""
        return (
            self.stage in (None, stage)
            and self.source in (None, source)
            and self.reason in (None, reason)
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a letter stands in the index."""

    id: str
    stage: Stage
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One letter. *payload* is the original: a delivery's body, or one event."""

    id: str
    stage: Stage
    source: str
    reason: str
    error: str
    attempts: int
    count: int
    buried_at_ms: int
    first_seen_at_ms: int
    payload: bytes

    def view(self) -> dict[str, Any]:
        """Return the letter as `relay dead list --json` shows it."""
        return {
            "id": self.id,
            "stage": str(self.stage),
            "source": self.source,
            "reason": self.reason,
            "error": self.error,
            "attempts": self.attempts,
            "count": self.count,
            "buried_at": iso(self.buried_at_ms),
            "first_seen_at": iso(self.first_seen_at_ms),
            "payload": payload_view(self.payload),
        }


def payload_view(payload: bytes) -> dict[str, Any]:
    """Return *payload* for people and programs: as JSON, else as text, else in base64."""
    try:
        return {"encoding": "json", "data": orjson.loads(payload)}
    except orjson.JSONDecodeError:
        pass
    try:
        return {"encoding": "utf-8", "data": payload.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", "data": b64encode(payload).decode()}


async def places(redis: Redis, wanted: Filter) -> AsyncIterator[Place]:
    """Walk the index, newest letters first; letters buried meanwhile are not met."""
    newest = f"({await redis_now_ms(redis) + 1}"
    oldest = "-inf" if wanted.since_ms is None else wanted.since_ms
    start = 0
    while True:
        members = await redis.zrevrangebyscore(keys.DEAD, newest, oldest, start=start, num=PAGE)
        gone = 0
        for member in members:
            stage, source, reason, dead_id = member.decode().split("/", 3)
            if wanted.matches(stage, source, reason):
                yield Place(dead_id, Stage(stage), source, reason)
                # what the caller retried or dropped is no longer in the index
                gone += await redis.zscore(keys.DEAD, member) is None
        if len(members) < PAGE:
            return
        start += PAGE - gone


async def fetch(redis: Redis, dead_id: str) -> DeadLetter | None:
    """Return one letter, or None."""
    stored = await redis.hgetall(keys.letter(dead_id))
    if not stored:
        return None
    stage, payload = Stage(stored[b"stage"].decode()), stored[b"payload"]
    if stage is Stage.UNPACK:
        payload = Delivery.unpack(payload).body
    return DeadLetter(
        id=dead_id,
        stage=stage,
        source=stored[b"source"].decode(),
        reason=stored[b"reason"].decode(),
        error=stored[b"error"].decode(errors="replace"),
        attempts=int(stored[b"attempts"]),
        count=int(stored[b"count"]),
        buried_at_ms=int(stored[b"buried_at"]),
        first_seen_at_ms=int(stored[b"first_seen_at"]),
        payload=payload,
    )


async def newest(redis: Redis, wanted: Filter, limit: int = 100) -> list[DeadLetter]:
    """Return up to *limit* letters, newest first."""
    letters: list[DeadLetter] = []
    if limit <= 0:
        return letters
    async for place in places(redis, wanted):
        if letter := await fetch(redis, place.id):
            letters.append(letter)
        if len(letters) == limit:
            break
    return letters


async def counts(redis: Redis, wanted: Filter) -> dict[Stage, dict[str, int]]:
    """Count the letters that *wanted* means, per stage and reason; touches nothing."""
    counted: dict[Stage, dict[str, int]] = {}
    newest_score = await redis_now_ms(redis)
    oldest = "-inf" if wanted.since_ms is None else wanted.since_ms
    start = 0
    while True:
        members = await redis.zrangebyscore(keys.DEAD, oldest, newest_score, start=start, num=PAGE)
        for member in members:
            stage, source, reason, _ = member.decode().split("/", 3)
            if wanted.matches(stage, source, reason):
                row = counted.setdefault(Stage(stage), {})
                row[reason] = row.get(reason, 0) + 1
        if len(members) < PAGE:
            return counted
        start += PAGE


async def retry(redis: Redis, dead_id: str) -> Stage | None:
    """Put one letter back to work, past the seen mark; return its stage, or None when it is gone."""
    answer = await script(redis, "retry")(args=[dead_id])
    return Stage(answer[1].decode()) if answer[0] else None


async def drop(redis: Redis, dead_ids: list[str]) -> int:
    """Drop letters for good; return how many there were. They stay in the books as `dropped`."""
    return int(await script(redis, "drop")(args=[len(dead_ids), *dead_ids]))


async def drop_old(redis: Redis, keep_ms: int, most: int = 1_000) -> int:
    """Drop up to *most* letters that were buried longer ago than *keep_ms*; for the sweep."""
    until = await redis_now_ms(redis) - keep_ms
    members = await redis.zrangebyscore(keys.DEAD, "-inf", until, start=0, num=most)
    return (
        await drop(redis, [member.decode().rsplit("/", 1)[1] for member in members])
        if members
        else 0
    )

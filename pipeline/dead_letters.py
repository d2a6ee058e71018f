"""Dead letters: what failed for good, kept whole, so that somebody can understand it and try again.

A bug is pushed, a vendor refuses an event, a sender sends what nobody knows: the letter says which, in whose
words, how often, since when, and holds the original. Fix the cause, `relay dead retry`, and the work goes
back to its stage; or `relay dead drop` it. The sweep drops letters by age, never by count: a bad night must
not push last week's letters out. Burying itself is part of a move (`moves.Move.bury`).

The index is one sorted set by time of burial whose members read `stage/source/reason/id`, so filters need no
look at the letters themselves. The same steps keep one of each kind (`stage/source/reason`, `pipeline.dead_index`), and
count how many there are.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from pipeline import dead_index, dead_walk, keys
from pipeline.clock import iso, redis_now_ms
from pipeline.dead_walk import Stretch
from pipeline.deliveries import Delivery
from pipeline.outcomes import Reason, Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: letters of the index a round trip
PAGE = 1_000
#: whole letters a round trip: each may hold a body of many megabytes
FETCH = 50
#: letters of the index of all that one look goes through: a tenth of a second
FARTHEST = 10 * PAGE
# an integer of 19 digits may be more than 64 bits, which orjson reads as a float
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: every set field must match.

    *since_ms* and *until_ms*, both included, are about the time of burial.
    """

    stage: Stage | None = None
    source: str | None = None
    reason: Reason | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def names_a_kind(self) -> bool:
        """Tell whether it leaves out any kind; else it is about time alone."""
        return not (self.stage is None and self.source is None and self.reason is None)

    def matches(self, place: Place) -> bool:
        """Tell whether the letter of *place* is meant, as far as its three words tell."""
        return (
            self.stage in (None, place.stage)
            and self.source in (None, place.source)
            and self.reason in (None, place.reason)
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a letter stands in the index."""

    id: str
    stage: Stage
    source: str
    reason: str

    @property
    def kind(self) -> str:
        """The kind of the letter, as the index has it."""
        return f"{self.stage}/{self.source}/{self.reason}"


@dataclass(frozen=True, slots=True)
class Head:
    """What stands on a letter: everything but its payload, which may have megabytes."""

    id: str
    stage: Stage
    source: str
    reason: str
    error: str
    attempts: int
    count: int
    buried_at_ms: int
    first_seen_at_ms: int

    def view(self) -> dict[str, Any]:
        """Return the letter as `relay dead list --json` shows it, as far as it is known here."""
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
        }


@dataclass(frozen=True, slots=True)
class DeadLetter(Head):
    """One letter. *payload* is the original: a delivery's body, or one event."""

    payload: bytes

    def view(self) -> dict[str, Any]:
        """Return the letter as `relay dead list --json` shows it."""
        return {**Head.view(self), "payload": payload_view(self.payload)}


def payload_view(payload: bytes) -> dict[str, Any]:
    """Return *payload* for people and programs: as JSON, else as text, else in base64."""
    try:
        data = orjson.loads(payload)
        orjson.dumps(data)  # reads deeper nesting than it writes
        if not _LONG_NUMBER.search(payload) or json.loads(payload) == data:
            return {"encoding": "json", "data": data}
    except (ValueError, TypeError, RecursionError):  # orjson's errors are of these kinds
        pass
    try:
        return {"encoding": "utf-8", "data": payload.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", "data": b64encode(payload).decode()}


async def places(
    redis: Redis, wanted: Filter, *, oldest_first: bool = False
) -> AsyncIterator[list[Place]]:
    """Walk the index in pages, newest letters first; letters buried meanwhile are not met.

    The caller may retry or drop what it is given while it walks.
    """
    async for page in _places(redis, wanted, PAGE, oldest_first=oldest_first):
        yield page


async def _places(
    redis: Redis, wanted: Filter, size: int, *, oldest_first: bool = False
) -> AsyncIterator[list[Place]]:
    kinds = await _kinds_of(redis, wanted)
    stretch = await _stretch(redis, wanted, oldest_first=oldest_first)
    async for rows in dead_walk.pages(redis, kinds, stretch, _page_size(wanted, kinds, size)):
        found = [_place(member) for _, member in rows]
        if found := [place for place in found if wanted.matches(place)]:
            yield found


async def _stretch(redis: Redis, wanted: Filter, *, oldest_first: bool = False) -> Stretch:
    last = await redis_now_ms(redis) if wanted.until_ms is None else wanted.until_ms
    return Stretch("-inf" if wanted.since_ms is None else wanted.since_ms, last, oldest_first)


def _page_size(wanted: Filter, kinds: Sequence[str] | None, size: int) -> int:
    """Return how many rows to read at a time for *size* letters: many where few of them may be meant."""
    return PAGE if kinds is None and wanted.names_a_kind else min(PAGE, size)


async def _kinds_of(redis: Redis, wanted: Filter) -> list[str] | None:
    """Return the kinds that *wanted* means, if their indexes may be read instead of that of all letters; else None."""
    if not wanted.names_a_kind:
        return None
    known = await dead_index.read(redis)
    if known is None:
        return None
    return [kind for kind in known if wanted.matches(_place(kind.encode() + b"/"))]


def _place(member: bytes) -> Place:
    stage, source, reason, dead_id = member.decode().split("/", 3)
    return Place(dead_id, Stage(stage), source, reason)


async def find(redis: Redis, dead_ids: Sequence[str]) -> list[Place]:
    """Return where the letters of *dead_ids* stand; those that do not exist are left out."""
    async with redis.pipeline(transaction=False) as pipe:
        for dead_id in dead_ids:
            pipe.hmget(keys.letter(dead_id), "stage", "source", "reason")
        rows = await pipe.execute()
    return [
        Place(dead_id, Stage(stage.decode()), source.decode(), reason.decode())
        for dead_id, (stage, source, reason) in zip(dead_ids, rows, strict=True)
        if stage
    ]


async def fetch(redis: Redis, dead_id: str) -> DeadLetter | None:
    """Return one letter, or None."""
    return next(iter(await fetch_all(redis, [dead_id])), None)


async def fetch_all(redis: Redis, dead_ids: Sequence[str]) -> list[DeadLetter]:
    """Return the letters of *dead_ids* that exist, in one round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        for dead_id in dead_ids:
            pipe.hgetall(keys.letter(dead_id))
        rows = await pipe.execute()
    return [_letter(dead_id, row) for dead_id, row in zip(dead_ids, rows, strict=True) if row]


async def originals(redis: Redis, dead_ids: Sequence[str]) -> dict[str, bytes]:
    """Return what is stored of each letter: a delivery with its headers, or an event."""
    async with redis.pipeline(transaction=False) as pipe:
        for dead_id in dead_ids:
            pipe.hget(keys.letter(dead_id), "payload")
        rows = await pipe.execute()
    return {dead_id: row for dead_id, row in zip(dead_ids, rows, strict=True) if row is not None}


async def heads(redis: Redis, dead_ids: Sequence[str]) -> list[Head]:
    """Return what stands on the letters of *dead_ids* that exist, in one round trip and without their payloads."""
    async with redis.pipeline(transaction=False) as pipe:
        for dead_id in dead_ids:
            pipe.hmget(keys.letter(dead_id), *_HEAD)
        rows = await pipe.execute()
    stored = [dict(zip(_HEAD_BYTES, row, strict=True)) for row in rows]
    return [
        _head(dead_id, row) for dead_id, row in zip(dead_ids, stored, strict=True) if row[b"stage"]
    ]


_HEAD = ("stage", "source", "reason", "error", "attempts", "count", "buried_at", "first_seen_at")
_HEAD_BYTES = tuple(name.encode() for name in _HEAD)


def _head(dead_id: str, stored: Mapping[bytes, bytes]) -> Head:
    return Head(
        id=dead_id,
        stage=Stage(stored[b"stage"].decode()),
        source=stored[b"source"].decode(),
        reason=stored[b"reason"].decode(),
        error=stored[b"error"].decode(errors="replace"),
        attempts=int(stored[b"attempts"]),
        count=int(stored[b"count"]),
        buried_at_ms=int(stored[b"buried_at"]),
        first_seen_at_ms=int(stored[b"first_seen_at"]),
    )


def _letter(dead_id: str, stored: Mapping[bytes, bytes]) -> DeadLetter:
    head, payload = _head(dead_id, stored), stored[b"payload"]
    if head.stage is Stage.UNPACK:
        payload = Delivery.unpack(payload).body
    facts = {name: getattr(head, name) for name in Head.__slots__}
    return DeadLetter(**facts, payload=payload)


async def newest(redis: Redis, wanted: Filter, limit: int = 100) -> list[DeadLetter]:
    """Return up to *limit* letters, newest first."""
    letters: list[DeadLetter] = []
    if limit <= 0:
        return letters
    async for page in _places(redis, wanted, limit):
        for start in range(0, len(page), FETCH):
            some = page[start : start + min(FETCH, limit - len(letters))]
            letters += await fetch_all(redis, [place.id for place in some])
            if len(letters) >= limit:
                return letters
    return letters


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a look at the index goes on: at the letters buried at *at_ms*, after the first *passed* of them."""

    at_ms: int
    passed: int = 0


async def look(
    redis: Redis, wanted: Filter, begin: Cursor | None, most: int, farthest: int = FARTHEST
) -> tuple[list[Head], Cursor | None]:
    """Return up to *most* letters, newest first, and where to look on; None where there are no more.

    Where the kinds' indexes cannot be read, no more than some *farthest* letters of that of all are looked through, so
    it may return fewer, or none, and go on.
    """
    kinds = await _kinds_of(redis, wanted)
    stretch = await _stretch(redis, wanted)
    cursor = begin or Cursor(int(stretch.last))
    stretch, passed, looked = replace(stretch, last=cursor.at_ms), cursor.passed, 0
    found: list[str] = []
    if kinds is None and farthest <= 0:
        return [], cursor
    size = _page_size(wanted, kinds, passed + most + 1)
    async for rows in dead_walk.pages(redis, kinds, stretch, size):
        for at_ms, member in rows:
            if passed and at_ms == stretch.last:  # met by the look before
                passed -= 1
                continue
            if len(found) == most:
                return await heads(redis, found), cursor
            cursor, looked = _beyond(cursor, at_ms), looked + 1
            place = _place(member)
            if wanted.matches(place):
                found.append(place.id)
        if kinds is None and looked >= farthest:
            return await heads(redis, found), cursor
    return await heads(redis, found), None


def _beyond(cursor: Cursor, at_ms: float) -> Cursor:
    """Return the place behind a letter that was buried at *at_ms*, the next one from *cursor* on."""
    return Cursor(int(at_ms), cursor.passed + 1 if at_ms == cursor.at_ms else 1)


async def counts(redis: Redis, wanted: Filter) -> dict[Stage, dict[str, int]]:
    """Count the letters that *wanted* means, per stage and reason; touches nothing."""
    counted: Counter[tuple[Stage, str]] = Counter()
    if known := await dead_index.read(redis):
        places_of = [_place(kind.encode() + b"/") for kind in known]
        meant = [place for place in places_of if wanted.matches(place)]
        first = "-inf" if wanted.since_ms is None else wanted.since_ms
        last = "+inf" if wanted.until_ms is None else wanted.until_ms
        async with redis.pipeline(transaction=False) as pipe:
            for place in meant:
                pipe.zcount(keys.dead_of(place.kind), first, last)
            answers = await pipe.execute()
        for place, answer in zip(meant, answers, strict=True):
            counted[place.stage, place.reason] += int(answer)
        return by_stage(+counted)
    async for page in places(redis, wanted):
        counted.update((place.stage, place.reason) for place in page)
    return by_stage(counted)


@dataclass(frozen=True, slots=True)
class Kind:
    """How many letters of a stage and source are dead for one reason."""

    stage: Stage
    source: str
    reason: str
    count: int


async def kinds(redis: Redis) -> list[Kind]:
    """Return how many letters there are of each kind, most first; kept beside the index, so nothing is walked."""
    found = []
    for kind, count in (await redis.hgetall(keys.DEAD_KINDS)).items():
        stage, source, reason = kind.decode().split("/", 2)
        found.append(Kind(Stage(stage), source, reason, int(count)))
    return sorted(found, key=lambda kind: (-kind.count, kind.stage, kind.source, kind.reason))


def by_stage(counted: Mapping[tuple[Stage, str], int]) -> dict[Stage, dict[str, int]]:
    """Return counts per stage and reason as one table, in the order of the flow."""
    table: dict[Stage, dict[str, int]] = {}
    for stage in Stage:
        row = {reason: n for (of, reason), n in sorted(counted.items()) if of is stage}
        if row:
            table[stage] = row
    return table


async def retry(redis: Redis, dead_id: str) -> Stage | None:
    """Put one letter back to work, past the seen mark; return its stage, or None when it is gone."""
    return next(iter(await retry_all(redis, [dead_id])), None)


async def retry_all(redis: Redis, dead_ids: Sequence[str]) -> Counter[Stage]:
    """Put letters back to work, past the seen mark; return how many of each stage there were.

    Each letter moves in a step of its own; a letter that somebody else retried or dropped is left out.
    """
    put_back = script(redis, "retry")
    async with redis.pipeline(transaction=False) as pipe:
        for dead_id in dead_ids:
            await put_back(args=[dead_id], client=pipe)
        answers = await pipe.execute()
    return Counter(Stage(answer[1].decode()) for answer in answers if answer[0])


async def drop(redis: Redis, dead_ids: Sequence[str]) -> int:
    """Drop letters for good; return how many there were. They stay in the books as `dropped`."""
    dropped = 0
    for start in range(0, len(dead_ids), PAGE):  # more in one script would block Redis for long
        some = dead_ids[start : start + PAGE]
        dropped += int(await script(redis, "drop")(args=[len(some), *some]))
    return dropped


async def drop_old(redis: Redis, keep_ms: int, most: int = 1_000) -> int:
    """Drop up to *most* letters that were buried longer ago than *keep_ms*; for the sweep."""
    until = await redis_now_ms(redis) - keep_ms
    members = await redis.zrangebyscore(keys.DEAD, "-inf", until, start=0, num=most)
    return (
        await drop(redis, [member.decode().rsplit("/", 1)[1] for member in members])
        if members
        else 0
    )

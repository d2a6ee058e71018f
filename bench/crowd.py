"""A crowd in Redis: as many dead letters and visitors as are asked for, as a relay of some age holds them.

Letters are buried by the product's own move, hundreds at a time, and visitors are saved by it, under a document that
the product itself has made: one sighting goes the whole way through a worker, and the others are that visitor with
another id, hash and address. That what stands in Redis is the same is checked key by key (`check_visitor`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from bench import backlog, processes
from bench.large import large_body
from bench.processes import Place
from bench.results import WrongCount, expect
from pipeline import books, history, keys
from pipeline.addresses import digest
from pipeline.clock import DAY_MS, HOUR_MS, redis_now_ms
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from pipeline.moves import Move, Mover
from pipeline.origins import Origin
from pipeline.outcomes import Reason, Stage
from pipeline.queues import Queues, create_groups
from pipeline.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: effects of one move, as many as a slice of a large delivery has
A_MOVE = 500
KEEP_MS = int(Settings.model_fields["visitor_keep_d"].default * DAY_MS)
#: a kind with few letters, which are the oldest of all
RARE = (Stage.SCORES, "scores", Reason.INVALID)
RARE_LETTERS = 7
COMMON = (
    (Stage.FORWARD, "sendgrid", Reason.REFUSED),
    (Stage.FORWARD, "sendgrid", Reason.REFUSED),
    (Stage.FORWARD, "mailgun", Reason.REFUSED),
    (Stage.FORWARD, "events", Reason.INVALID),
    (Stage.ENRICH, "pixel", Reason.INVALID),
)
_WORDS = "event 0: occurred_at_utc is older than this account keeps events"


async def fill(at: Place, redis: Redis, letters: int, visitors: int) -> None:
    """Fill an empty Redis; raises `WrongCount` unless all of it is there and the books balance."""
    await create_groups(redis)
    await note_a_week(redis)
    document = await a_visitor(at, redis)
    filler = Filler(redis)
    await filler.letters(letters)
    await filler.visitors(document, visitors)
    await check_visitor(redis, min(2, visitors))
    expect("letters", await redis.zcard(keys.DEAD), letters)
    expect("visitors", await redis.zcard(keys.VISITORS), visitors + 1)
    expect("balanced", (await books.snapshot(redis))["balanced"], True)


async def note_a_week(redis: Redis) -> None:
    """Fill the history as a worker does, each minute of a week."""
    await history.note(redis)
    ((last, fields),) = await redis.xrevrange(keys.HISTORY, count=1)
    await redis.delete(keys.HISTORY)
    minutes = history.MOST_ENTRIES
    for start in range(minutes, 0, -A_MOVE):
        async with redis.pipeline(transaction=False) as pipe:
            for ago in range(start, max(0, start - A_MOVE), -1):
                at_ms = int(last.split(b"-")[0]) - ago * history.MINUTE_MS
                grown = dict.fromkeys(fields, (minutes - ago) * 50)
                pipe.xadd(keys.HISTORY, grown, id=f"{at_ms}-0")
            await pipe.execute()


# one visitor, made by a worker --------------------------------------------------------------------------


def _names(number: int) -> tuple[str, str, str]:
    """Return the id, the hash and the address of the visitor *number*, whose lengths never change."""
    return f"person-{number:09}", digest(f"p{number:09}@example.com"), f"p{number:09}@example.com"


async def a_visitor(at: Place, redis: Redis) -> bytes:
    """Let a worker make visitor 0 of a pixel's sighting; return the document."""
    name, own, address = _names(0)
    (row,) = orjson.loads(large_body(1, 0))["events"]
    row["hem_sha256"] = own
    row["resolution"] |= {
        "UUID": name,
        "PERSONAL_EMAILS": address,
        "PERSONAL_VERIFIED_EMAILS": address,
        "SHA256_PERSONAL_EMAIL": own,
    }
    body = orjson.dumps({"events": [row]})
    await Inbox(redis).put([Delivery(new_delivery_id(), "pixel", body, int(time.time() * 1000))])
    with processes.python(at, "worker", ["arq", "workers.main.WorkerSettings"]) as worker:
        while not (document := await redis.hget(keys.visitor(name), "document")):
            worker.check()
            await asyncio.sleep(0.05)
    return bytes(document)


async def check_visitor(redis: Redis, number: int) -> None:
    """Raise `WrongCount` unless the visitor *number* stands in Redis as the one that a worker made."""
    made, ours = await _kept(redis, 0), await _kept(redis, number)
    for name, as_ours in zip(_names(0), _names(number), strict=True):
        made = made.replace(name.encode(), as_ours.encode())
    if made != ours:
        raise WrongCount(f"a visitor is not as the product makes it:\n{made!r}\n{ours!r}")


async def _kept(redis: Redis, number: int) -> bytes:
    """Return all that is kept of a visitor, but for how far the subscription of the address has come."""
    name, own, _ = _names(number)
    visitor = await redis.hgetall(keys.visitor(name))
    address = await redis.hgetall(keys.address(own))
    kept: list[object] = [
        sorted(visitor.items()),
        {each: "" if each == b"subscription" else value for each, value in sorted(address.items())},
        await redis.get(keys.enrichment(digest(name))),
        await redis.zscore(keys.VISITORS, name) is not None,
    ]
    for key in (keys.visitor(name), keys.address(own), keys.enrichment(digest(name))):
        kept.append(await redis.object("encoding", key))
        kept.append(round(await redis.ttl(key) / 86_400))
    return repr(kept).encode()


# many, by the product's own moves -----------------------------------------------------------------------


class Filler:
    """Writes letters and visitors, a few hundred in a step."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._inbox = Inbox(redis)
        self._queues = Queues(redis, "filler")
        self._mover = Mover(redis, "filler", HOUR_MS)

    async def letters(self, count: int) -> None:
        """Bury *count* letters, the rare ones first."""
        rare = min(RARE_LETTERS, count)
        await self._bury(RARE, range(rare))
        for turn, first in enumerate(range(rare, count, A_MOVE)):
            await self._bury(COMMON[turn % len(COMMON)], range(first, min(first + A_MOVE, count)))

    async def _bury(self, kind: tuple[Stage, str, Reason], numbers: Sequence[int]) -> None:
        stage, source, reason = kind
        move = await self._begin(source)
        origin = Origin(source, int(time.time() * 1000))
        for number in numbers:
            payload = orjson.dumps(backlog.event(number))
            move.bury(stage, reason, _WORDS, payload, origin, attempts=1)
        move.count(stage, "in", len(numbers))
        move.count(stage, "dead", len(numbers))
        await self._mover.apply([move])

    async def visitors(self, document: bytes, count: int) -> None:
        """Save *count* visitors of *document*, each with a name of their own."""
        names = [name.encode() for name in _names(0)]
        for first in range(1, count + 1, A_MOVE):
            numbers = range(first, min(first + A_MOVE, count + 1))
            move, now = await self._begin("pixel"), await redis_now_ms(self._redis)
            for number in numbers:
                whole = document
                for name, own in zip(names, _names(number), strict=True):
                    whole = whole.replace(name, own.encode())
                self._save(move, number, whole, now)
            move.count(Stage.ENRICH, "in", len(numbers))
            move.count(Stage.ENRICH, "done", len(numbers))
            await self._mover.apply([move])

    def _save(self, move: Move, number: int, document: bytes, now: int) -> None:
        name, own, _ = _names(number)
        move.save_visitor(name, "1", document, now, KEEP_MS)
        move.alias(own, name, KEEP_MS)
        move.subscription(own, "subscribed", KEEP_MS)

    async def _begin(self, source: str) -> Move:
        """Return the move of a delivery that was stored and taken, with the note that it leaves."""
        delivery = Delivery(new_delivery_id(), source, b"{}", int(time.time() * 1000))
        await self._inbox.put([delivery])
        taken = await self._queues.take(Stage.UNPACK, Stage.UNPACK, most=1)
        move = Move(taken.entries[0].queue, [taken.entries[0].id])
        move.settle(Stage.UNPACK, "done")
        at_ms = delivery.received_at_ms
        move.delivered(source, "done", at_ms)
        move.arrived((delivery.id, source, 1, 2, at_ms, "hook", "done", 0, 0, A_MOVE, ""))
        return move

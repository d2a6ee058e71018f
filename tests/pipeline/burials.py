"""Dead letters for tests, buried the way the workers bury them: by a move, with their counters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from redis.asyncio import Redis

from pipeline import dead_letters, keys
from pipeline.dead_letters import Cursor, Filter
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from pipeline.moves import Move, Mover
from pipeline.origins import Origin
from pipeline.outcomes import Reason, Stage
from pipeline.queues import Queues, create_groups

WINDOW_MS = 3_600_000
FIRST_SEEN_MS = 1_767_258_000_000
_NUMBERS = count(1)


async def bury(
    redis: Redis,
    stage: Stage = Stage.FORWARD,
    payloads: Sequence[bytes] = (b'{"type":"Open"}',),
    *,
    source: str = "sendgrid",
    reason: Reason = Reason.REFUSED,
    error: str = "the vendor said no",
    digest: str | None = None,
) -> list[str]:
    """Bury *payloads* in one move, so in one millisecond; return the letters' ids in their order."""
    await create_groups(redis)
    await Inbox(redis).put([Delivery(new_delivery_id(), source, b"{}", FIRST_SEEN_MS)])
    entry = (await Queues(redis, "tests").take(Stage.UNPACK, Stage.UNPACK, most=1)).entries[0]
    move = Move(entry.queue, [entry.id])
    move.settle(Stage.UNPACK, "done")
    ids = []
    for payload in payloads:
        dead_id = f"{next(_NUMBERS):024x}"
        move.bury(
            stage, reason, error, payload, Origin(source, FIRST_SEEN_MS),
            attempts=1, dead_id=dead_id, digest=digest,
        )  # fmt: skip
        move.new_dead(stage)
        ids.append(dead_id)
    await Mover(redis, "tests", WINDOW_MS).apply([move])
    return ids


async def bury_delivery(redis: Redis, body: bytes, source: str = "pixel") -> str:
    """Keep a body that the receiver refused; return the letter's id."""
    delivery = Delivery(new_delivery_id(), source, body, FIRST_SEEN_MS)
    return await Inbox(redis).bury(delivery, Reason.MALFORMED, "not JSON")


async def bury_at(
    redis: Redis, at_ms: int, *dead_ids: str, kind: str = "forward/sendgrid/refused"
) -> None:
    """Have the letters of *dead_ids*, of one *kind*, buried at *at_ms*, as both indexes tell it."""
    for dead_id in dead_ids:
        await redis.zadd(keys.DEAD, {f"{kind}/{dead_id}": at_ms})
        await redis.zadd(keys.dead_of(kind), {dead_id: at_ms})


async def by_kind(redis: Redis) -> set[tuple[bytes, float]]:
    """Return all letters as the indexes of the kinds have them, in the form of that of all letters."""
    prefix = keys.dead_of("").encode()
    return {
        (key.removeprefix(prefix) + b"/" + member, at_ms)
        for key in await redis.keys(keys.dead_of("*"))
        for member, at_ms in await redis.zrange(key, 0, -1, withscores=True)
    }


async def look_through(redis: Redis, wanted: Filter, most: int) -> list[str]:
    """Return the ids that a look meets, page by page, none of them by walking the index of all letters."""
    met: list[str] = []
    cursor: Cursor | None = None
    while True:
        letters, cursor = await dead_letters.look(redis, wanted, cursor, most, farthest=0)
        met += [letter.id for letter in letters]
        if cursor is None:
            return met

"""Work for the tests of the core: deliveries and events that mean nothing, and the words to move them with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from pipeline import books, keys
from pipeline.clock import HOUR_MS, redis_now_ms
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from pipeline.moves import Argument, Move, Moved, Mover
from pipeline.origins import Origin
from pipeline.outcomes import Stage
from pipeline.queues import Entry, Queues, create_groups
from pipeline.scripts import script

ORIGIN = Origin("events", 1_700_000_000_000)
META = ORIGIN.pack()


def delivery(body: bytes = b"{}", delivery_id: str | None = None) -> Delivery:
    """Return one delivery."""
    return Delivery(delivery_id or new_delivery_id(), "events", body, 1_700_000_000_000)


async def put(redis: Redis, deliveries: int = 1) -> None:
    """Store one flush of *deliveries*."""
    await Inbox(redis).put([delivery() for _ in range(deliveries)])


async def take(
    redis: Redis, stage: Stage = Stage.UNPACK, most: int = 1, consumer: str = "one"
) -> list[Entry]:
    """Take up to *most* entries of the stage's own queue."""
    return (await Queues(redis, consumer).take(stage, stage, most=most)).entries


async def apply(redis: Redis, *moves: Move, consumer: str = "one") -> Moved:
    """Carry out *moves*."""
    return await Mover(redis, consumer, HOUR_MS).apply(moves)


async def add(redis: Redis, stage: Stage, payloads: Sequence[bytes]) -> None:
    """Give *stage* one piece of new work for each of *payloads*, as unpack would."""
    await put(redis)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    for payload in payloads:
        move.append(stage, payload, ORIGIN)
    move.settle(Stage.UNPACK, "done")
    await apply(redis, move)


async def use_up(redis: Redis, vendor: str, gap_ms: int = 1) -> None:
    """Leave no call to *vendor* for a quarter of an hour, where one is configured each *gap_ms*."""
    # at a pace that is slow enough for that
    await redis.hset(keys.PREFIX + "pace:" + vendor, mapping={"gap": gap_ms, "share": 1e-6})
    next_ms = await redis_now_ms(redis) + 900_000
    await redis.hset(keys.PREFIX + "rate:" + vendor, "next", next_ms)


def batch(payloads: Sequence[bytes], *more: Argument) -> list[Argument]:
    """Return the fields of a batch."""
    return [word for payload in payloads for word in ("p", payload, "m", META)] + list(more)


async def seal(redis: Redis, stage: Stage, payloads: Sequence[bytes], *more: Argument) -> None:
    """Let *payloads* wait in *stage* as one sealed batch."""
    await create_groups(redis)
    await add(redis, stage, payloads)
    entries = await take(redis, stage, most=len(payloads))
    move = Move(stage, [entry.id for entry in entries])
    move.pass_on(keys.batches(stage), batch([entry.payloads[0] for entry in entries], *more))
    await apply(redis, move)


async def image(redis: Redis) -> dict[bytes, bytes]:
    """Return everything the server holds."""
    return {name: await redis.dump(name) for name in await redis.keys("*")}


@asynccontextmanager
async def limited_to(redis: Redis, limit_bytes: int) -> AsyncIterator[None]:
    """Give the server a limit until the block ends."""
    before = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", limit_bytes)
    try:
        yield
    finally:
        await redis.config_set("maxmemory", before)


def full(redis: Redis) -> AbstractAsyncContextManager[None]:
    """Let the server be full until the block ends."""
    return limited_to(redis, 1)


async def numbers(redis: Redis, stage: Stage) -> dict[str, int]:
    """Return the counters of *stage* that are not zero."""
    counted: dict[str, int] = (await books.snapshot(redis))["stages"][stage]
    return {name: n for name, n in counted.items() if n}


async def check_books(redis: Redis) -> None:
    """Hold the counters against themselves and against the data."""
    snapshot = await books.snapshot(redis)
    assert snapshot["balanced"], snapshot["stages"]
    for stage, counted in (await books.recount(redis)).items():
        booked = snapshot["stages"][stage]
        assert {name: booked[name] for name in counted} == counted, stage


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim answered: a word, then how long to wait, or the batch."""

    word: str
    wait_ms: int = 0
    queue: str = ""
    id: str = ""
    payloads: Sequence[bytes] = ()
    attempts: str = ""
    successes: int = 0
    others: int = 0
    others_held: int = 0
    has_tombstones: bool = False
    claimed_ms: int = 0


async def claim(
    redis: Redis,
    stage: Stage = Stage.FORWARD,
    *,
    consumer: str = "one",
    gap_ms: float = 0,
    rank: int = 0,
    lease_ms: int = 60_000,
    rest_ms: int = 60_000,
    is_all_sealed: int = 0,
) -> Claimed:
    """Ask for a batch of *stage* to call the vendor with."""
    args: list[Argument] = [stage, consumer, "audiencepoint", gap_ms, rank, lease_ms]
    args += [rest_ms, is_all_sealed]
    answer: list[Any] = await script(redis, "claim")(args=args)
    word = answer[0].decode()
    if word != "batch":
        return Claimed(word, *answer[1:])
    _, queue, entry_id, fields, attempts, successes, others, held, tombstones, now_ms = answer
    payloads = [fields[i + 1] for i in range(0, len(fields), 2) if fields[i] == b"p"]
    return Claimed(
        word, 0, queue.decode(), entry_id.decode(), payloads, attempts.decode(), int(successes),
        int(others), int(held), bool(tombstones), int(now_ms),
    )  # fmt: skip


async def set_back(
    redis: Redis,
    claimed: Claimed | None = None,
    *,
    stage: Stage = Stage.FORWARD,
    consumer: str = "one",
    sent: int = 0,
    share: float = 1.0,
    base_ms: int = 0,
    cap_ms: int = 15_000,
    at_least_ms: int = 0,
    pauses_after: int = 5,
    probe_ms: int = 0,
    probe_max_ms: int = 60_000,
    reason: str = "down",
    at_once: int = 0,
    held: int = 0,
) -> tuple[int, bool]:
    """Note a failed call; return the wait in milliseconds, and whether the stage is paused."""
    place = (claimed.queue, claimed.id) if claimed else ("", "")
    delay, paused = await script(redis, "setback")(
        args=[
            *(stage, consumer, *place, sent, share, base_ms, cap_ms, at_least_ms),
            *(pauses_after, probe_ms, probe_max_ms, reason, at_once, held),
        ]
    )
    return int(delay), bool(paused)


async def succeed(redis: Redis, claimed: Claimed, stage: Stage = Stage.FORWARD) -> Moved:
    """Settle a batch that the vendor took."""
    move = Move(claimed.queue, [claimed.id])
    move.settle(stage, "done", len(claimed.payloads))
    move.succeeded(stage, begun_ms=claimed.claimed_ms)
    return await apply(redis, move)


async def refuse(
    redis: Redis, words: str, root: str, *, is_first: int = 1, stage: Stage = Stage.FORWARD
) -> tuple[int, int]:
    """Note a refused item; return the refusals in a row, and of how many batches they are."""
    refusals, batches = await script(redis, "refusal")(args=[stage, words, root, is_first])
    return int(refusals), int(batches)

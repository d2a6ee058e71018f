"""Unpack with people who are named by a number: who was told is known, in order, once, and nobody else waits for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import orjson
import pytest
from redis.asyncio import Redis

from pipeline import keys, recipients, senders
from pipeline.addresses import digest
from pipeline.moves import Move
from pipeline.outcomes import SetUp, Stage
from pipeline.tombstones import Tombstones
from tests.workbench import Workbench, mail_events
from workers import unpack
from workers.context import Context

pytestmark = pytest.mark.anyio

SENT = "TransactionalSendEvents.EmailSent"
OPEN = "EngagementEvents.EmailOpen"
CLICK = "EngagementEvents.EmailClick"
KEY = "2fd7a3f4-verification-key"


def event(name: str, subscriber: int, at_s: int = 0, **info: str) -> dict[str, object]:
    """Return one event of Marketing Cloud."""
    return {
        "eventCategoryType": name,
        "timestampUTC": (1_767_225_600 + at_s) * 1_000,
        "eid": 1,
        "composite": {"jobId": "7", "subscriberId": str(subscriber)},
        "info": info,
    }


def sent(subscriber: int, to: str | None = None) -> dict[str, object]:
    """Return the event that tells whose number it is."""
    return event(SENT, subscriber, to=to or f"person{subscriber}@example.com")


def set_up(key: str = KEY, callback: str = "65b885ab") -> bytes:
    """Return the first POST of a callback."""
    return orjson.dumps({"callbackId": callback, "verificationKey": key})


async def words(bench: Workbench) -> dict[str, int]:
    """Return what the events of Marketing Cloud came to."""
    sender = (await senders.read(bench.redis, ["sfmc"]))["sfmc"]
    return sender.taken | sender.ignored


def told(bench: Workbench) -> list[tuple[str, str]]:
    """Return type and address of what arrived, in the order of the alphabet."""
    return sorted((one["type"], one["email"]) for one in bench.box.memory.events)


async def test_a_send_and_its_open_in_one_body(bench: Workbench) -> None:
    """The order of the body counts: an open before the send that tells its address stays without one."""
    await bench.put("sfmc", orjson.dumps([event(OPEN, 1), sent(1), event(OPEN, 1, 60)]))
    await bench.work_until(bench.is_idle)

    assert told(bench) == [("Open", "person1@example.com"), ("Send", "person1@example.com")]
    (opened,) = (one for one in bench.box.memory.events if one["type"] == "Open")
    assert opened["occurred_at_utc"] == "2026-01-01T00:01:00"
    assert await words(bench) == {"Send": 1, "Open": 1, "no_address": 1}
    assert await bench.row(Stage.FORWARD) == {"in": 3, "done": 2, "ignored": 1}
    await bench.assert_balanced()


async def test_what_flushes_teach_is_one_question(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small flushes that wait together are learnt from at once, as many as make a slice."""
    asked: list[int] = []
    resolve = recipients.resolve

    async def counted(
        redis: Redis, tombstones: Tombstones, steps: Sequence[recipients.Step]
    ) -> list[str]:
        asked.append(len(steps))
        return await resolve(redis, tombstones, steps)

    monkeypatch.setattr(recipients, "resolve", counted)
    for number in range(1, 41):
        await bench.put("sfmc", orjson.dumps([sent(number), event(OPEN, number)]))
    await bench.work_until(bench.is_idle)

    assert asked == [80]
    assert len(told(bench)) == 80
    await bench.assert_balanced()


async def test_what_one_delivery_tells_the_next_one_knows(bench: Workbench) -> None:
    """In one flush, in flushes that wait together, and after another worker has begun; a stranger stays one."""
    await bench.put(
        "sfmc", orjson.dumps([sent(1)]), orjson.dumps([event(CLICK, 1), event(OPEN, 9)])
    )
    await bench.put("sfmc", orjson.dumps([sent(2)]))
    await bench.put("sfmc", orjson.dumps(event(OPEN, 2)))
    await bench.work_until(bench.is_idle)
    await bench.put("sfmc", orjson.dumps([event(OPEN, 1), event(OPEN, 2, 5)]))
    await bench.work_until(bench.is_idle)

    assert await words(bench) == {"Send": 2, "Click": 1, "Open": 3, "no_address": 1}
    assert told(bench)[0] == ("Click", "person1@example.com")
    await bench.assert_balanced()


async def test_an_address_that_was_put_in_leaves_as_every_other(
    make_bench: Callable[..., Workbench],
) -> None:
    """With hashes, an open and its send are of the same person and domain; repeated, both are duplicates."""
    hashing = make_bench()
    body = orjson.dumps([sent(1, "Person1@Example.com"), event(OPEN, 1)])
    await hashing.put("sfmc", body)
    await hashing.put("sfmc", body)
    await hashing.work_until(hashing.is_idle)

    assert told(hashing) == [(kind, digest("person1@example.com")) for kind in ("Open", "Send")]
    assert {one["domain"] for one in hashing.box.memory.events} == {"example.com"}
    assert await hashing.row(Stage.FORWARD) == {"in": 4, "done": 2, "duplicate": 2}
    await hashing.assert_balanced()


async def test_a_process_that_dies_in_between_loses_and_doubles_nothing(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learnt before the move failed is learnt again, slices go on where they stopped."""
    write, written = unpack.write, 0

    async def failing(context: Context, moves: list[Move]) -> None:
        nonlocal written
        written += 1
        if written in (1, 3):
            raise ConnectionError("Redis went away")
        await write(context, moves)

    monkeypatch.setattr(unpack, "write", failing)
    body = [one for n in range(1, 701) for one in (sent(n), event(OPEN, n, n))]
    await bench.put("sfmc", orjson.dumps(body))
    await bench.work_until(bench.is_idle)

    assert written > 3
    assert await bench.row(Stage.FORWARD) == {"in": 1_400, "done": 1_400}
    assert await words(bench) == {"Send": 700, "Open": 700}
    await bench.assert_balanced()


async def test_nobody_is_told_by_what_was_found_false(bench: Workbench) -> None:
    """An event that is wrong teaches nothing: it is buried, and its address with it."""
    wrong = sent(1) | {"timestampUTC": None}
    await bench.put("sfmc", orjson.dumps([wrong, event(OPEN, 1)]))
    await bench.work_until(bench.is_idle)

    assert await words(bench) == {"no_address": 1}
    assert await bench.row(Stage.FORWARD) == {"in": 2, "dead": 1, "ignored": 1}
    assert await bench.redis.keys(keys.recipient("*")) == []


async def test_the_forgotten_are_neither_told_nor_remembered(bench: Workbench) -> None:
    """With a tombstone the send is ignored on its way, and the open finds nobody."""
    await Tombstones(bench.redis).put([digest("person1@example.com")])
    await bench.put("sfmc", orjson.dumps([sent(1), event(OPEN, 1)]))
    await bench.work_until(bench.is_idle)

    assert bench.arrived == []
    assert await bench.row(Stage.FORWARD) == {"in": 2, "ignored": 2}
    assert await bench.redis.keys(keys.recipient("*")) == []


async def test_other_senders_ask_nothing(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who names people by numbers costs a round trip, and one for all deliveries of a flush."""
    calls: list[int] = []
    resolve = recipients.resolve

    async def counted(redis: object, tombstones: object, steps: Sequence[object]) -> list[str]:
        calls.append(len(steps))
        return await resolve(redis, tombstones, steps)  # type: ignore[arg-type]

    monkeypatch.setattr(recipients, "resolve", counted)
    bounce = event("TransactionalSendEvents.EmailBounced", 1, to="a@example.com")
    await bench.put("events", mail_events(3))
    await bench.put("sfmc", orjson.dumps([bounce]))
    await bench.put("sfmc", *(orjson.dumps([sent(n), event(OPEN, n)]) for n in (1, 2, 3)))
    await bench.work_until(bench.is_idle)

    assert calls == [6]
    assert len(bench.arrived) == 10


async def test_the_key_of_a_set_up_waits_for_the_operator(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    """It is kept for days, the log tells where it is shown and not what it is; the delivery is a probe."""
    with caplog.at_level(logging.INFO):
        (delivery_id,) = await bench.put("sfmc", set_up())
        await bench.work_until(bench.is_idle)

    known = (await senders.read(bench.redis, ["sfmc"]))["sfmc"].set_ups
    assert [(one["callback_id"], one["verification_key"]) for one in known] == [("65b885ab", KEY)]
    lines = [line for line in caplog.messages if "set-up" in line]
    assert len(lines) == 1
    assert delivery_id in lines[0]
    assert "`relay senders`" in lines[0]
    assert KEY not in caplog.text
    left = await bench.redis.pttl(keys.set_up("sfmc"))
    assert 0 <= senders.SET_UP_KEEP_MS - left < 60_000
    assert await bench.row(Stage.UNPACK) == {"in": 1, "ignored": 1}
    await bench.assert_balanced()


async def test_the_newest_set_up_holds(bench: Workbench) -> None:
    """Of two in one flush the later one stands first, and one that another worker comes to too late stands last."""
    await bench.put("sfmc", set_up("first"), set_up("second"))
    await bench.work_until(bench.is_idle)
    for received_at_ms in (5, 5):
        await senders.keep_set_up(bench.redis, "sfmc", received_at_ms, SetUp("old", "late"))
    known = (await senders.read(bench.redis, ["sfmc"]))["sfmc"].set_ups
    assert [one["verification_key"] for one in known] == ["second", "first", "late"]


@pytest.mark.parametrize("key", ["", "  ", "x" * 256, "a\x1b[31mb", "a\nb"])
async def test_what_is_no_key_is_not_kept(bench: Workbench, key: str) -> None:
    """A set-up whose key is missing, endless or not to be printed is a probe as any other."""
    await bench.put("sfmc", set_up(key))
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.UNPACK) == {"in": 1, "ignored": 1}
    assert await bench.redis.keys(keys.set_up("*")) == []

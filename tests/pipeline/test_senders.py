"""Senders: what a source's deliveries came to is written with the move that settles them, once."""

from __future__ import annotations

import time
from typing import get_args

import orjson
import pytest
from redis.asyncio import Redis

from pipeline import keys, senders
from pipeline.deliveries import Delivery
from pipeline.hook_tokens import SOURCES as WORDS
from pipeline.inbox import Inbox
from pipeline.moves import Move, Result
from pipeline.outcomes import (
    EventType,
    Ignored,
    Invalid,
    MailEvent,
    Outcome,
    Person,
    Reason,
    ScoreChange,
    SetUp,
    Stage,
    VisitorEvent,
)
from pipeline.settings import _SENDERS_SECRETS
from pipeline.sources.registry import SECRETS, SOURCES
from tests.flow.conftest import bench, box, make_bench
from tests.pipeline.work import apply, delivery, put, take
from tests.workbench import Workbench, mail_event, mail_events
from workers import handing_over

__all__ = ["bench", "box", "make_bench"]


async def fields(redis: Redis) -> dict[str, int]:
    """Return everything that is known of all senders."""
    return {name.decode(): int(n) for name, n in (await redis.hgetall(keys.SENDERS)).items()}


async def counted(redis: Redis, source: str) -> dict[str, int]:
    """Return the numbers of *source*, without the time."""
    known = await fields(redis)
    own = {name.removeprefix(source + ":"): n for name, n in known.items() if source in name}
    return {word: n for word, n in own.items() if word != "last"}


async def image(redis: Redis) -> dict[bytes, bytes]:
    """Return everything the server holds."""
    return {name: await redis.dump(name) for name in await redis.keys("*")}


def at(received_at_ms: int, body: bytes = b"<") -> Delivery:
    """Return a delivery of that time."""
    return Delivery(delivery().id, "events", body, received_at_ms)


@pytest.mark.anyio
async def test_a_move_tells_of_its_senders_once(redis: Redis) -> None:
    """Sums and the last time are written with the move; its second run changes nothing at all."""
    await put(redis, 2)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    move.tally("events", "taken:Open", 2)
    move.tally("events", "taken:Open")
    move.delivered("events", "done", 7_000)
    move.delivered("events", "dead", 5_000)
    move.settle(Stage.UNPACK, "done", 2)
    assert (await apply(redis, move)).results == [Result.DONE]
    expected = {"taken:Open": 3, "deliveries:done": 1, "deliveries:dead": 1}
    assert await counted(redis, "events") == expected
    assert (await fields(redis))["events:last"] == 7_000
    before = await image(redis)
    assert (await apply(redis, move)).results == [Result.GONE]
    assert await image(redis) == before


@pytest.mark.anyio
async def test_moves_of_one_call_are_summed(redis: Redis) -> None:
    """Several moves in one call add up; the one that does not happen tells nothing."""
    await put(redis)
    await put(redis)
    entries = await take(redis, most=2)
    moves = [Move(entry.queue, [entry.id]) for entry in (*entries, entries[0])]
    for n, move in enumerate(moves):
        move.tally("events", "invalid", 1)
        move.delivered("events", "done", 1_000 + n)
        move.settle(Stage.UNPACK, "done")
    assert (await apply(redis, *moves)).results == [Result.DONE, Result.DONE, Result.GONE]
    assert await fields(redis) == {
        "events:invalid": 2,
        "events:deliveries:done": 2,
        "events:last": 1_001,
    }


@pytest.mark.anyio
async def test_the_last_delivery_never_goes_back(redis: Redis) -> None:
    """An older delivery that is settled later, as after a retry, does not move the time."""
    for received_at_ms in (9_000, 10_000, 4_000):
        await put(redis)
        (entry,) = await take(redis)
        move = Move(entry.queue, [entry.id])
        move.delivered("events", "done", received_at_ms)
        move.settle(Stage.UNPACK, "done")
        await apply(redis, move)
    assert (await fields(redis))["events:last"] == 10_000


@pytest.mark.anyio
async def test_a_body_answered_400_is_a_dead_delivery(redis: Redis) -> None:
    """Once for each letter, as in the books; the same body again moves only the time, a second run nothing."""
    inbox, first = Inbox(redis), at(5_000)
    await inbox.bury(first, Reason.MALFORMED, "not JSON")
    assert await fields(redis) == {"events:deliveries:dead": 1, "events:last": 5_000}
    before = await image(redis)
    await inbox.bury(first, Reason.MALFORMED, "not JSON")
    assert await image(redis) == before
    await inbox.bury(at(8_000), Reason.MALFORMED, "not JSON")
    await inbox.bury(at(6_000, b">"), Reason.MALFORMED, "not JSON")
    assert await fields(redis) == {"events:deliveries:dead": 2, "events:last": 8_000}


@pytest.mark.anyio
async def test_unpack_tells_what_came_of_each_delivery(bench: Workbench) -> None:
    """Events by type, wrong ones, probes and unreadable deliveries are told for their own source."""
    wrong = mail_event(3, type="Nothing")
    clicks = [mail_event(n, type="Click") for n in range(2)]
    before_ms = int(time.time() * 1000)
    await bench.put("events", orjson.dumps([mail_event(0), *clicks, wrong]), b'{"what": "is this"}')
    await bench.put("pixel", b"{}")
    await bench.work_until(bench.is_idle)

    assert await counted(bench.redis, "events") == {
        **{"taken:Open": 1, "taken:Click": 2, "invalid": 1},
        **{"deliveries:done": 1, "deliveries:dead": 1},
    }
    assert await counted(bench.redis, "pixel") == {"deliveries:ignored": 1}
    assert (await fields(bench.redis))["events:last"] >= before_ms


@pytest.mark.anyio
async def test_a_large_delivery_is_told_once(bench: Workbench) -> None:
    """Each slice tells its own events, the last one that the delivery is done; a repeated one is taken, too."""
    many = handing_over.SLICE + 10
    await bench.put("events", mail_events(many))
    await bench.work_until(bench.is_idle)
    expected = {"taken:Open": many, "deliveries:done": 1}
    assert await counted(bench.redis, "events") == expected
    await bench.put("events", mail_events(1))
    await bench.work_until(bench.is_idle)
    assert await bench.count(Stage.FORWARD, "duplicate") == 1
    expected = {"taken:Open": many + 1, "deliveries:done": 2}
    assert await counted(bench.redis, "events") == expected


WORDS_OF: list[tuple[Outcome, str]] = [
    (MailEvent("a@example.com", EventType.SOFT_BOUNCE, "", "s"), "taken:SoftBounce"),
    (VisitorEvent(Person(), "f", event_type="anything: at all"), "taken:visitor"),
    (ScoreChange("a@example.com", {}), "taken:scores"),
    (Ignored(Stage.FORWARD, "suppressed"), "ignored:suppressed"),
    (Invalid(Stage.SCORES, "no", b"{}"), "invalid"),
]


def test_every_outcome_has_a_word_of_ours() -> None:
    """No text of a sender becomes a field, so the hash stays small."""
    assert {senders.word_of(outcome): word for outcome, word in WORDS_OF} == {
        word: word for _, word in WORDS_OF
    }
    assert {type(outcome) for outcome, _ in WORDS_OF} == set(get_args(Outcome))


@pytest.mark.anyio
async def test_reading_tells_every_source_in_its_order(redis: Redis) -> None:
    """A source that never delivered is there with zeros; what is not asked for, or unknown, is passed over."""
    told = {
        "b:last": 5,
        "b:taken:Open": 2,
        "b:ignored:test": 1,
        "b:invalid": 3,
        "b:deliveries:done": 4,
    }
    await redis.hset(keys.SENDERS, mapping={**told, "b:later-words:x": 9, "c:invalid": 1})
    known = await senders.read(redis, ["b", "a"])
    assert list(known) == ["b", "a"]
    assert known["a"] == senders.Sender()
    assert known["b"].view() == {
        "last_delivery_at": "1970-01-01T00:00:00.005Z",
        "deliveries": {"done": 4, "ignored": 0, "dead": 0},
        "events": {"taken": {"Open": 2}, "ignored": {"test": 1}, "invalid": 3},
        "set_up": None,
        "earlier_set_ups": [],
    }
    assert known["a"].view()["last_delivery_at"] is None


@pytest.mark.anyio
async def test_the_last_set_ups_are_kept_newest_first(redis: Redis) -> None:
    """Five of them, in the order of their coming whichever is read last; the same again only comes later."""
    for at_ms in (3_000, 1_000, 7_000, 2_000, 6_000, 4_000):
        for _ in range(2):
            await senders.keep_set_up(redis, "sfmc", at_ms, SetUp("c", f"key-{at_ms}"))
    for at_ms in (8_000, 3_500):
        await senders.keep_set_up(redis, "sfmc", at_ms, SetUp("c", "key-4000"))
    known = (await senders.read(redis, ["sfmc"]))["sfmc"].set_ups
    kept = ["key-4000", "key-7000", "key-6000", "key-3000", "key-2000"]
    assert [one["verification_key"] for one in known] == kept
    assert known[0]["received_at"] == "1970-01-01T00:00:08.000Z"


@pytest.mark.parametrize(
    ("wanted", "found", "check"),
    [
        ((), ("A",), "none"),
        (("A",), (), "off"),
        (("A",), ("A",), "on"),
        (("A", "B"), ("B",), "incomplete"),
        (("A", "B"), ("A", "B"), "on"),
    ],
)
def test_a_signature_is_checked_when_all_its_settings_are_set(
    wanted: tuple[str, ...], found: tuple[str, ...], check: str
) -> None:
    """Each setting is named with whether it is set, never with its value."""
    told = senders.signature_view(wanted, dict.fromkeys(found, "secret-value"))
    assert told == {"check": check, "settings": {name: name in found for name in wanted}}


def test_every_secret_belongs_to_one_source() -> None:
    """The table names each setting that proves a sender once, under a word that may stand in a hook's URL."""
    named = [name for names in SECRETS.values() for name in names]
    assert sorted(named) == sorted(name.upper() for name in _SENDERS_SECRETS)
    assert set(SECRETS) <= WORDS


def test_every_source_may_stand_before_a_token() -> None:
    """The words that HOOK_TOKENS takes are those of the sources, also of those that sign nothing."""
    assert set(SOURCES) == WORDS

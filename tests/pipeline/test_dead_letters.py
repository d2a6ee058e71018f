"""Dead letters: walking them, counting them, putting them back, letting them go."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some
from redis.asyncio import Redis

from pipeline import books, dead_letters, keys
from pipeline.clock import redis_now_ms
from pipeline.dead_letters import Filter, payload_view
from pipeline.outcomes import Reason, Stage
from tests.pipeline.burials import FIRST_SEEN_MS, bury, bury_delivery

pytestmark = pytest.mark.anyio


async def walk(redis: Redis, wanted: Filter, *, oldest_first: bool = False) -> list[str]:
    """Return the ids that a walk meets."""
    pages = dead_letters.places(redis, wanted, oldest_first=oldest_first)
    return [place.id async for page in pages for place in page]


async def balanced(redis: Redis) -> bool:
    """Tell whether the books balance and agree with the data."""
    snapshot = await books.snapshot(redis)
    counted = await books.recount(redis)
    return bool(snapshot["balanced"]) and all(
        snapshot["stages"][stage][name] == n
        for stage, row in counted.items()
        for name, n in row.items()
    )


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a page so small that few letters fill several."""
    monkeypatch.setattr(dead_letters, "PAGE", 3)
    monkeypatch.setattr(dead_letters, "FETCH", 2)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("oldest_first", [False, True])
async def test_a_walk_meets_every_letter_once(redis: Redis, oldest_first: bool) -> None:
    """Also when far more than a page were buried in one millisecond, each letter is met once."""
    ids = [
        *await bury(redis, payloads=[b"1"] * 10),
        *await bury(redis, payloads=[b"2"]),
        *await bury(redis, payloads=[b"3"] * 7),
    ]
    met = await walk(redis, Filter(), oldest_first=oldest_first)
    assert len(met) == len(ids)
    assert set(met) == set(ids)


@pytest.mark.usefixtures("small_pages")
async def test_a_walk_goes_by_the_time_of_burial(redis: Redis) -> None:
    """Newest first, or oldest first when asked."""
    ids = [(await bury(redis))[0] for _ in range(5)]
    for at_ms, dead_id in enumerate(ids, start=1):
        await redis.zadd(keys.DEAD, {f"forward/sendgrid/refused/{dead_id}": at_ms})
    assert await walk(redis, Filter()) == ids[::-1]
    assert await walk(redis, Filter(), oldest_first=True) == ids


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("oldest_first", [False, True])
async def test_letters_may_be_taken_away_during_the_walk(redis: Redis, oldest_first: bool) -> None:
    """Dropping each page as it comes skips nobody."""
    await bury(redis, payloads=[b"1"] * 10)
    await bury(redis, payloads=[b"2"] * 8)
    met = 0
    async for page in dead_letters.places(redis, Filter(), oldest_first=oldest_first):
        met += await dead_letters.drop(redis, [place.id for place in page])
    assert met == 18
    assert await redis.zcard(keys.DEAD) == 0
    assert await balanced(redis)


@pytest.mark.usefixtures("small_pages")
async def test_letters_buried_during_the_walk_are_not_met(redis: Redis) -> None:
    """A walk ends although each of its letters dies again."""
    await bury(redis, payloads=[b"1"] * 5)
    until_ms = await redis_now_ms(redis)
    await redis.zadd(keys.DEAD, {"forward/sendgrid/refused/later": until_ms + 1})
    assert "later" not in await walk(redis, Filter(until_ms=until_ms))


async def test_filters_choose(redis: Redis) -> None:
    """Every set word must match, and both bounds are about the time of burial."""
    refused = await bury(redis)
    invalid = await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    await redis.zadd(keys.DEAD, {f"forward/sendgrid/refused/{refused[0]}": 5_000})
    assert await walk(redis, Filter(stage=Stage.SCORES)) == invalid
    assert await walk(redis, Filter(source="sendgrid")) == refused
    assert await walk(redis, Filter(reason=Reason.INVALID)) == invalid
    assert await walk(redis, Filter(stage=Stage.SCORES, source="sendgrid")) == []
    assert await walk(redis, Filter(since_ms=5_001)) == invalid
    assert await walk(redis, Filter(since_ms=5_000, until_ms=5_000)) == refused


@pytest.mark.usefixtures("small_pages")
async def test_the_newest_come_first_up_to_a_limit(redis: Redis) -> None:
    """The limit counts letters, over all pages."""
    ids = await bury(redis, payloads=[b"1"] * 9)
    assert len(await dead_letters.newest(redis, Filter(), limit=4)) == 4
    assert len(await dead_letters.newest(redis, Filter())) == len(ids)
    assert await dead_letters.newest(redis, Filter(), limit=0) == []


async def test_counts_touch_nothing(redis: Redis) -> None:
    """Letters are counted per stage and reason."""
    await bury(redis, payloads=[b"1"] * 3)
    await bury(redis, reason=Reason.BUG)
    await bury(redis, Stage.SCORES, reason=Reason.INVALID)
    assert await dead_letters.counts(redis, Filter()) == {
        Stage.FORWARD: {"refused": 3, "bug": 1},
        Stage.SCORES: {"invalid": 1},
    }
    assert await redis.zcard(keys.DEAD) == 5


async def test_a_letter_is_shown_whole(redis: Redis) -> None:
    """A view has the contract's ten fields, and a delivery's payload is its body."""
    dead_id = await bury_delivery(redis, b"not json \xff")
    letter = await dead_letters.fetch(redis, dead_id)
    assert letter is not None
    view = letter.view()
    assert view["payload"] == {"encoding": "base64", "data": "bm90IGpzb24g/w=="}
    assert view["first_seen_at"] == "2026-01-01T09:00:00.000Z"
    assert list(view) == [
        *("id", "stage", "source", "reason", "error", "attempts", "count"),
        *("buried_at", "first_seen_at", "payload"),
    ]
    assert await dead_letters.fetch(redis, "nobody") is None


async def test_a_retried_letter_waits_again(redis: Redis) -> None:
    """It is in its stage's queue as it was, is no dead letter any more, and the books know."""
    first, second = await bury(redis, payloads=[b"1", b"2"])
    assert await dead_letters.retry(redis, first) is Stage.FORWARD
    assert await dead_letters.retry(redis, first) is None
    assert await walk(redis, Filter()) == [second]
    rows = await redis.xrange(keys.queue(keys.retried(Stage.FORWARD)))
    assert rows[0][1] == {b"p": b"1", b"m": f"sendgrid|{FIRST_SEEN_MS}|o|".encode()}
    assert await balanced(redis)


async def test_a_retried_delivery_is_unpacked_again(redis: Redis) -> None:
    """A delivery goes back whole into the inbox."""
    dead_id = await bury_delivery(redis, b"[")
    assert await dead_letters.retry_all(redis, [dead_id, "nobody"]) == {Stage.UNPACK: 1}
    rows = await redis.xrange(keys.queue(Stage.UNPACK))
    assert rows[0][1][b"p"].endswith(b"\n[")
    assert await balanced(redis)


async def test_a_dropped_address_may_be_tried_again(redis: Redis) -> None:
    """Dropping a subscription's letter forgets that the address was refused; retrying lets it wait."""
    address = keys.address("ab" * 32)
    first = await bury(redis, Stage.SUBSCRIBE, digest="ab" * 32)
    await redis.hset(address, "subscription", "dead")
    await dead_letters.drop(redis, first)
    assert await redis.hget(address, "subscription") is None
    second = await bury(redis, Stage.SUBSCRIBE, digest="ab" * 32)
    await dead_letters.retry(redis, second[0])
    assert await redis.hget(address, "subscription") == b"waiting"
    assert await balanced(redis)


async def test_old_letters_become_dropped(redis: Redis) -> None:
    """The sweep drops by age, a bounded number at a time."""
    ids = await bury(redis, payloads=[b"1"] * 4)
    for dead_id in ids[:3]:
        await redis.zadd(keys.DEAD, {f"forward/sendgrid/refused/{dead_id}": 1})
    assert await dead_letters.drop_old(redis, 3_600_000, most=2) == 2
    assert await dead_letters.drop_old(redis, 3_600_000, most=2) == 1
    assert await dead_letters.drop_old(redis, 3_600_000) == 0
    assert await walk(redis, Filter()) == ids[3:]
    assert await balanced(redis)


@pytest.mark.parametrize(
    ("payload", "encoding"),
    [
        (b'{"a": 1}', "json"),
        (b'{"id": "12345678901234567890123"}', "json"),
        (b'{"id": 12345678901234567890123}', "utf-8"),
        (b"[" * 500 + b"]" * 500, "utf-8"),
        (b'"\\ud800"', "utf-8"),
        (b"ada@example.com", "utf-8"),
        (b"", "utf-8"),
        (b"\xff\xfe", "base64"),
    ],
)
def test_a_payload_is_shown_as_what_it_is(payload: bytes, encoding: str) -> None:
    """JSON only when nothing of it is lost and it can be printed again; else text, else base64."""
    view = payload_view(payload)
    assert view["encoding"] == encoding
    orjson.dumps(view)


@given(some.binary(max_size=200))
def test_every_payload_can_be_printed(payload: bytes) -> None:
    """No bytes that a sender may post break the list."""
    orjson.dumps(payload_view(payload))

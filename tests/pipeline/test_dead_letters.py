"""Dead letters: walking them, counting them, putting them back, letting them go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some
from redis.asyncio import Redis

from pipeline import books, dead_index, dead_letters, keys
from pipeline.clock import redis_now_ms
from pipeline.dead_letters import Cursor, Filter, payload_view
from pipeline.outcomes import Reason, Stage
from tests.pipeline.burials import (
    FIRST_SEEN_MS,
    bury,
    bury_at,
    bury_delivery,
    by_kind,
    look_through,
)

pytestmark = pytest.mark.anyio


async def walk(redis: Redis, wanted: Filter, *, oldest_first: bool = False) -> list[str]:
    """Return the ids that a walk meets."""
    pages = dead_letters.places(redis, wanted, oldest_first=oldest_first)
    return [place.id async for page in pages for place in page]


async def balanced(redis: Redis) -> bool:
    """Tell whether the books balance and agree with the data, and each kind's index with that of all letters."""
    snapshot = await books.snapshot(redis)
    counted = await books.recount(redis)
    return (
        bool(snapshot["balanced"])
        and all(
            snapshot["stages"][stage][name] == n
            for stage, row in counted.items()
            for name, n in row.items()
        )
        and await by_kind(redis) == set(await redis.zrange(keys.DEAD, 0, -1, withscores=True))
        and await dead_index.read(redis)
        == {each.decode(): int(n) for each, n in (await redis.hgetall(keys.DEAD_KINDS)).items()}
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
        await bury_at(redis, at_ms, dead_id)
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
    await bury_at(redis, 5_000, refused[0])
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
        await bury_at(redis, 1, dead_id)
    assert await dead_letters.drop_old(redis, 3_600_000, most=2) == 2
    assert await dead_letters.drop_old(redis, 3_600_000, most=2) == 1
    assert await dead_letters.drop_old(redis, 3_600_000) == 0
    assert await walk(redis, Filter()) == ids[3:]
    assert await balanced(redis)


# by kind --------------------------------------------------------------------------------------------------


async def test_few_letters_of_a_kind_are_found_without_a_walk(redis: Redis) -> None:
    """However many others were buried since, and whichever word of the kind is known."""
    rare = await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    await bury(redis, payloads=[b"1"] * 30)
    for wanted in (
        Filter(stage=Stage.SCORES),
        Filter(source="scores"),
        Filter(stage=Stage.SCORES, source="scores", reason=Reason.INVALID),
    ):
        assert await look_through(redis, wanted, 50) == rare
    assert await look_through(redis, Filter(stage=Stage.NOTIFY), 50) == []
    letters, cursor = await dead_letters.look(redis, Filter(), None, 50, farthest=0)
    assert (letters, cursor is None) == (
        [],
        False,
    )  # what is asked for nothing in particular is walked


@pytest.mark.parametrize("most", [1, 2, 3, 50])
async def test_kinds_are_met_in_one_order(redis: Redis, most: int) -> None:
    """A look at some kinds meets their letters newest first, as the index of all does, whatever shares a moment."""
    moments = [5_000, 9_000, 7_000, 9_000, 9_000, 7_000]
    for number, at_ms in enumerate(moments):
        source = ("sendgrid", "mailgun", "brevo")[number % 3]
        ids = await bury(redis, payloads=[b"1"] * 2, source=source)
        await bury_at(redis, at_ms, *ids, kind=f"forward/{source}/refused")
    await bury(redis, reason=Reason.BUG)
    wanted = Filter(reason=Reason.REFUSED)
    met = await look_through(redis, wanted, most)
    assert met == await walk(redis, wanted)
    assert len(met) == 12
    assert (
        await look_through(redis, replace(wanted, since_ms=7_000, until_ms=8_000), most)
        == met[6:10]
    )


async def test_few_letters_of_many_kinds_cost_few_rows(redis: Redis) -> None:
    """Whatever a page or a list is asked for, it reads about as many rows as it shows, of however many kinds."""
    for number in range(20):
        await bury(redis, source=f"s{number}", payloads=[b"1"] * 100)
        await bury(redis, source=f"s{number}", payloads=[b"1"] * 100, reason=Reason.BUG)
    since_ms = await redis_now_ms(redis) - 3_600_000
    for indexes, wanted in (
        (1, Filter()),
        (40, Filter(stage=Stage.FORWARD)),
        (2, Filter(source="s3")),
        (20, Filter(reason=Reason.BUG)),
        (2, Filter(stage=Stage.FORWARD, source="s3")),
        (1, Filter(stage=Stage.FORWARD, source="s3", reason=Reason.BUG)),
    ):
        for bounded in (wanted, replace(wanted, since_ms=since_ms, until_ms=since_ms + 7_200_000)):
            for read in (look_once, list_once):
                rows = await rows_asked_for(redis, partial(read, redis, bounded))
                # of each index twenty, and on in those where the newest are
                assert 50 <= rows <= 20 * indexes + 250, (read, bounded)


async def look_once(redis: Redis, wanted: Filter) -> None:
    """Read a page of fifty letters."""
    letters, cursor = await dead_letters.look(redis, wanted, None, 50)
    assert (len(letters), cursor is None) == (50, False)


async def list_once(redis: Redis, wanted: Filter) -> None:
    """Read the newest fifty letters."""
    assert len(await dead_letters.newest(redis, wanted, limit=50)) == 50


async def rows_asked_for(redis: Redis, work: Callable[[], Awaitable[None]]) -> int:
    """Return how many rows of indexes were asked for while *work* went on."""
    rows = 0
    async with redis.monitor() as monitor:
        await work()
        await redis.echo("the end")
        while not (words := (await monitor.next_command())["command"]).startswith("ECHO"):
            if words.startswith("ZREVRANGEBYSCORE"):
                rows += int(words.split("LIMIT 0 ")[1].split()[0])
    return rows


async def test_one_look_at_the_index_of_all_has_an_end(redis: Redis) -> None:
    """While the kinds' indexes are not believed, a look goes through so many letters and says that more lie behind."""
    rare = await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    for _ in range(4):
        await bury(redis, payloads=[b"1"] * dead_letters.PAGE)
    await redis.delete(keys.DEAD_KINDS)
    wanted, met, looks = Filter(stage=Stage.SCORES), list[str](), 0
    cursor: Cursor | None = None
    while looks == 0 or cursor is not None:
        letters, cursor = await dead_letters.look(redis, wanted, cursor, 50, farthest=2_000)
        met, looks = met + [letter.id for letter in letters], looks + 1
    assert (met, looks) == (rare, 3)
    _, cursor = await dead_letters.look(redis, wanted, None, 50)
    assert cursor is None  # less than the farthest


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("oldest_first", [False, True])
async def test_a_walk_over_some_kinds_goes_by_the_time_of_burial(
    redis: Redis, oldest_first: bool
) -> None:
    """Both ways, whatever shares a moment, also while each page is dropped; others are not met."""
    buried = []
    for number in range(60):
        source = ("sendgrid", "mailgun", "brevo")[number % 3 if number < 30 else 0]
        ids = await bury(redis, payloads=[b"1"] * 2, source=source)
        await bury_at(redis, number // 4, *ids, kind=f"forward/{source}/refused")
        buried += [(number // 4, f"{source}/{dead_id}") for dead_id in ids]
    await bury(redis, reason=Reason.BUG)
    met = []
    refused = Filter(reason=Reason.REFUSED)
    async for page in dead_letters.places(redis, refused, oldest_first=oldest_first):
        met += [f"{place.source}/{place.id}" for place in page]
        await dead_letters.drop(redis, [place.id for place in page])
    assert met == [name for _, name in sorted(buried, reverse=not oldest_first)]
    assert await redis.zcard(keys.DEAD) == 1
    assert await balanced(redis)


@pytest.mark.usefixtures("small_pages")
async def test_a_walk_over_one_kind_meets_only_its_letters(redis: Redis) -> None:
    """Both ways through time, also while they are dropped."""
    await bury(redis, Stage.SCORES, source="scores", reason=Reason.INVALID)
    ids = [(await bury(redis, payloads=[b"1"]))[0] for _ in range(7)]
    await bury(redis, reason=Reason.BUG)
    kind = Filter(Stage.FORWARD, "sendgrid", Reason.REFUSED)
    assert await walk(redis, kind) == ids[::-1]
    assert await walk(redis, kind, oldest_first=True) == ids
    async for page in dead_letters.places(redis, kind):
        await dead_letters.drop(redis, [place.id for place in page])
    assert await redis.zcard(keys.DEAD) == 2
    assert await balanced(redis)


async def test_counts_are_about_the_time_of_burial_too(redis: Redis) -> None:
    """Both bounds count, though no letter is looked at."""
    ids = await bury(redis, payloads=[b"1"] * 3)
    for at_ms, dead_id in enumerate(ids, start=5_000):
        await bury_at(redis, at_ms, dead_id)
    await bury(redis, Stage.SCORES, reason=Reason.INVALID)
    wanted = Filter(since_ms=5_001, until_ms=5_002)
    assert await dead_letters.counts(redis, wanted) == {Stage.FORWARD: {"refused": 2}}
    assert await dead_letters.counts(redis, Filter(stage=Stage.NOTIFY)) == {}


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

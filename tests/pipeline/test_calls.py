"""Calls: what is added up by slots, percentiles out of buckets, and the last failures."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from pipeline import calls, keys
from pipeline.calls import BOUNDS, DAY_SLOT_MS, HOUR_SLOT_MS, Outcome, Stretch, failure_text
from pipeline.clock import redis_now_ms
from pipeline.outcomes import Stage
from tests.pipeline.work import full

pytestmark = pytest.mark.anyio

FORWARD = Stage.FORWARD


def stretch(**counts: int) -> Stretch:
    """Return a stretch with *counts* by bucket."""
    return Stretch({}, [counts.get(f"b{n}", 0) for n in range(len(BOUNDS) + 1)])


def test_a_percentile_lies_where_an_even_spread_has_it() -> None:
    """Half of what lies in one bucket is in its middle; what took longest ends where every call is given up."""
    assert stretch(b1=100).percentile(50) == 0.075
    assert stretch(b0=90, b6=10).percentile(95) == 0.875
    assert stretch(b0=50, b6=50).percentile(50) == 0.05
    assert stretch(b16=1).percentile(100) == 45.0
    assert stretch().percentile(50) is None


async def test_counts_are_added_up(redis: Redis) -> None:
    """What several workers tell is one sum, in the hour as in the day, and of no other stage."""
    await calls.add(redis, FORWARD, {"ok": 3, "b1": 3}, [])
    await calls.add(redis, FORWARD, {"ok": 1, "b1": 1, "failed": 2}, [])
    found = await calls.read(redis, [Stage.ENRICH, FORWARD])
    told = {"ok": 4, "failed": 2}
    for part in (found[FORWARD].hour, found[FORWARD].day):
        assert part.outcomes == {str(name): told.get(name, 0) for name in Outcome}
        assert part.buckets[1] == sum(part.buckets) == 4
    assert not any(found[Stage.ENRICH].day.outcomes.values())


async def test_the_hour_forgets_before_the_day(redis: Redis) -> None:
    """Calls of two hours ago are of the day only, those of two days ago of neither; no slot stays for ever."""
    now = await redis_now_ms(redis)
    for hours, name in ((2, "ok"), (48, "refused")):
        then = now - hours * 3_600_000
        for width in (HOUR_SLOT_MS, DAY_SLOT_MS):
            await redis.hset(keys.calls(FORWARD, width, then // width), name, 7)
    await calls.add(redis, FORWARD, {"failed": 1}, [(0, "failed||x")])
    known = (await calls.read(redis, [FORWARD]))[FORWARD]
    assert [known.hour.outcomes[name] for name in ("ok", "refused", "failed")] == [0, 0, 1]
    assert [known.day.outcomes[name] for name in ("ok", "refused", "failed")] == [7, 0, 1]
    for width in (HOUR_SLOT_MS, DAY_SLOT_MS):
        # the slot may have changed since
        lives = [await redis.pttl(keys.calls(FORWARD, width, now // width + n)) for n in (0, 1)]
        assert max(lives) > width
    assert await redis.pttl(keys.failed_calls(FORWARD)) > 0


async def test_what_was_ever_called_stays(redis: Redis) -> None:
    """All calls are counted for good, beside the slots, with the time that those in buckets took."""
    for took_ms in (70, 80):
        await calls.add(redis, FORWARD, {"ok": 1, "b1": 1, calls.TOOK_MS: took_ms}, [])
    slots = await redis.keys(keys.all_calls(FORWARD) + ":*")
    await redis.delete(*slots)
    found = await calls.read_all(redis, [Stage.ENRICH, FORWARD])
    assert found[FORWARD].calls.outcomes["ok"] == found[FORWARD].calls.buckets[1] == 2
    assert found[FORWARD].seconds == 0.15
    assert await redis.pttl(keys.all_calls(FORWARD)) == -1
    assert (sum(found[Stage.ENRICH].calls.buckets), found[Stage.ENRICH].seconds) == (0, 0)


async def test_the_last_failures_are_kept(redis: Redis) -> None:
    """The newest twenty, newest first, each with its own time; a status that nobody gave is none."""
    for n in range(15):
        told = [(5_000, failure_text(Outcome.FAILED, 500 + n, "a|b")), (0, f"failed||{n}")]
        await calls.add(redis, FORWARD, {"failed": 2}, told)
    failures = (await calls.read(redis, [FORWARD]))[FORWARD].failures
    assert len(failures) == calls.MOST_FAILURES
    assert (failures[0].status, failures[0].words) == (None, "14")
    assert (failures[1].status, failures[1].words) == (514, "a|b")
    assert failures[0].at_ms - failures[1].at_ms == 5_000


def test_a_vendors_words_are_masked_and_cut() -> None:
    """No address is kept, and no more than two hundred characters."""
    text = failure_text(Outcome.REFUSED, 400, "no such user ann@example.com " + "x" * 1_000)
    assert text.startswith("refused|400|no such user [address] xxx")
    assert len(text) == len("refused|400|") + calls.MOST_WORDS


async def test_a_full_server_counts(redis: Redis) -> None:
    """Statistics are a few bytes: a server that takes no delivery takes them."""
    async with full(redis):
        await calls.add(redis, FORWARD, {"ok": 1}, [(0, "failed||x")])
        assert (await calls.read(redis, [FORWARD]))[FORWARD].hour.outcomes["ok"] == 1

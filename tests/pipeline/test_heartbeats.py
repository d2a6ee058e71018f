"""Heartbeats: who lives, by Redis's clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from pipeline import heartbeats, keys
from pipeline.clock import iso, redis_now_ms
from pipeline.origins import Form, Origin

pytestmark = pytest.mark.anyio


async def test_a_heartbeat_is_noted_and_ended(redis: Redis) -> None:
    """The youngest heartbeat tells whether anybody works; a worker that ends takes its own away."""
    assert await heartbeats.youngest_age_s(redis) is None
    await redis.zadd(keys.WORKERS, {"older": await redis_now_ms(redis) - 30_000})
    age_s = await heartbeats.youngest_age_s(redis)
    assert age_s is not None
    assert age_s >= 30
    await heartbeats.beat(redis, "one")
    age_s = await heartbeats.youngest_age_s(redis)
    assert age_s is not None
    assert age_s < 30
    await heartbeats.stop(redis, "one")
    assert await redis.zrange(keys.WORKERS, 0, -1) == [b"older"]


async def test_a_clock_that_was_set_back_gives_no_negative_age(redis: Redis) -> None:
    """A heartbeat from the future is as young as can be."""
    await redis.zadd(keys.WORKERS, {"one": await redis_now_ms(redis) + 90_000})
    assert await heartbeats.youngest_age_s(redis) == 0


async def test_old_heartbeats_are_forgotten(redis: Redis) -> None:
    """The list of workers does not grow with every restart."""
    await redis.zadd(keys.WORKERS, {"old": await redis_now_ms(redis) - 3_700_000})
    await heartbeats.beat(redis, "one")
    assert await redis.zrange(keys.WORKERS, 0, -1) == [b"one"]


def test_times_are_shown_in_utc() -> None:
    """Unix milliseconds become ISO-8601 with `Z`, to the millisecond."""
    moment = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    assert iso(moment.timestamp() * 1000) == "2026-02-03T04:05:06.789Z"
    assert iso(0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("tag", [None, "spring-sale_1.0"])
@pytest.mark.parametrize("form", list(Form))
def test_an_origin_survives_its_stored_form(form: Form, tag: str | None) -> None:
    """Whatever travels with a piece of work is read as it was written."""
    origin = Origin("sendgrid", 1_700_000_000_000, form, tag)
    assert Origin.unpack(origin.pack().encode()) == origin

"""The gauges: how fast work comes and leaves, when it will be drained, and one reading for all who look."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from console.web import gauges as module
from console.web.gauges import Gauges
from pipeline import calls, keys
from pipeline.history import MINUTE_MS
from pipeline.outcomes import Stage
from pipeline.settings import Settings
from pipeline.wake import arq_redis

pytestmark = pytest.mark.anyio


@pytest.fixture
def gauges(redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gauges:
    """Give gauges that share no reading, so that each look is one."""
    monkeypatch.setattr(module, "FRESH_S", -1.0)
    return Gauges(Settings(redis_url=SecretStr(redis_url), relay_home=tmp_path), redis)


async def stand(redis: Redis, **numbers: int) -> None:
    """Let the books of `forward` stand at *numbers*."""
    await redis.hset(keys.BOOKS, mapping={f"forward:{name}": n for name, n in numbers.items()})


async def minutes_ago(redis: Redis, minutes: int, **numbers: int) -> None:
    """Let the history say how they stood so many minutes ago."""
    now = int((await redis.time())[0]) * 1000
    entry = {f"forward:{name}": n for name, n in numbers.items()}
    await redis.xadd(keys.HISTORY, entry, id=f"{now - minutes * MINUTE_MS}-0")


async def flow(gauges: Gauges) -> dict[str, Any]:
    """Return the figures of `forward`."""
    found: dict[str, Any] = (await gauges.read())["flow"]["forward"]
    return found


async def test_without_a_reading_before_nothing_is_said_of_speed(gauges: Gauges) -> None:
    """The first look, without a history, tells no speed and no time."""
    found = await flow(gauges)
    assert (found["in_per_minute"], found["out_per_minute"], found["drains_in_s"]) == (None,) * 3


async def test_the_first_look_reckons_from_the_history(gauges: Gauges, redis: Redis) -> None:
    """What came and left since the history's entry, by the minute; what waits is drained at the speed of its fall."""
    await minutes_ago(redis, 1, **{"in": 100, "waiting": 90, "done": 10})
    await stand(redis, **{"in": 130, "waiting": 60, "done": 60, "duplicate": 4, "dead": 6})
    found = await flow(gauges)
    assert found["in_per_minute"] == pytest.approx(30, rel=0.05)
    assert found["out_per_minute"] == pytest.approx(60, rel=0.05)
    assert found["drains_in_s"] == pytest.approx(120, rel=0.05)


async def test_two_looks_at_once_are_no_minute(gauges: Gauges, redis: Redis) -> None:
    """Until somebody has looked for half a minute speeds are reckoned from the history, not from a look just before."""
    await minutes_ago(redis, 1, **{"in": 100, "done": 100})
    await stand(redis, **{"in": 160, "done": 160})
    first = await flow(gauges)
    second = await flow(gauges)
    assert 50 < second["in_per_minute"] <= 60
    assert abs(first["in_per_minute"] - second["in_per_minute"]) < 10


async def test_what_grows_is_never_drained(gauges: Gauges, redis: Redis) -> None:
    """While more comes than leaves no time is told."""
    await minutes_ago(redis, 1, **{"in": 100, "waiting": 50, "done": 50})
    await stand(redis, **{"in": 200, "waiting": 100, "done": 100})
    assert (await flow(gauges))["drains_in_s"] is None


async def test_what_is_retried_comes_and_leaves(gauges: Gauges, redis: Redis) -> None:
    """Letters that went back to work came in; what of them is done has left."""
    await minutes_ago(redis, 1, **{"in": 100, "waiting": 0, "done": 0, "dead": 100})
    await stand(redis, **{"in": 100, "waiting": 50, "done": 50, "dead": 0})
    found = await flow(gauges)
    assert found["in_per_minute"] == pytest.approx(100, rel=0.05)
    assert found["out_per_minute"] == pytest.approx(50, rel=0.05)


async def test_calls_are_reckoned_between_two_looks(gauges: Gauges, redis: Redis) -> None:
    """The calls since the look before, by the minute; the first look knows none, nor does a stage that calls nobody."""
    assert (await flow(gauges))["calls_per_minute"] is None
    await calls.add(redis, Stage.FORWARD, {"ok": 6, "failed": 2, "b1": 8}, [])
    gauges._readings[0] = replace(gauges._readings[0], at_ms=gauges._readings[0].at_ms - 50_000)
    found = (await gauges.read())["flow"]
    assert found["forward"]["calls_per_minute"] == pytest.approx(9.6, rel=0.2)
    assert found["enrich"]["calls_per_minute"] == 0
    assert found["unpack"]["calls_per_minute"] is None


async def test_an_emptied_server_begins_anew(gauges: Gauges, redis: Redis) -> None:
    """Books that went back are others: nothing is reckoned against the old ones."""
    await stand(redis, **{"in": 100, "done": 100})
    await flow(gauges)
    await redis.flushall()
    assert (await flow(gauges))["in_per_minute"] is None


async def test_all_who_look_at_once_share_a_reading(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    """Within a second there is one reading, and one failure: nobody waits in a row for a Redis that is away."""
    gauges = Gauges(Settings(redis_url=SecretStr(redis_url), relay_home=tmp_path), redis)
    first, second = await asyncio.gather(gauges.read(), gauges.read())
    assert first is second
    away = arq_redis(Redis.from_url("redis://127.0.0.1:1/0").connection_pool)
    lost = Gauges(Settings(relay_home=tmp_path), away)
    told = await asyncio.gather(*(lost.read() for _ in range(3)), return_exceptions=True)
    assert isinstance(told[0], (RedisError, OSError))
    assert told[0] is told[1] is told[2]

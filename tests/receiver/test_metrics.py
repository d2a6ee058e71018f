"""/metrics: what was answered, why it was refused, and the books."""

from __future__ import annotations

import pytest
from httpx import AsyncClient
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from pipeline import heartbeats, paces
from pipeline.outcomes import Stage
from tests.receiver.conftest import TOKEN, MakeClient

pytestmark = pytest.mark.anyio


async def numbers(client: AsyncClient) -> dict[str, float]:
    """Return every sample as `name{label=value,…}` -> value."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert TOKEN not in answer.text
    return {
        sample.name + ",".join(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_answers_refusals_bytes_and_flushes_are_counted(client: AsyncClient) -> None:
    """Each request is one answer, each refusal has its cause."""
    await client.post(f"/hooks/pixel/{TOKEN}", content=b'{"a":1}')
    await client.post("/hooks/pixel/wrong", content=b'{"a":1}')
    await client.post("/hooks/a-secret-typed-here/wrong", content=b"{}")
    found = await numbers(client)
    assert found["relay_deliveries_total202,pixel"] == 1
    assert found["relay_deliveries_total401,pixel"] == 1
    assert found["relay_refused_totalpixel,wrong-token"] == 1
    assert found["relay_refused_totalunknown,unknown-source"] == 1
    assert found["relay_received_bytes_totalpixel"] == 7
    assert found["relay_flushes_totalstored"] == 1
    assert found["relay_flush_deliveries_count"] == 1
    assert found["relay_inflight_bytes"] == 0


async def test_what_is_acknowledged_is_timed(client: AsyncClient) -> None:
    """A request that is answered 2xx counts once, with its time; one that is refused was promised nothing."""
    for token in (TOKEN, TOKEN, "wrong"):
        await client.post(f"/hooks/pixel/{token}", content=b'{"a":1}')
    found = await numbers(client)
    assert found["relay_acknowledge_seconds_count"] == 2
    assert found["relay_acknowledge_seconds_sum"] > 0
    within = [n for name, n in found.items() if name.startswith("relay_acknowledge_seconds_bucket")]
    assert sorted(within) == within
    assert within[-1] == 2


async def test_the_books_are_told(client: AsyncClient) -> None:
    """The stages' numbers come from Redis."""
    await client.post(f"/hooks/pixel/{TOKEN}", content=b'{"a":1}')
    found = await numbers(client)
    assert found["relay_redis_up"] == 1
    assert found["relay_stage_itemsin,unpack"] == 1
    assert found["relay_stage_itemsunpack,waiting"] == 1


async def test_the_rates_are_told(client: AsyncClient, redis: Redis) -> None:
    """What is configured, and what a vendor that asked for fewer requests takes now."""
    await paces.slow_down(redis, "audiencepoint", 5, "429", 1)
    found = await numbers(client)
    assert found["relay_vendor_rateaudiencepoint,configured"] == 5
    assert found["relay_vendor_rateaudiencepoint,now"] == 2.5
    assert found["relay_vendor_rateaudiencelab,now"] == 0.5


async def test_calls_at_a_time_and_what_was_retried_are_told(
    client: AsyncClient, redis: Redis
) -> None:
    """Of all workers that live, and of the line that a retry goes through."""
    await heartbeats.beat(redis, "one")
    await paces.tell_widths(redis, "one", {Stage.FORWARD: (3, "late")})
    await redis.xadd("{relay}:queue:forward:retried", {"p": "1", "m": "2"})
    found = await numbers(client)
    assert found["relay_stage_callsforward,now"] == 3
    assert found["relay_stage_callsforward,most"] == 8
    assert found["relay_stage_retriedforward,single"] == 1
    assert found["relay_stage_retriedenrich,held"] == 0


async def test_metrics_answer_without_redis(make_client: MakeClient) -> None:
    """Without Redis the receiver's own numbers are told all the same."""
    async with make_client(redis_url="redis://127.0.0.1:1/0", spill_max_bytes=0) as client:
        await client.post(f"/hooks/pixel/{TOKEN}", content=b'{"a":1}')
        found = await numbers(client)
    assert found["relay_redis_up"] == 0
    assert found["relay_deliveries_total503,pixel"] == 1

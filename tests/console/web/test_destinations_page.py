"""Destinations: whom the relay calls and how that goes, and pausing, resuming and probing from there."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from pipeline import books, calls, keys, paces, pauses
from pipeline.calls import Outcome, failure_text
from pipeline.outcomes import Stage
from tests.console.conftest import audited
from tests.console.web.conftest import Open
from tests.console.web.posting import post, post_and_follow
from tests.pipeline.work import claim, seal, set_back

pytestmark = pytest.mark.anyio

CRM = "https://hooks.example.com/services/T0P/SECRET?key=unshown"


def section(text: str, stage: str) -> str:
    """Return the part of the page that is about *stage*."""
    found = re.search(rf'<section aria-labelledby="of-{stage}">.*?</section>', text, re.DOTALL)
    assert found is not None, stage
    return found[0]


async def of(console: httpx.AsyncClient, stage: str = "forward") -> str:
    """Return what the page says of *stage*."""
    return section((await console.get("/destinations")).text, stage)


async def told(console: httpx.AsyncClient, stage: str = "forward") -> dict[str, Any]:
    """Return what /api says of *stage*."""
    found: dict[str, Any] = (await console.get("/api/destinations")).json()[stage]
    return found


async def back_off(redis: Redis, **changed: Any) -> None:
    """Let a call of `forward` fail, which puts off the next one by a minute."""
    await seal(redis, Stage.FORWARD, [b"1"])
    await set_back(redis, await claim(redis), at_least_ms=60_000, **changed)


async def test_addresses_are_told_and_no_key(open_console: Open) -> None:
    """Each stage's address is base and path, and whether its key is set; neither keys nor the CRM's path."""
    console = await open_console(
        audiencepoint_api_key=SecretStr("point-key-secret"),
        audiencepoint_base_url="https://point.example.com/v1",
        audiencepoint_events_path="/ingest",
        audiencelab_dialect="documented",
        scores_webhook_url=SecretStr(CRM),
        scores_webhook_secret=SecretStr("whsec_" + "c2VjcmV0" * 4),
    )
    text = (await console.get("/destinations")).text
    assert "https://point.example.com/v1/ingest<" in section(text, "forward")
    assert "https://point.example.com/v1/list-subscription<" in section(text, "subscribe")
    assert "https://api.audiencelab.io/enrich/contact<" in section(text, "enrich")
    assert "https://hooks.example.com/…<" in section(text, "notify")
    assert "<code>AUDIENCEPOINT_API_KEY</code> is set" in section(text, "forward")
    assert "<code>AUDIENCELAB_API_KEY</code> is not set" in section(text, "enrich")
    for whole in (text, (await console.get("/api/destinations")).text):
        assert not any(
            word in whole for word in ("point-key-secret", "SECRET?", "T0P", "unshown", "c2VjcmV0")
        )


async def test_calls_are_told(open_console: Open, redis: Redis) -> None:
    """Outcomes, percentiles and the last failures stand there, a vendor's words as text."""
    words = failure_text(Outcome.REFUSED, 400, "<b>no</b> ann@example.com")
    await calls.add(redis, Stage.FORWARD, {"ok": 1_000, "b1": 1_000, "refused": 1}, [(0, words)])
    text = await of(await open_console())
    assert 'data-figure="forward-hour-ok">1\u202f000<' in text
    assert 'data-figure="forward-day-refused">1<' in text
    assert 'data-figure="forward-hour-p50">75 ms<' in text
    assert "&lt;b&gt;no&lt;/b&gt; [address]" in text
    assert 'data-figure="enrich-hour-p50">\u2013<' in await of(await open_console(), "enrich")


async def test_the_state_is_told(open_console: Open, redis: Redis) -> None:
    """Flowing, backing off, paused by whom and why with the next try, switched off."""
    console = await open_console(scores_webhook_url=None)
    assert 'data-state="flows"' in await of(console)
    assert 'data-state="switched_off"' in await of(console, "notify")
    await back_off(redis)
    assert 'data-state="backs_off"' in await of(console)
    assert (await told(console))["next_try"] is not None
    await pauses.pause(redis, Stage.FORWARD, "<i>lunch</i>")
    text = await of(console)
    assert "Paused by the operator since <time" in text
    assert "&lt;i&gt;lunch&lt;/i&gt;" in text
    assert (await told(console))["next_try"] is None


async def test_the_rate_of_now_is_told_with_its_reason(open_console: Open, redis: Redis) -> None:
    """A rate that was halved says what it is of, and why."""
    await paces.slow_down(redis, "audiencepoint", 5.0, "asks for fewer", 1)
    text = await of(await open_console(audiencepoint_rate=5.0))
    assert "2.5 a second of 5.0: <bdi>asks for fewer</bdi>" in text


async def test_a_stage_is_paused_and_resumed_from_here(open_console: Open, redis: Redis) -> None:
    """Both buttons lead back to this page, and stand in the audit."""
    console = await open_console()
    for path, state in (("/pause", "paused"), ("/resume", "flows")):
        answer = await post(console, path, stage="forward", back="destinations", reason="lunch")
        assert answer.headers["location"] == "/destinations"
        assert f'data-state="{state}"' in await of(console)
    assert (await post(console, "/pause", stage="forward")).headers["location"] == "/"
    assert [what for what, *_ in await audited(redis)] == ["pause", "resume", "pause"]


async def test_a_probe_goes_now(open_console: Open, redis: Redis) -> None:
    """After a probe a call may be made at once, the failures stay known, workers are rung for, the audit has it."""
    await back_off(redis, at_once=1)
    console = await open_console()
    assert 'action="/destinations/probe"' in await of(console)
    text = (await post_and_follow(console, "/destinations/probe", stage="forward")).text
    assert "The next call of forward goes now" in text
    assert (await books.snapshot(redis))["paused"]["forward"]["by"] == "relay"
    assert await redis.hget(keys.destination(Stage.FORWARD), "failures") == b"1"
    assert await redis.zcard(keys.PREFIX + "arq:queue") == 1
    assert (await claim(redis)).payloads == [b"1"]
    assert await audited(redis) == [("probe", 1, {"stage": "forward"})]


async def test_a_probe_lifts_no_pause_of_an_operator(open_console: Open, redis: Redis) -> None:
    """It says whose pause it is, changes nothing, and is not in the audit; an unknown stage is refused."""
    await pauses.pause(redis, Stage.FORWARD, "lunch")
    console = await open_console()
    before = await redis.hgetall(keys.PAUSED)
    assert 'action="/destinations/probe"' not in await of(console)
    text = (await post_and_follow(console, "/destinations/probe", stage="forward")).text
    assert "An operator has paused forward" in text
    assert await redis.hgetall(keys.PAUSED) == before
    assert await audited(redis) == []
    assert (await post(console, "/destinations/probe", stage="unpack")).status_code == 400


async def test_read_only_probes_nothing(open_console: Open, redis: Redis) -> None:
    """With CONSOLE_READ_ONLY there is no button, and a posted form is refused."""
    await back_off(redis, at_once=1)
    console = await open_console(console_read_only=True)
    assert "<form" not in await of(console)
    before = await redis.hgetall(keys.destination(Stage.FORWARD))
    answer = await post(console, "/destinations/probe", stage="forward")
    assert answer.status_code == 403
    assert await redis.hgetall(keys.destination(Stage.FORWARD)) == before

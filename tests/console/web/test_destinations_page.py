"""Destinations: whom the relay calls and how that goes, and pausing, resuming and probing from there."""

from __future__ import annotations

import re
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from pipeline import books, calls, imports, keys, paces, pauses
from pipeline.calls import Outcome, failure_text
from pipeline.clock import iso, redis_now_ms
from pipeline.endpoints import OWN_PAUSE, Endpoint
from pipeline.imports import Import, Kind
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


async def test_every_endpoint_has_its_place(open_console: Open, redis: Redis) -> None:
    """Address, key, counts and failures, hostile words as text, of each of the nine; /api tells the same."""
    hostile = failure_text(Outcome.FAILED, 503, "<script>x</script> ann@example.com\x1b[31m")
    for endpoint in Endpoint:
        await calls.add(redis, endpoint, {"ok": 7, "b1": 7, "failed": 1}, [(0, hostile)])
    console = await open_console(
        audiencepoint_base_url="https://point.example.com/v1", audiencelab_dialect="documented"
    )
    text = (await console.get("/destinations")).text
    found = (await console.get("/api/destinations")).json()
    assert list(found) == [str(endpoint) for endpoint in Endpoint]
    for endpoint in Endpoint:
        its = section(text, endpoint)
        assert f'data-figure="{endpoint}-hour-ok">7<' in its
        assert "&lt;script&gt;" in its
        assert "<script" not in its
        assert "ann@" not in its
        assert "\x1b" not in its
        assert found[endpoint]["hour"]["outcomes"]["failed"] == 1
    assert "https://point.example.com/v1/scores<" in section(text, "polling")
    assert "https://point.example.com/v1/email-verification<" in section(text, "verify")
    assert "https://api.audiencelab.io/enrichment/jobs<" in section(text, "bulk")
    assert "<code>AUDIENCELAB_API_KEY</code>" in section(text, "imports")
    assert "amazonaws.com" in section(text, "proofs")
    assert found["proofs"]["key"] is None


@pytest.mark.parametrize(
    ("endpoint", "stage", "setting"),
    [
        ("bulk", "enrich", {"enrich_bulk_from": 5}),
        ("verify", "subscribe", {"verify": "before_subscribe"}),
        ("proofs", "unpack", {"ses_topic_arns": SecretStr("arn:aws:sns:us-east-1:123456789012:s")}),
    ],
)
async def test_what_is_called_for_a_stage_stops_with_it(
    open_console: Open, redis: Redis, endpoint: str, stage: str, setting: dict[str, Any]
) -> None:
    """Its state is that of the stage, to which it leads; there is nothing of its own to pause or to probe."""
    console = await open_console(**setting)
    assert 'data-state="flows"' in await of(console, endpoint)
    await pauses.pause(redis, Stage(stage), "lunch")
    text = await of(console, endpoint)
    where = "/#stage-unpack" if stage == "unpack" else f"#of-{stage}"
    assert f'Paused with <a href="{where}">{stage}</a> by the operator since' in text
    assert "<form" not in text
    assert (await told(console, endpoint))["stage"] == stage
    for path in ("/pause", "/resume", "/destinations/probe"):
        assert (await post(console, path, stage=endpoint)).status_code == 400


async def test_the_settings_switch_each_off(open_console: Open) -> None:
    """What the settings do not want is switched off, and the page says which setting that is."""
    console = await open_console(
        enrich_bulk_from=0, score_poll_every_h=0, audiencepoint_api_key=SecretStr("k")
    )
    names = {
        "bulk": "ENRICH_BULK_FROM",
        "imports": "RECONCILE_SEGMENTS",
        "verify": "VERIFY",
        "polling": "SCORE_POLL_EVERY_H",
        "proofs": "SES_TOPIC_ARNS",
    }
    for endpoint, setting in names.items():
        text = await of(console, endpoint)
        assert 'data-state="switched_off"' in text
        assert setting in text


async def test_the_poll_says_how_it_stands(open_console: Open, redis: Redis) -> None:
    """Without its key, flowing, at rest while scores are pushed and between walks, put off, paused by the relay."""
    assert 'data-state="no_key"' in await of(await open_console(), "polling")
    console = await open_console(audiencepoint_api_key=SecretStr("k"))
    assert 'data-state="flows"' in await of(console, "polling")
    now = await redis_now_ms(redis)
    await redis.hset(keys.SENDERS, "scores:pushed:last", now)
    assert 'data-state="rests"' in await of(console, "polling")
    await redis.delete(keys.SENDERS)
    await redis.hset(keys.POLL, "place", f"{now}:end")
    text = await of(console, "polling")
    assert 'data-state="rests"' in text
    assert 'action="/destinations/probe"' not in text
    await redis.hset(keys.POLL, "place", f"{now}:0")
    destination = keys.destination(Endpoint.POLLING)
    await redis.hset(destination, mapping={"failures": 1, "due": now + 60_000})
    assert 'data-state="backs_off"' in await of(console, "polling")
    reason, until = "<i>key</i>", now + 60_000
    pause = {"by": "relay", "reason": reason, "since_ms": now, "until_ms": until}
    await redis.hset(keys.PAUSED, "polling", orjson.dumps(pause))
    text = await of(console, "polling")
    assert "Paused by the relay since" in text
    assert "&lt;i&gt;key&lt;/i&gt;" in text
    answer = await post_and_follow(console, "/destinations/probe", stage="polling")
    assert "The next call of polling goes now" in answer.text
    assert int(await redis.hget(destination, "due")) <= await redis_now_ms(redis)
    assert 'data-state="paused"' in await of(console, "polling")


async def test_imports_say_how_they_stand(open_console: Open, redis: Redis) -> None:
    """Flowing while something is to be walked, put off until the first may be tried again, at rest until the next."""
    console = await open_console(
        audiencelab_api_key=SecretStr("k"), reconcile_segments="one", reconcile_pixels="two"
    )
    assert 'data-state="flows"' in await of(console, "imports")
    now = await redis_now_ms(redis)
    for kind, name in ((Kind.SEGMENT, "one"), (Kind.PIXEL, "two")):
        one, _ = await imports.take(redis, Import(kind, name, 10), "me")
        await imports.leave(redis, one, "me", finished_at_ms=now)
    assert 'data-state="rests"' in await of(console, "imports")
    one, _ = await imports.take(redis, Import(Kind.PIXEL, "two", 10), "me", anew=True)
    await imports.leave(redis, one, "me", error="no", again_at_ms=now + 3_600_000)
    assert 'data-state="backs_off"' in await of(console, "imports")
    assert (await told(console, "imports"))["next_try"] == iso(now + 3_600_000)


@pytest.mark.parametrize("task", OWN_PAUSE)
async def test_a_task_is_paused_and_resumed_from_here(
    open_console: Open, redis: Redis, task: Endpoint
) -> None:
    """As a stage is: audited, shown with its reason, and back to this page; `relay status` has no new word."""
    console = await open_console(
        audiencepoint_api_key=SecretStr("k"),
        audiencelab_api_key=SecretStr("k"),
        reconcile_segments="one",
    )
    answer = await post(console, "/pause", stage=task, back="destinations", reason="<i>lunch</i>")
    assert answer.headers["location"] == "/destinations"
    text = await of(console, task)
    assert "Paused by the operator since" in text
    assert "&lt;i&gt;lunch&lt;/i&gt;" in text
    assert set((await books.snapshot(redis))["paused"]) == {str(stage) for stage in Stage}
    await post(console, "/resume", stage=task, back="destinations")
    assert 'data-state="flows"' in await of(console, task)
    told_of = [("pause", 1, {"stage": task}), ("resume", 1, {"stage": task})]
    assert await audited(redis) == told_of
    assert await redis.zcard(keys.PREFIX + "arq:queue") == 0


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


@pytest.mark.parametrize("path", ["/destinations/probe", "/pause", "/resume"])
async def test_what_cannot_be_audited_is_not_done(
    open_console: Open, redis: Redis, path: str
) -> None:
    """Where the audit takes no entry the stage's calls stay as they were."""
    await back_off(redis, at_once=1)
    console = await open_console()
    await redis.set(keys.AUDIT, "no stream")
    names = (keys.destination(Stage.FORWARD), keys.PAUSED)
    before = [await redis.hgetall(name) for name in names]
    assert (await post(console, path, stage="forward")).status_code >= 500
    assert [await redis.hgetall(name) for name in names] == before


async def test_a_probe_lifts_no_pause_of_an_operator(open_console: Open, redis: Redis) -> None:
    """It says whose pause it is and changes nothing but the audit; an unknown stage is refused."""
    await pauses.pause(redis, Stage.FORWARD, "lunch")
    console = await open_console()
    before = await redis.hgetall(keys.PAUSED)
    assert 'action="/destinations/probe"' not in await of(console)
    text = (await post_and_follow(console, "/destinations/probe", stage="forward")).text
    assert "An operator has paused forward" in text
    assert await redis.hgetall(keys.PAUSED) == before
    assert await audited(redis) == [("probe", 1, {"stage": "forward"})]
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

"""The page of settings: no secret is told, findings with the most serious first, and the audit's end."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from redis.asyncio import Redis

from console.setting_rows import STARS, without_user
from pipeline import audit, heartbeats, keys
from pipeline.outcomes import Stage
from pipeline.pauses import pause
from pipeline.settings import Settings
from tests.console.conftest import HOOK_TOKEN, audited
from tests.console.test_command_senders import SECRET
from tests.console.web.conftest import TOKEN, Open, log_in
from tests.console.web.posting import ended, post, post_and_follow
from tests.vendors import KEY, Sandbox

pytestmark = pytest.mark.anyio

WEBHOOK_KEY = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5"


def row(text: str, name: str) -> str:
    """Return the row of one setting as text."""
    found = re.search(rf"<tr><th scope=\"row\"><code>{name}</code>.*?</tr>", text, re.DOTALL)
    assert found is not None, name
    return re.sub(r"<[^>]*>", " ", found[0])


# settings -----------------------------------------------------------------------------------------------


async def test_every_setting_is_shown(open_console: Open, redis: Redis) -> None:
    """Each by its name, whether it is set, its value and what it means."""
    console = await open_console(dead_keep_d=7)
    text = (await console.get("/settings")).text
    for name, info in Settings.model_fields.items():
        shown = row(text, name.upper())
        assert "default" in shown.split() or "set" in shown.split(), name
        assert info.description is not None
    assert "default: 30" in row(text, "DEAD_KEEP_D")
    assert " set " in row(text, "DEAD_KEEP_D")
    assert " default " in row(text, "VISITOR_KEEP_D")
    assert " 365 " in row(text, "VISITOR_KEEP_D")


@pytest.mark.usefixtures("redis")
async def test_no_secret_is_told(open_console: Open) -> None:
    """Of every secret there are stars of one length; an address of Redis loses its user."""
    secrets: dict[str, Any] = {
        "hook_tokens": HOOK_TOKEN, "console_token": TOKEN, "audiencelab_api_key": SECRET,
        "audiencepoint_api_key": SECRET, "mandrill_webhook_key": SECRET, "mandrill_webhook_url": SECRET,
        "scores_webhook_url": f"https://crm.example/{SECRET}", "scores_webhook_secret": WEBHOOK_KEY,
        "mailgun_signing_key": SECRET, "klaviyo_signing_key": SECRET,
    }  # fmt: skip
    console = await open_console(**secrets)
    await log_in(console)
    text = (await console.get("/settings")).text
    for secret in (HOOK_TOKEN, TOKEN, SECRET, WEBHOOK_KEY):
        assert secret not in text
    for name in secrets:
        assert STARS in row(text, name.upper()), name
    assert STARS not in row(text, "RESEND_SIGNING_SECRET")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@redis.example:6379/1", "redis://redis.example:6379/1"),
        ("redis://:se@cret@redis.example", "redis://redis.example"),
        ("redis://:se/secret@redis.example/0", "redis://redis.example/0"),
        ("redis://redis.example/0?password=secret", "redis://redis.example/0"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
        ("unix://user:secret@/run/redis.sock", "unix:///run/redis.sock"),
        ("redis+sentinel://u:secret@a:1,b:2/master/0", "redis+sentinel://a:1,b:2/master/0"),
        ("http://[secret", STARS),
        ("https://api.example.com/v1", "https://api.example.com/v1"),
    ],
)
def test_a_url_loses_who_may_enter(url: str, shown: str) -> None:
    """User, password and query go, also where the password was not encoded."""
    assert without_user(url) == shown


async def test_settings_are_shown_without_redis(open_console: Open, redis: Redis) -> None:
    """Where Redis cannot be read the settings still are; in place of the audit stands why."""
    console = await open_console(redis_url="redis://127.0.0.1:1/0")
    text = (await console.get("/settings")).text
    assert "redis://127.0.0.1:1/0" in row(text, "REDIS_URL")
    assert "Redis cannot be reached" in text


# audit --------------------------------------------------------------------------------------------------


async def test_the_audit_is_told_from_its_end(open_console: Open, redis: Redis) -> None:
    """A hundred entries, newest first, whatever stands in them as text."""
    for n in range(103):
        await audit.record(redis, f"what-{n}", who="<b>who", count=n, wanted={"stage": "</td>"})
    text = (await (await open_console()).get("/settings")).text
    assert re.findall(r"what-(\d+)", text) == [str(n) for n in range(102, 2, -1)]
    assert "<b>who" not in text
    assert "&lt;b&gt;who" in text
    assert "&lt;/td&gt;" in text


# findings -----------------------------------------------------------------------------------------------


def states(text: str) -> list[str]:
    """Return the state of each finding of a page, in order."""
    return re.findall(r'<td><span class="(\w+)">', text)


async def test_what_is_at_hand_is_told_at_once(
    open_console: Open, redis: Redis, box: Sandbox
) -> None:
    """Without asking anybody: no vendor hears of it, nothing is sent, nothing changes, the worst comes first."""
    await pause(redis, Stage.FORWARD, by="operator", reason="tests")
    before = sorted(await redis.keys("*"))
    console = await open_console(
        audiencelab_api_key=KEY, audiencelab_base_url=box.audiencelab_url, hook_tokens=HOOK_TOKEN
    )
    text = (await console.get("/settings/examination")).text
    assert "forward is paused by the operator" in text
    assert "none is alive" in text
    assert "books, recounted" not in text
    found = states(text)
    assert found == sorted(found, key=["bad", "warn", "ok"].index)
    assert {"bad", "warn", "ok"} == set(found)
    assert sorted(await redis.keys("*")) == before
    assert not any(n for n in box.memory.counters().values() if isinstance(n, int))


async def test_everything_is_looked_at_when_it_is_asked_for(
    open_console: Open, redis: Redis, box: Sandbox
) -> None:
    """The form has the vendors asked and an event sent, in the background; what was found stays on the page."""
    await heartbeats.beat(redis, "one")
    console = await open_console(
        audiencelab_api_key=KEY,
        audiencelab_base_url=box.audiencelab_url,
        audiencepoint_api_key=KEY,
        audiencepoint_base_url=box.audiencepoint_url,
        hook_tokens=HOOK_TOKEN,
        port=1,
    )
    await post(console, "/settings/examination")
    text = await ended(console, "/settings/examination")
    assert "Everything was looked at" in text
    assert "books, recounted" in text
    assert "no receiver answers at http://127.0.0.1:1" in text
    assert any(n for n in box.memory.counters().values() if isinstance(n, int))
    assert await audited(redis) == [("doctor", 1, {})]
    assert "Everything was looked at" in (await console.get("/settings/examination")).text


async def test_one_examination_at_a_time(open_console: Open, redis: Redis) -> None:
    """While one goes on the page says so and tells what is at hand, and another is not begun."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def vendor(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await answered.wait()
        writer.close()

    async with await asyncio.start_server(vendor, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        console = await open_console(
            audiencelab_api_key=KEY, audiencelab_base_url=f"http://127.0.0.1:{port}", port=1
        )
        try:
            assert (await post(console, "/settings/examination")).status_code == 303
            await asyncio.wait_for(asked.wait(), 60)
            told = (await post_and_follow(console, "/settings/examination")).text
        finally:
            answered.set()
        assert "It goes on already" in told
        assert "Everything is being looked at" in told
        assert "none is alive" in told
        assert "Everything was looked at" in await ended(console, "/settings/examination")
    assert len(await audited(redis)) == 1


async def test_redis_away_is_a_finding(open_console: Open) -> None:
    """The findings that need no Redis are told, and that it is away."""
    console = await open_console(redis_url="redis://127.0.0.1:1/0", hook_tokens=HOOK_TOKEN)
    text = (await console.get("/settings/examination")).text
    assert states(text)[0] == "bad"
    assert "Redis cannot be reached" in text
    assert "hook tokens" in text


async def test_read_only_asks_nobody(open_console: Open, redis: Redis) -> None:
    """With CONSOLE_READ_ONLY there is no form, and a posted one is refused."""
    console = await open_console(console_read_only=True)
    assert "Look at everything" not in (await console.get("/settings/examination")).text
    assert (await post(console, "/settings/examination")).status_code == 403
    assert await redis.exists(keys.AUDIT) == 0

"""The page of senders: what each delivered, its URL whose token is asked for, samples in a trial only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline import keys
from pipeline.home import Address, Home
from pipeline.outcomes import SetUp
from pipeline.senders import keep_set_up
from pipeline.sources.registry import SOURCES
from sandbox.samples import SAMPLES
from tests.console.conftest import HOOK_TOKEN, OTHER_TOKEN, audited
from tests.console.test_command_send import TOKEN, Posted, receiver
from tests.console.test_command_senders import FACTS, SECRET
from tests.console.web.conftest import Open
from tests.console.web.posting import post, post_and_follow

pytestmark = pytest.mark.anyio

__all__ = ["receiver"]

HERE: dict[str, Any] = {"hook_tokens": f"sendgrid:{OTHER_TOKEN},{HOOK_TOKEN}"}
PUBLIC: dict[str, Any] = {**HERE, "public_url": "https://relay.example.com/in"}


async def test_every_source_is_shown(open_console: Open, redis: Redis) -> None:
    """One row each, with its last delivery, what came of its events, a link to its dead letters, its signature."""
    await redis.hset(keys.SENDERS, mapping=FACTS)
    text = (await (await open_console(**HERE)).get("/senders")).text
    assert [source for source in SOURCES if f'href="/senders/{source}"' not in text] == []
    for told in (
        "2026-01-01 00:00:00 UTC", "Click 1, Open 7; ignored: deferred 2; invalid 5",
        'href="/dead?source=sendgrid"', '<span class="mark">off</span>', "token only",
    ):  # fmt: skip
        assert told in text, told


async def test_one_source_tells_what_is_missing(open_console: Open, redis: Redis) -> None:
    """Its page has events by type, and the settings by which its signature would be checked, never their values."""
    await redis.hset(keys.SENDERS, mapping=FACTS)
    console = await open_console(**HERE, mandrill_webhook_key=SECRET, mandrill_webhook_url=SECRET)
    text = (await console.get("/senders/sendgrid")).text
    assert "its signature is checked once SENDGRID_PUBLIC_KEY is set" in text
    assert "events ignored, <bdi>deferred</bdi>" in text
    mandrill = (await console.get("/senders/mandrill")).text
    assert "Signature: on" in mandrill
    assert SECRET not in mandrill
    half = await open_console(**HERE, mandrill_webhook_url=SECRET)
    assert "without MANDRILL_WEBHOOK_KEY" in (await half.get("/senders/mandrill")).text


async def test_the_key_of_a_set_up_is_shown(open_console: Open, redis: Redis) -> None:
    """Callback, key and time of each, as text whatever it is."""
    await keep_set_up(redis, "sfmc", 1_767_225_600_000, SetUp("<b>65b885ab", "verification-key-1"))
    text = (await (await open_console(**HERE)).get("/senders/sfmc")).text
    assert "&lt;b&gt;65b885ab" in text
    assert "verification-key-1" in text
    assert "2026-01-01 00:00:00 UTC" in text


@pytest.mark.usefixtures("redis")
async def test_an_unknown_source_is_told(open_console: Open) -> None:
    """No page, no URL and no sample of what is no source."""
    console = await open_console(**HERE)
    assert (await console.get("/senders/nobody")).status_code == 404
    for path in ("url", "sample", "drill"):
        assert (await post(console, f"/senders/nobody/{path}")).status_code == 404


# its URL ------------------------------------------------------------------------------------------------


async def test_the_token_is_shown_to_who_asks(open_console: Open, redis: Redis) -> None:
    """The URL is masked until a form asks, also a read-only page's; the audit names the source, not the token."""
    console = await open_console(**PUBLIC, console_read_only=True)
    for source, token in (("pixel", HOOK_TOKEN), ("sendgrid", OTHER_TOKEN)):
        text = (await console.get(f"/senders/{source}")).text
        assert f'value="https://relay.example.com/in/hooks/{source}/****"' in text
        assert token not in text
        shown = (await post(console, f"/senders/{source}/url")).text
        assert f'value="https://relay.example.com/in/hooks/{source}/{token}"' in shown
        assert token not in (await console.get(f"/senders/{source}")).text
    assert await audited(redis) == [
        ("reveal token", 1, {"source": "pixel"}),
        ("reveal token", 1, {"source": "sendgrid"}),
    ]


async def test_no_token_is_shown_before_it_is_written_down(
    open_console: Open, redis: Redis
) -> None:
    """Without the form's token, or where the audit cannot be written, it stays masked."""
    console = await open_console(**PUBLIC)
    answer = await console.post("/senders/pixel/url", data={"form_token": "x"})
    assert answer.status_code == 403
    await redis.set(keys.AUDIT, "no stream")
    failed = await post(console, "/senders/pixel/url")
    assert failed.status_code == 503
    assert HOOK_TOKEN not in answer.text + failed.text


@pytest.mark.usefixtures("redis")
async def test_without_a_public_url_it_is_this_machines(open_console: Open) -> None:
    """Where PUBLIC_URL is not set the URL is this machine's own, and the page says so."""
    console = await open_console(**HERE, port=8123)
    text = (await console.get("/senders/pixel")).text
    assert "http://127.0.0.1:8123/hooks/pixel/****" in text
    assert "set PUBLIC_URL" in text


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ({}, "HOOK_TOKENS: not set"),
        ({"hook_tokens": f"sendgrid:{OTHER_TOKEN}"}, "No token of HOOK_TOKENS is valid for pixel"),
    ],
)
async def test_without_a_token_there_is_no_url(
    open_console: Open, tokens: dict[str, Any], told: str
) -> None:
    """The page says what is missing instead."""
    console = await open_console(**tokens)
    for answer in (await console.get("/senders/pixel"), await post(console, "/senders/pixel/url")):
        assert answer.status_code == 200
        assert told in answer.text


# samples ------------------------------------------------------------------------------------------------


def begin_trial(home: Path, redis_url: str, receiver_url: str) -> Path:
    """Write what `relay up` writes for a trial in *home*; return the trial's own home, which its children are told."""
    own = Home(home).trial()
    own.make()
    own.tokens_file.write_text(TOKEN)
    Home(home).write_address(Address(redis_url, own.path, True, receiver_url))
    return own.path


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("source", ["pixel", "mailgun"])
async def test_a_trial_is_sent_samples(
    open_console: Open,
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    receiver: tuple[str, Posted],
    source: str,
) -> None:
    """They go to the trial's receiver with its token, the page tells the answers, and the audit the source."""
    url, posted = receiver
    own = begin_trial(tmp_path / "home", redis_url, url)
    console = await open_console(relay_home=own, hook_tokens=TOKEN)
    assert "Send samples" in (await console.get(f"/senders/{source}")).text
    text = (await post_and_follow(console, f"/senders/{source}/sample")).text
    assert "202 stored" in text
    assert len(posted) == len(SAMPLES.get(source, [source]))
    assert {(path, token) for path, token, _, _ in posted} == {(f"/hooks/{source}", TOKEN)}
    assert await audited(redis) == [("send samples", 1, {"source": source})]


@pytest.mark.usefixtures("redis")
async def test_a_console_beside_the_trial_finds_it(
    open_console: Open, redis_url: str, tmp_path: Path, receiver: tuple[str, Posted]
) -> None:
    """Started by itself it finds the trial as every command does."""
    begin_trial(tmp_path / "home", redis_url, receiver[0])
    console = await open_console(redis_url=None)
    assert "202 stored" in (await post_and_follow(console, "/senders/pixel/sample")).text


@pytest.mark.parametrize("other", ["redis", "home"])
async def test_samples_never_reach_a_real_relay(
    open_console: Open,
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    receiver: tuple[str, Posted],
    other: str,
) -> None:
    """A console of another Redis, or of another home, than the trial's sends none, and says why."""
    there = "redis://elsewhere.example" if other == "redis" else redis_url
    own = begin_trial(tmp_path / "home", there, receiver[0])
    home = own if other == "redis" else tmp_path / "home" / "other"
    console = await open_console(relay_home=home, hook_tokens=TOKEN)
    text = (await console.get("/senders/pixel")).text
    assert "that is its end: no vendor hears of it" in text
    assert "<button>Send samples" not in text
    assert (await post(console, "/senders/pixel/sample")).status_code == 409
    assert (receiver[1], await audited(redis)) == ([], [])


@pytest.mark.usefixtures("redis")
async def test_a_relay_that_is_no_trial_is_sent_none(
    open_console: Open, redis_url: str, tmp_path: Path, receiver: tuple[str, Posted]
) -> None:
    """Also one that `relay up` started with a vendor's key."""
    home = Home(tmp_path / "home")
    home.make()
    home.tokens_file.write_text(TOKEN)
    home.write_address(Address(redis_url, home.path, False, receiver[0]))
    console = await open_console(redis_url=None)
    assert (await post(console, "/senders/pixel/sample")).status_code == 409
    assert receiver[1] == []


@pytest.mark.usefixtures("redis")
async def test_a_receiver_that_is_away_is_told(
    open_console: Open, redis_url: str, tmp_path: Path
) -> None:
    """A trial that was killed leaves its address: the page says that nobody answers there."""
    own = begin_trial(tmp_path / "home", redis_url, "http://127.0.0.1:1")
    console = await open_console(relay_home=own, hook_tokens=TOKEN)
    text = (await post_and_follow(console, "/senders/pixel/sample")).text
    assert "No answer from http://127.0.0.1:1" in text


@pytest.mark.usefixtures("redis")
async def test_read_only_sends_nothing(
    open_console: Open, redis_url: str, tmp_path: Path, receiver: tuple[str, Posted]
) -> None:
    """With CONSOLE_READ_ONLY there is no button, and a posted form is refused."""
    own = begin_trial(tmp_path / "home", redis_url, receiver[0])
    console = await open_console(relay_home=own, hook_tokens=TOKEN, console_read_only=True)
    assert "<button>Send" not in (await console.get("/senders/pixel")).text
    for path in ("sample", "drill"):
        assert (await post(console, f"/senders/pixel/{path}")).status_code == 403
    assert receiver[1] == []


async def test_a_drill_is_told_and_audited(open_console: Open, redis: Redis) -> None:
    """Outside of a trial the button sends one sample that ends where it is read; where it cannot, the page says why."""
    console = await open_console(hook_tokens=TOKEN)
    assert "<button>Send a sample" in (await console.get("/senders/mailgun")).text
    text = (await post_and_follow(console, "/senders/mailgun/drill")).text
    assert "Not sent: no worker is alive to read it." in text
    assert await audited(redis) == [("drill", 1, {"source": "mailgun"})]

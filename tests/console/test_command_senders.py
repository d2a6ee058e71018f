"""`relay senders`."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline import keys
from pipeline.home import Address, Home
from pipeline.outcomes import SetUp
from pipeline.senders import keep_set_up
from pipeline.sources.registry import SECRETS, SOURCES
from tests.console.conftest import Relay

pytestmark = pytest.mark.anyio

SECRET = "key-0123456789abcdef"
FACTS = {
    "sendgrid:last": 1_767_225_600_000,
    "sendgrid:deliveries:done": 3,
    "sendgrid:deliveries:dead": 1,
    "sendgrid:taken:Open": 7,
    "sendgrid:taken:Click": 1,
    "sendgrid:ignored:deferred": 2,
    "sendgrid:invalid": 5,
}


@pytest.mark.usefixtures("redis")
async def test_every_source_is_shown(relay: Relay) -> None:
    """Before anything came, each source of the table is there, in its order, with nothing counted."""
    answer = await relay("senders", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert [row["source"] for row in answer.json] == list(SOURCES)
    for row in answer.json:
        wanted = SECRETS.get(row["source"], ())
        assert row == {
            "source": row["source"],
            "last_delivery_at": None,
            "deliveries": {"done": 0, "ignored": 0, "dead": 0},
            "events": {"taken": {}, "ignored": {}, "invalid": 0},
            "signature": {
                "check": "off" if wanted else "none",
                "settings": dict.fromkeys(wanted, False),
            },
            "set_up": None,
            "earlier_set_ups": [],
        }


async def test_what_came_of_a_senders_deliveries(relay: Relay, redis: Redis) -> None:
    """The machine form has the time, the fates, and the events by type and word."""
    await redis.hset(keys.SENDERS, mapping=FACTS)
    rows = {row["source"]: row for row in (await relay("senders", "--json")).json}
    row = rows["sendgrid"]
    assert row["last_delivery_at"] == "2026-01-01T00:00:00.000Z"
    assert row["deliveries"] == {"done": 3, "ignored": 0, "dead": 1}
    assert row["events"] == {
        "taken": {"Click": 1, "Open": 7},
        "ignored": {"deferred": 2},
        "invalid": 5,
    }
    assert rows["pixel"]["last_delivery_at"] is None


async def test_a_secret_is_told_by_its_name_only(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a setting is set is shown, its value never."""
    monkeypatch.setitem(SECRETS, "sendgrid", ("MAILGUN_SIGNING_KEY",))
    monkeypatch.setenv("MAILGUN_SIGNING_KEY", SECRET)
    told = await relay("senders", "--json")
    (row,) = (row for row in told.json if row["source"] == "sendgrid")
    assert row["signature"] == {"check": "on", "settings": {"MAILGUN_SIGNING_KEY": True}}
    assert SECRET not in told.out + (await relay("senders")).out


async def test_beside_a_trial_no_signature_is_said_to_be_checked(
    relay: Relay, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It checks none, whatever is set for the relay itself."""
    home = Home(tmp_path / "home")
    own = home.trial()
    own.make()
    home.write_address(Address(redis_url, own.path, trial=True))
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("RELAY_HOME", str(home.path))
    monkeypatch.setenv("MAILGUN_SIGNING_KEY", SECRET)
    told = await relay("senders", "--json")
    assert {row["signature"]["check"] for row in told.json} <= {"off", "none"}
    assert "checks no signatures" in (await relay("senders")).out
    found = (await relay("doctor", "--offline", "--no-event", "--json")).json["findings"]
    assert [one["check"] for one in found if one["check"].startswith("sender")] == []
    assert "trial" in {one["check"] for one in found}


async def test_the_table_says_it_in_words(relay: Relay, redis: Redis) -> None:
    """One line a source, and below it what to set for a sender that delivers without being verified."""
    before = (await relay("senders")).out
    assert "SENDGRID_PUBLIC_KEY" not in before
    await redis.hset(keys.SENDERS, mapping=FACTS)
    lines = [line.strip() for line in (await relay("senders")).out.splitlines()]
    (row,) = (line for line in lines if line.startswith("sendgrid "))
    assert "2026-01-01T00:00:00.000Z" in row
    assert "Click 1, Open 7; ignored: deferred 2; invalid 5" in row
    assert row.split()[2:4] == ["4", "1"]
    assert row.split()[-1] == "off"
    (pixel,) = (line for line in lines if line.startswith("pixel "))
    assert pixel.split() == ["pixel", "never", "0", "0", "token", "only"]
    assert "sendgrid: its signature is checked once SENDGRID_PUBLIC_KEY is set." in lines
    assert "What is dead and why: `relay dead list --source SOURCE`." in lines


async def test_half_a_signature_is_told_at_once(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source of whose settings only some are set is named before it delivers: it may be refused."""
    wanted = ("MANDRILL_WEBHOOK_KEY", "MANDRILL_WEBHOOK_URL")
    monkeypatch.setitem(SECRETS, "sendgrid", wanted)
    monkeypatch.setenv("MANDRILL_WEBHOOK_URL", "https://relay.example.com/hooks/mandrill")
    shown = (await relay("senders")).out
    assert "sendgrid: without MANDRILL_WEBHOOK_KEY its signature cannot be checked" in shown
    assert "incomplete" in shown


async def test_the_key_of_a_set_up_is_shown(relay: Relay, redis: Redis) -> None:
    """The table and the machine form tell callback, key and time, until the key expires."""
    await keep_set_up(redis, "sfmc", 1_767_225_600_000, SetUp("65b885ab", "verification-key-1"))
    rows = {row["source"]: row["set_up"] for row in (await relay("senders", "--json")).json}
    assert rows.pop("sfmc") == {
        "callback_id": "65b885ab",
        "verification_key": "verification-key-1",
        "received_at": "2026-01-01T00:00:00.000Z",
    }
    assert set(rows.values()) == {None}
    (line,) = (line for line in (await relay("senders")).out.splitlines() if "callback" in line)
    assert line == (
        "sfmc: to switch callback 65b885ab on, give it back its verification key verification-key-1"
        " (it came at 2026-01-01T00:00:00.000Z)."
    )
    await redis.delete(keys.set_up("sfmc"))
    assert "callback" not in (await relay("senders")).out


async def test_an_earlier_key_of_a_set_up_stays_in_sight(relay: Relay, redis: Redis) -> None:
    """A set-up is not signed: a later one that somebody else sent does not take the right one away."""
    for n, key in enumerate(("ours", "theirs")):
        await keep_set_up(redis, "sfmc", 1_767_225_600_000 + n, SetUp("65b885ab", key))
    (row,) = (one for one in (await relay("senders", "--json")).json if one["source"] == "sfmc")
    assert row["set_up"]["verification_key"] == "theirs"
    assert [one["verification_key"] for one in row["earlier_set_ups"]] == ["ours"]
    lines = (await relay("senders")).out.splitlines()
    shown = [line.partition("key ")[2].split()[0] for line in lines if "callback" in line]
    assert shown == ["theirs", "ours"]


async def test_two_settings_are_named_in_the_plural(relay: Relay, redis: Redis) -> None:
    """A sender whose signature takes two settings is told both."""
    await redis.hset(keys.SENDERS, mapping={"mandrill:last": 1, "mandrill:deliveries:done": 1})
    shown = (await relay("senders")).out
    assert "once MANDRILL_WEBHOOK_KEY and MANDRILL_WEBHOOK_URL are set." in shown

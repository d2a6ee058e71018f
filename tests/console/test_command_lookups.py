"""`relay enrich`, `scores`, `verify`, `send-times`, at stand-ins served on loopback."""

from __future__ import annotations

import hashlib

import pytest
from redis.asyncio import Redis

from pipeline import keys, paces
from sandbox.faults import Fault, quota_exceeded, throttled
from sandbox.people import PEOPLE
from tests.console.conftest import Relay
from tests.vendors import Sandbox

pytestmark = pytest.mark.anyio

MARA = "mara.quill@example.com"
HASH = hashlib.sha256(MARA.encode()).hexdigest()
CAMPAIGN = ("--start", "2026-01-31T08:00", "--end", "2026-02-01T08:00+00:00")
LOOKUPS = (
    ("enrich", "--email", MARA),
    ("scores", MARA),
    ("verify", MARA),
    ("send-times", *CAMPAIGN, MARA),
)


# enrich -------------------------------------------------------------------------------------------------


async def test_somebody_is_found_by_an_address(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """Everything that came is shown, in the vendor's columns; nothing of it is kept here."""
    answer = await relay_at_vendors("enrich", "--email", f" {MARA} ", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert answer.json[0]["UUID"] == PEOPLE[0]["UUID"]
    shown = await relay_at_vendors("enrich", "--email", MARA)
    assert f"UUID                         {PEOPLE[0]['UUID']}" in shown.out
    nobody = await relay_at_vendors("enrich", "--email", "nobody@example.com", "--json")
    assert (nobody.status, nobody.json) == (0, [])
    assert "knows nobody" in (await relay_at_vendors("enrich", "--email", "a@b.example")).out
    assert await redis.keys("*") == [keys.DIALECTS.encode()]


@pytest.mark.usefixtures("redis")
async def test_somebody_is_found_by_a_hash_or_a_number(relay_at_vendors: Relay) -> None:
    """One fact is enough, whichever."""
    by_hash = await relay_at_vendors("enrich", "--hash", HASH.upper(), "--json")
    by_phone = await relay_at_vendors("enrich", "--phone", "+12185550101", "--json")
    assert by_hash.json[0]["UUID"] == by_phone.json[0]["UUID"] == PEOPLE[0]["UUID"]


# scores -------------------------------------------------------------------------------------------------


async def test_scores_are_told_in_the_order_asked(relay_at_vendors: Relay, box: Sandbox) -> None:
    """The addresses leave hashed and are answered under their names; more than thirty are no matter."""
    others = [f"person{n}@example.com" for n in range(40)]
    answer = await relay_at_vendors("scores", *others, MARA, "--json")
    assert (answer.status, answer.err) == (0, "")
    assert [score["address"] for score in answer.json] == [*others, MARA]
    assert answer.json[-1]["matched"] == "yes"
    assert isinstance(answer.json[-1]["score"], int)
    asked = [each for request in box.memory.score_requests for each in request["emailAddresses"]]
    assert len(asked) == 41
    assert not any("@" in each for each in asked)


async def test_addresses_leave_as_the_settings_say(
    relay_at_vendors: Relay, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With EMAIL_FORMAT=plain they leave plain; a selection is passed on and shown alone."""
    monkeypatch.setenv("EMAIL_FORMAT", "plain")
    words = ("scores", MARA, "--select", "score,devices", "--select", "frequency")
    shown = await relay_at_vendors(*words)
    assert shown.out.split()[:5] == ["address", "matched", "score", "devices", "frequency"]
    assert "Desktop, Mobile" in shown.out
    (request,) = box.memory.score_requests
    assert request["emailAddresses"] == [MARA]
    assert request["scoreSelection"] == ["score", "devices", "frequency"]


# verify -------------------------------------------------------------------------------------------------


async def test_an_address_is_verified(relay_at_vendors: Relay) -> None:
    """Whatever the result, the question was answered; GET is asked for by its option."""
    answer = await relay_at_vendors("verify", MARA, "--json")
    assert (answer.status, answer.err) == (0, "")
    assert answer.json["result"] == "Verified"
    by_get = await relay_at_vendors("verify", MARA, "--get", "--json")
    assert by_get.json == answer.json
    assert f"{MARA}: Verified" in (await relay_at_vendors("verify", MARA)).out
    wrong = await relay_at_vendors("verify", "not an address", "--json")
    assert (wrong.status, wrong.json["result"]) == (0, "Invalid")


# send-times ---------------------------------------------------------------------------------------------


async def test_send_times_are_told_under_the_names_asked(relay_at_vendors: Relay) -> None:
    """Hashes that are answered are shown as the addresses behind them; times are UTC."""
    shown = await relay_at_vendors("send-times", *CAMPAIGN, MARA, "nobody@example.com")
    assert shown.status == 0
    assert MARA in shown.out
    assert HASH not in shown.out
    assert "From 2026-01-31T08:00:00 to 2026-02-01T08:00:00" in shown.out
    answer = await relay_at_vendors(
        "send-times", *CAMPAIGN, "--default", "2026-02-01T09:00:00+01:00", MARA, "--json"
    )
    assert (answer.status, answer.err) == (0, "")
    assert answer.json["default"] == "2026-02-01T08:00:00"
    assert [entry["emailAddress"] for entry in answer.json["entries"]] == [HASH]
    assert answer.json["asked"] == {HASH: MARA}


# all ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["enrich"],
        ["enrich", "--email", MARA, "--phone", "+12185550101"],
        ["enrich", "--email", "nobody"],
        ["enrich", "--email", " "],
        ["enrich", "--hash", "abc"],
        ["scores"],
        ["scores", "nobody"],
        ["scores", MARA, "--select", "colour"],
        ["verify"],
        ["verify", " "],
        ["verify", HASH],
        ["verify", "\udcff@example.com"],
        ["enrich", "--phone", "\udcff"],
        ["send-times", MARA],
        ["send-times", *CAMPAIGN],
        ["send-times", "--start", "soon", "--end", "2026-02-01", MARA],
        ["send-times", "--start", "2026-02-02", "--end", "2026-02-01", MARA],
        ["send-times", "--start", "2026-02-02", "--end", "2026-02-02", MARA],
        ["send-times", *CAMPAIGN, "--default", "later", MARA],
    ],
)
@pytest.mark.usefixtures("redis")
async def test_wrong_words_are_refused(words: list[str], relay_at_vendors: Relay) -> None:
    """Bad usage ends with 2 and a sentence, and repeats no address."""
    answer = await relay_at_vendors(*words, "--json")
    assert (answer.status, answer.err) == (2, "")
    assert answer.json["error"]
    assert MARA not in answer.json["error"]


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("words", LOOKUPS, ids=lambda words: words[0])
async def test_a_missing_key_is_named(
    words: tuple[str, ...], relay_at_vendors: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its vendor's key a command ends with 2 and the setting's name."""
    name = "AUDIENCELAB_API_KEY" if words[0] == "enrich" else "AUDIENCEPOINT_API_KEY"
    monkeypatch.delenv(name)
    answer = await relay_at_vendors(*words)
    assert (answer.status, answer.out) == (2, "")
    assert f"{name} is not set" in answer.err


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("words", LOOKUPS, ids=lambda words: words[0])
@pytest.mark.parametrize("body", ["<html>Log in</html>", {"status": "NOT_FOUND"}, [1]])
async def test_a_strange_answer_is_one_sentence(
    body: object, words: tuple[str, ...], relay_at_vendors: Relay, box: Sandbox
) -> None:
    """What is no answer fails with a sentence without the address; an odd one never breaks a command."""
    box.faults.add(Fault(endpoint="*", status=200, body=body))
    answer = await relay_at_vendors(*words, "--json")
    nobody = words[0] == "enrich" and isinstance(body, dict)
    assert (answer.status, answer.err) == (0 if nobody else 1, "")
    assert MARA not in answer.out
    if not nobody:
        assert answer.json["error"].count("\n") == 0
        assert "status" in answer.json


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:1/0"])
@pytest.mark.parametrize("words", LOOKUPS[1:], ids=lambda words: words[0])
async def test_audiencepoint_is_asked_without_redis(
    words: tuple[str, ...],
    url: str | None,
    relay_at_vendors: Relay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What changes nothing and remembers nothing needs no Redis; where there is none, nobody shares the rate."""
    if url is None:
        monkeypatch.delenv("REDIS_URL")
    else:
        monkeypatch.setenv("REDIS_URL", url)
    assert (await relay_at_vendors(*words)).status == 0


@pytest.mark.parametrize("words", LOOKUPS[1:], ids=lambda words: words[0])
async def test_each_call_takes_a_turn_of_the_rate(
    words: tuple[str, ...], relay_at_vendors: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AUDIENCEPOINT_RATE is shared with the workers, call by call: more than thirty addresses are two."""
    monkeypatch.setenv("AUDIENCEPOINT_RATE", "50")
    others = [f"person{n}@example.com" for n in range(0 if words[0] == "verify" else 40)]
    assert (await relay_at_vendors(*words, *others)).status == 0
    assert await redis.exists("{relay}:rate:audiencepoint")
    turns = await redis.hget(keys.PREFIX + "turns", "audiencepoint")
    assert turns == (b"2" if others else b"1")


@pytest.mark.parametrize("words", LOOKUPS, ids=lambda words: words[0])
async def test_a_429_slows_the_workers_down_too(
    words: tuple[str, ...], relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """What a vendor says to a call by hand it means for all; the quota's 429 is no matter of pace."""
    pace = keys.pace("audiencelab" if words[0] == "enrich" else "audiencepoint")
    box.faults.add(quota_exceeded("*"))
    assert (await relay_at_vendors(*words)).status == 1
    assert not await redis.exists(pace)
    box.faults.clear()
    box.faults.add(throttled("*"))
    assert (await relay_at_vendors(*words)).status == 1
    assert await redis.hget(pace, "share") == b"0.5"


async def test_calls_that_go_well_raise_a_slower_pace(
    relay_at_vendors: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two is known to have gone well when the second is made."""
    monkeypatch.setenv("AUDIENCEPOINT_RATE", "50")
    await paces.slow_down(redis, "audiencepoint", 50, "429", 1)
    others = [f"person{n}@example.com" for n in range(40)]
    assert (await relay_at_vendors("scores", *others)).status == 0
    share = float(await redis.hget(keys.pace("audiencepoint"), "share") or 1)
    assert share == pytest.approx(0.5002)

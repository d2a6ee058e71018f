"""`relay audiences list|create|delete|attributes|check`, at a stand-in served on loopback."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from pipeline import keys
from tests.console.conftest import HOOK_TOKEN, Relay
from tests.vendors import Sandbox

pytestmark = pytest.mark.anyio

HOOK = f"https://relay.example.com/hooks/audience/{HOOK_TOKEN}"
READERS = ("audiences", "create", "--name", "Readers", "--filters", '{"city": ["Bergen"]}')
DIALECTS = ("observed", "documented")


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_audiences_are_listed(dialect: str, relay_at_vendors: Relay, box: Sandbox) -> None:
    """Each is shown with its refresh in days; of its webhook only the host."""
    box.settings.change({"dialect": dialect})
    buyers = next(iter(box.memory.account.audiences.values()))
    buyers.webhook_url = "https://crm.example.org/in?key=somebodys-secret"
    listed = await relay_at_vendors("audiences", "list", "--json")
    assert (listed.status, listed.err) == (0, "")
    first = listed.json[0]
    assert (first["id"], first["name"]) == (buyers.id, "Buyers of lamps")
    assert (first["scheduled_refresh"], first["refresh_interval_d"]) == (True, 30)
    assert first["webhook_host"] == "crm.example.org"
    shown = await relay_at_vendors("audiences", "list")
    assert buyers.id in shown.out
    assert "somebodys-secret" not in shown.out + listed.out
    box.memory.account.clear()
    assert (await relay_at_vendors("audiences", "list", "--json")).json == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_audience_is_made_and_its_hook_is_to_be_pasted(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """The API cannot set the webhook: the URL is told, masked unless asked for; the making is audited."""
    box.settings.change({"dialect": dialect})
    answer = await relay_at_vendors(*READERS, "--tag", "readers", "--json")
    assert (answer.status, answer.err) == (0, "")
    made = list(box.memory.account.audiences.values())[-1]
    assert (made.name, made.webhook_url) == ("Readers", None)
    masked = "https://relay.example.com/hooks/audience/****?tag=readers"
    assert answer.json == {"id": made.id, "webhook_url_to_paste": masked}
    entries = [entry for _, entry in await redis.xrange(keys.AUDIT)]
    assert [entry[b"what"] for entry in entries] == [
        b"audiences create",
        b"audiences create finished",
    ]
    assert orjson.loads(entries[1][b"filter"]) == {"name": "Readers", "id": made.id}
    shown = await relay_at_vendors(*READERS)
    assert HOOK_TOKEN not in shown.out
    assert "cannot set its webhook" in shown.out
    assert HOOK in (await relay_at_vendors(*READERS, "--show-url")).out


@pytest.mark.usefixtures("redis")
async def test_filters_come_from_a_file_and_segments_are_filters_too(
    relay_at_vendors: Relay, box: Sandbox, tmp_path: Path
) -> None:
    """`--filters` may name a file; `--segment` alone is enough."""
    file = tmp_path / "filters.json"
    file.write_text('{"age": {"minAge": 30}}')
    named = ("audiences", "create", "--name", "Old", "--json")
    assert (await relay_at_vendors(*named, "--filters", str(file))).status == 0
    by_segment = await relay_at_vendors(*named, "--segment", "segment-5", "--days-back", "3")
    assert by_segment.status == 0
    assert len(box.memory.account.audiences) == 4


@pytest.mark.parametrize(
    "words",
    [
        ["--name", "Readers"],
        ["--name", " ", "--filters", '{"city": ["Bergen"]}'],
        ["--name", "Readers", "--filters", '{"city": '],
        ["--name", "Readers \udcff", "--filters", '{"city": ["Bergen"]}'],
        ["--name", "Readers", "--filters", "{}"],
        ["--name", "Readers", "--filters", "[1]"],
        ["--name", "Readers", "--filters", "no-such-file.json"],
        ["--name", "Readers", "--filters", "bad\0name"],
        ["--name", "Readers", "--segment", "s", "--days-back", "0"],
        ["--name", "Readers", "--filters", '[{"field": "AGE"}]', "--segment", "s"],
        ["--name", "Readers", "--filters", '{"city": ["Bergen"]}', "--tag", "two words"],
    ],
)
@pytest.mark.usefixtures("redis")
async def test_wrong_words_are_refused(
    words: list[str], relay_at_vendors: Relay, box: Sandbox
) -> None:
    """A wrong option is bad usage, and nothing is made."""
    answer = await relay_at_vendors("audiences", "create", *words, "--json")
    assert (answer.status, answer.err) == (2, "")
    assert answer.json["error"]
    assert len(box.memory.account.audiences) == 2


@pytest.mark.usefixtures("redis")
async def test_without_a_public_address_the_audience_is_made_all_the_same(
    relay_at_vendors: Relay, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PUBLIC_URL is only needed to tell the URL to paste, and is asked for in words."""
    monkeypatch.delenv("PUBLIC_URL")
    assert (await relay_at_vendors(*READERS, "--json")).json["webhook_url_to_paste"] is None
    shown = await relay_at_vendors(*READERS)
    assert shown.status == 0
    assert "PUBLIC_URL is not set" in shown.out
    assert len(box.memory.account.audiences) == 4
    assert (await relay_at_vendors("audiences", "check")).status == 2
    monkeypatch.delenv("AUDIENCELAB_API_KEY")
    missing = await relay_at_vendors(*READERS)
    assert missing.status == 2
    assert "AUDIENCELAB_API_KEY" in missing.err


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_audience_is_deleted(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """It goes once it is confirmed; a second time nobody knows it."""
    box.settings.change({"dialect": dialect})
    buyers, nobody = box.memory.account.audiences
    assert (await relay_at_vendors("audiences", "delete", buyers)).status == 2
    gone = await relay_at_vendors("audiences", "delete", buyers, "--yes", "--json")
    assert (gone.status, gone.json) == (0, {"deleted": buyers})
    assert list(box.memory.account.audiences) == [nobody]
    assert (await relay_at_vendors("audiences", "delete", buyers, "--yes")).status == 1
    entries = [entry for _, entry in await redis.xrange(keys.AUDIT)]
    assert [entry[b"what"].decode() for entry in entries] == [
        *["audiences delete", "audiences delete finished"],
        *["audiences delete", "audiences delete failed"],
    ]


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_attributes_are_listed(dialect: str, relay_at_vendors: Relay, box: Sandbox) -> None:
    """All of them, or those of one kind; a kind that nobody knows is a failure."""
    box.settings.change({"dialect": dialect})
    every = await relay_at_vendors("audiences", "attributes", "--json")
    assert every.status == 0
    assert all(row["name"] for row in every.json)
    assert every.json[0]["name"] in (await relay_at_vendors("audiences", "attributes")).out
    if dialect == "observed":
        some = await relay_at_vendors("audiences", "attributes", "industries", "--json")
        assert {row["kind"] for row in some.json} == {"industries"}
        assert (await relay_at_vendors("audiences", "attributes", "colours")).status == 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_check_tells_here_elsewhere_and_nowhere(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """Each audience is judged, and for those without a webhook the URL to paste is told."""
    box.settings.change({"dialect": dialect})
    buyers, nobody = box.memory.account.audiences.values()
    buyers.webhook_url = f"{HOOK}?tag=buyers"
    await redis.hset(keys.SENDERS, "audience:last", 1_767_225_600_000)
    answer = await relay_at_vendors("audiences", "check", "--json")
    assert (answer.status, answer.err, answer.json["ok"]) == (0, "", True)
    rows = {row["id"]: row for row in answer.json["audiences"]}
    assert rows[buyers.id]["webhook"]["points"] == "here"
    assert rows[buyers.id]["webhook"]["tag"] == "buyers"
    assert rows[buyers.id]["last_delivery"] == "2026-01-01T00:00:00.000Z"
    assert rows[nobody.id]["webhook"]["points"] == "nowhere"
    shown = await relay_at_vendors("audiences", "check", "--show-url", "--tag", "nobody")
    assert f"{HOOK}?tag=nobody" in shown.out
    nobody.webhook_url = "https://relay.example.com/hooks/audience/an-old-token"
    refused = await relay_at_vendors("audiences", "check")
    assert refused.status == 1
    assert f"{nobody.id}: the token in it is not valid" in refused.out
    assert "an-old-token" not in refused.out

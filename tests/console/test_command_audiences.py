"""`relay audiences …`, at a stand-in served on loopback."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from console.vendors import shown
from pipeline import keys
from sandbox.faults import Fault
from tests.console.conftest import HOOK_TOKEN, Relay, audited
from tests.vendors import Sandbox

pytestmark = pytest.mark.anyio

HOOK = f"https://relay.example.com/hooks/audience/{HOOK_TOKEN}"
READERS = ("audiences", "create", "--name", "Readers", "--filters", '{"city": ["Bergen"]}')


@pytest.mark.usefixtures("redis")
async def test_audiences_are_listed(dialect: str, relay_at_vendors: Relay, box: Sandbox) -> None:
    """Each is shown with its refresh in days; of its webhook only the host."""
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


async def test_an_audience_is_made_and_its_hook_is_to_be_pasted(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """The API cannot set the webhook: the URL is told, masked unless asked for; the making is audited."""
    answer = await relay_at_vendors(*READERS, "--tag", "readers", "--json")
    assert (answer.status, answer.err) == (0, "")
    made = list(box.memory.account.audiences.values())[-1]
    assert (made.name, made.webhook_url) == ("Readers", None)
    masked = "https://relay.example.com/hooks/audience/****?tag=readers"
    assert answer.json == {"id": made.id, "webhook_url_to_paste": masked}
    (begun, finished) = await audited(redis)
    assert (begun[0], finished[0]) == ("audiences create", "audiences create finished")
    assert finished[2] == {"name": "Readers", "id": made.id}
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


async def test_an_audience_is_deleted(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """It goes once it is confirmed; a second time nobody knows it."""
    buyers, nobody = box.memory.account.audiences
    assert (await relay_at_vendors("audiences", "delete", buyers)).status == 2
    gone = await relay_at_vendors("audiences", "delete", buyers, "--yes", "--json")
    assert (gone.status, gone.json) == (0, {"deleted": buyers})
    assert list(box.memory.account.audiences) == [nobody]
    assert (await relay_at_vendors("audiences", "delete", buyers, "--yes")).status == 1
    assert [what for what, *_ in await audited(redis)] == [
        *["audiences delete", "audiences delete finished"],
        *["audiences delete", "audiences delete failed"],
    ]


@pytest.mark.usefixtures("redis")
async def test_attributes_are_listed(dialect: str, relay_at_vendors: Relay, box: Sandbox) -> None:
    """All of them, or those of one kind."""
    every = await relay_at_vendors("audiences", "attributes", "--json")
    assert every.status == 0
    assert all(row["name"] for row in every.json)
    assert every.json[0]["name"] in (await relay_at_vendors("audiences", "attributes")).out
    if dialect == "observed":
        some = await relay_at_vendors("audiences", "attributes", "industries", "--json")
        assert {row["kind"] for row in some.json} == {"industries"}


@pytest.mark.usefixtures("redis")
async def test_a_list_of_attributes_that_is_none_is_bad_usage(
    relay_at_vendors: Relay, box: Sandbox
) -> None:
    """The lists are a closed set: the word and the set are named, and nobody is asked."""
    answer = await relay_at_vendors("audiences", "attributes", "colours")
    assert (answer.status, answer.out) == (2, "")
    for word in ("colours", "segments", "industries", "departments", "seniority", "sic"):
        assert word in answer.err
    assert box.memory.calls_to("attributes") == 0


async def test_check_tells_here_elsewhere_and_nowhere(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """Each audience is judged, and for those without a webhook the URL to paste is told."""
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


async def test_an_audience_is_shown(dialect: str, relay_at_vendors: Relay, box: Sandbox) -> None:
    """All that is told of it; of its webhook, and of any other URL, only the host."""
    buyers = next(iter(box.memory.account.audiences.values()))
    buyers.webhook_url = "https://crm.example.org/in?key=somebodys-secret"
    answer = await relay_at_vendors("audiences", "show", buyers.id, "--json")
    assert (answer.status, answer.err) == (0, "")
    assert answer.json["name"] == "Buyers of lamps"
    assert answer.json["webhook_host"] == "crm.example.org"
    assert answer.json["other"] == {}
    shown = await relay_at_vendors("audiences", "show", buyers.id)
    assert f"id                           {buyers.id}" in shown.out
    assert "somebodys-secret" not in shown.out + answer.out
    assert (await relay_at_vendors("audiences", "show", "nobody")).status == 1
    assert (await relay_at_vendors("audiences", "show", "a/b")).status == 2


def test_of_urls_that_a_vendor_tells_the_host_is_left() -> None:
    """Path, query and password may be secrets of somebody's; what is no URL stays."""
    told: dict[str, object] = {
        "last_error": 'POST "https://me:word@crm.example.org:8443/in/secret?k=v" failed, then http://b.example',
        "deep": [{"url": "HTTPS://crm.example.org/secret"}],
        "count": 7,
    }
    assert shown(told) == {
        "last_error": 'POST "https://crm.example.org:8443" failed, then http://b.example',
        "deep": [{"url": "HTTPS://crm.example.org"}],
        "count": 7,
    }


async def test_an_audience_is_looked_at_before_it_is_made(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """How many would be in it, and a few of them; nothing is made, so nothing is audited."""
    words = ("audiences", "preview", "--filters", '{"city": ["Bergen"]}')
    answer = await relay_at_vendors(*words, "--limit", "3", "--days-back", "2", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert (answer.json["count"], len(answer.json["rows"])) == (120, 3)
    assert "FIRST_NAME" in answer.json["field_coverage"]
    table = await relay_at_vendors(*words)
    assert "120 people fit; 10 of them are shown." in table.out
    assert answer.json["rows"][0]["UUID"] in table.out
    none = await relay_at_vendors(*words, "--limit", "0")
    assert none.out == "120 people fit; 0 of them are shown.\n"
    assert len(box.memory.account.audiences) == 2
    assert await audited(redis) == []


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--filters", '[{"field": "AGE", "operator": "equals", "value": 3}]'],
        ["--segment", "s", "--days-back", "11"],
        ["--segment", "s", "--limit", "501"],
        ["--segment", "\udcff"],
    ],
)
async def test_a_preview_that_cannot_be_meant(
    words: list[str], relay_at_vendors: Relay, box: Sandbox
) -> None:
    """What AudienceLab is known to refuse is bad usage, and is not asked."""
    assert (await relay_at_vendors("audiences", "preview", *words)).status == 2
    assert box.memory.calls_to("preview") == 0


async def test_an_audience_about_a_topic_is_ordered(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """The vendor's word for how far it is, and an entry in the audit; without words nothing is ordered."""
    words = ("audiences", "custom", "--topic", "Heat pumps", "--description", "Who compares prices")
    answer = await relay_at_vendors(*words, "--json")
    assert (answer.status, answer.json) == (0, {"status": "processing"})
    assert await audited(redis) == [
        ("audiences custom", 1, {"topic": "Heat pumps"}),
        ("audiences custom finished", 1, {"topic": "Heat pumps"}),
    ]
    assert "processing" in (await relay_at_vendors(*words)).out
    empty = await relay_at_vendors(*words[:4], "--description", " ")
    assert (empty.status, box.memory.calls_to("custom-audience")) == (2, 2)


async def test_an_order_whose_answer_is_lost_is_unclear(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """A second order would make a second audience: the command says to look first, and so does the audit."""
    box.faults.add(Fault(endpoint="custom-audience", reset="after"))
    answer = await relay_at_vendors("audiences", "custom", "--topic", "t", "--description", "d")
    assert answer.status == 1
    assert "look before you try again" in answer.err
    assert [what for what, *_ in await audited(redis)][1] == "audiences custom unclear"


async def test_the_people_of_an_audience_are_read(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them as JSON Lines, page after page, none twice; how many had been read is audited."""
    monkeypatch.setenv("AUDIENCELAB_RATE", "0")
    buyers = next(iter(box.memory.account.audiences.values()))
    buyers.people, buyers.looks = 25, 0
    words = ("audiences", "records", buyers.id)
    answer = await relay_at_vendors(*words, "--page-size", "10", "--json")
    assert (answer.status, answer.err) == (0, "")
    people = [orjson.loads(line) for line in answer.out.splitlines()]
    assert len({person["UUID"] for person in people}) == len(people) == 25
    assert box.memory.calls_to("audience") == 3
    told = {"format": "jsonl", "id": buyers.id}
    assert await audited(redis) == [
        ("audiences records", 1, told),
        ("audiences records finished", 25, told),
    ]
    some = await relay_at_vendors(*words, "--limit", "2", "--json")
    assert some.out.splitlines() == answer.out.splitlines()[:2]
    table = await relay_at_vendors(*words)
    assert people[19]["UUID"] in table.out
    assert people[20]["UUID"] not in table.out
    assert "20 shown" in table.out


async def test_an_audience_that_is_not_filled_yet(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """Nobody yet is no failure; an id that nobody knows is one."""
    buyers = next(iter(box.memory.account.audiences.values()))
    buyers.looks = 9
    words = ("audiences", "records", buyers.id)
    assert "Nobody, or nobody yet" in (await relay_at_vendors(*words)).out
    assert (await relay_at_vendors(*words, "--json")).out == ""
    unknown = await relay_at_vendors("audiences", "records", "nobody", "--json")
    assert (unknown.status, unknown.json["kind"], unknown.json["read"]) == (1, "NotFound", 0)
    assert (await audited(redis))[-1][:2] == ("audiences records failed", 0)


async def test_a_reading_that_breaks_off_says_where(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who came is printed, the error is one more line, and from the page that it names the rest is read."""
    monkeypatch.setenv("AUDIENCELAB_RATE", "0")
    buyers = next(iter(box.memory.account.audiences.values()))
    buyers.people, buyers.looks = 25, 0
    words = ("audiences", "records", buyers.id, "--page-size", "10", "--json")
    box.faults.add(Fault(endpoint="audience", times=1), Fault(endpoint="audience", status=503))
    answer = await relay_at_vendors(*words)
    *people, error = [orjson.loads(line) for line in answer.out.splitlines()]
    assert (answer.status, len(people)) == (1, 10)
    assert (error["page"], error["read"], error["kind"]) == (2, 10, "Unavailable")
    assert (await audited(redis))[-1][:2] == ("audiences records failed", 10)
    box.faults.clear()
    rest = await relay_at_vendors(*words, "--first-page", "2")
    assert len(rest.out.splitlines()) == 15
    assert people[0]["UUID"] not in rest.out


async def test_pages_are_read_at_the_rate_that_workers_share(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page takes a turn of AUDIENCELAB_RATE: the next caller's turn is later by as many."""
    monkeypatch.setenv("AUDIENCELAB_RATE", "50")
    buyers = next(iter(box.memory.account.audiences.values()))
    buyers.people, buyers.looks = 25, 0
    words = ("audiences", "records", buyers.id, "--page-size", "10", "--json")
    assert len((await relay_at_vendors(*words)).out.splitlines()) == 25
    assert await redis.exists("{relay}:rate:audiencelab")

"""`relay pixels …`, at a stand-in served on loopback."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

import pytest
from redis.asyncio import Redis

from console.redis_server import EmbeddedRedis
from console.vendors import hidden
from pipeline import dialects, keys
from pipeline.home import Address, Home
from pipeline.settings import Settings
from sandbox.faults import Fault
from tests.console.conftest import HOOK_TOKEN, OTHER_TOKEN, Relay, audited
from tests.vendors import KEY, Sandbox

pytestmark = pytest.mark.anyio

HOOK = f"https://relay.example.com/hooks/pixel/{HOOK_TOKEN}"
INN = ("pixels", "create", "--website-url", "https://inn.example.com", "--website-name", "Inn")


@pytest.mark.usefixtures("redis")
async def test_pixels_are_listed_with_both_ids(
    dialect: str, relay_at_vendors: Relay, box: Sandbox
) -> None:
    """Both ids of each are shown, and of its webhook only the host."""
    shop = next(iter(box.memory.account.pixels.values()))
    shop.webhook_url = "https://crm.example.org/in?key=somebodys-secret"
    listed = await relay_at_vendors("pixels", "list", "--json")
    assert (listed.status, listed.err) == (0, "")
    first, second = listed.json
    assert first == {
        "id": shop.id,
        "provider_id": shop.provider_id,
        "website_name": "Shop",
        "website_url": "https://example.com",
        "install_url": shop.install_url,
        "last_sync": shop.last_sync,
        "webhook_host": "crm.example.org",
    }
    assert second["webhook_host"] is None
    shown = await relay_at_vendors("pixels", "list")
    assert shown.status == 0
    assert shop.id in shown.out
    assert shop.provider_id in shown.out
    assert "somebodys-secret" not in shown.out + listed.out


@pytest.mark.usefixtures("redis")
async def test_an_account_without_pixels(relay_at_vendors: Relay, box: Sandbox) -> None:
    """An empty account is an empty list, not an error."""
    box.memory.account.clear()
    assert (await relay_at_vendors("pixels", "list", "--json")).json == []
    assert "No pixels." in (await relay_at_vendors("pixels", "list")).out
    assert (await relay_at_vendors("pixels", "check", "--json")).json["pixels"] == []


async def test_a_new_pixel_gets_this_relays_hook(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """The vendor gets the whole URL with a token of source pixel; it is shown masked and audited without it."""
    answer = await relay_at_vendors(*INN, "--tag", "inn", "--json")
    assert (answer.status, answer.err) == (0, "")
    made = list(box.memory.account.pixels.values())[-1]
    assert (made.website_name, made.website_url) == ("Inn", "https://inn.example.com")
    assert made.webhook_url == f"{HOOK}?tag=inn"
    assert answer.json == {
        "id": made.id,
        "provider_id": made.provider_id,
        "install_url": made.install_url,
        "webhook_url": "https://relay.example.com/hooks/pixel/****?tag=inn",
    }
    words = {"website": "inn.example.com", "tag": "inn"}
    assert await audited(redis) == [
        ("pixels create", 1, words),
        ("pixels create finished", 1, {**words, "id": made.id}),
    ]
    # what worked is remembered for all
    assert (await dialects.read(redis))["create_pixel"] == dialect


@pytest.mark.usefixtures("redis")
async def test_the_hook_is_shown_whole_only_when_asked_for(
    relay_at_vendors: Relay, box: Sandbox
) -> None:
    """The token appears with --show-url alone; --no-webhook leaves the webhook unset."""
    masked = await relay_at_vendors(*INN)
    assert masked.status == 0
    assert HOOK_TOKEN not in masked.out + masked.err
    assert HOOK in (await relay_at_vendors(*INN, "--show-url")).out
    v4 = await relay_at_vendors(*INN, "--no-webhook", "--version", "v4", "--json")
    assert v4.json["webhook_url"] is None
    made = box.memory.account.pixels[v4.json["id"]]
    assert (made.webhook_url, made.version) == (None, "v4")


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("PUBLIC_URL", INN, "PUBLIC_URL is not set"),
        ("PUBLIC_URL", ("pixels", "check"), "PUBLIC_URL is not set"),
        ("HOOK_TOKENS", INN, "HOOK_TOKENS"),
        ("AUDIENCELAB_API_KEY", INN, "AUDIENCELAB_API_KEY is not set"),
        ("AUDIENCELAB_API_KEY", ("pixels", "list"), "AUDIENCELAB_API_KEY is not set"),
        ("AUDIENCELAB_API_KEY", ("pixels", "check"), "AUDIENCELAB_API_KEY is not set"),
        ("AUDIENCELAB_API_KEY", ("pixels", "delete", "x", "--yes"), "AUDIENCELAB_API_KEY"),
    ],
)
async def test_what_is_not_set_is_named(
    name: str,
    words: tuple[str, ...],
    said: str,
    relay_at_vendors: Relay,
    monkeypatch: pytest.MonkeyPatch,
    box: Sandbox,
) -> None:
    """Without a setting that it needs a command ends with 2, its name, and nothing sent."""
    monkeypatch.delenv(name)
    answer = await relay_at_vendors(*words, "--json")
    assert (answer.status, answer.err) == (2, "")
    assert said in answer.json["error"]
    assert len(box.memory.account.pixels) == 2


@pytest.mark.parametrize(
    "more",
    [
        ["--website-url", "inn.example.com"],
        ["--website-url", "https://[::1"],
        ["--website-name", " "],
        ["--website-name", "Inn \udcff"],
        ["--tag", "two words"],
        ["--version", "v5"],
        ["--no-webhook", "--tag", "inn"],
    ],
)
async def test_wrong_words_are_refused(
    more: list[str], relay_at_vendors: Relay, box: Sandbox
) -> None:
    """A wrong option is bad usage, before the vendor is asked."""
    answer = await relay_at_vendors(*INN, *more)
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.strip()
    assert len(box.memory.account.pixels) == 2


async def test_a_token_of_another_source_is_not_given_away(
    relay_at_vendors: Relay, monkeypatch: pytest.MonkeyPatch, box: Sandbox
) -> None:
    """Where no token is valid for pixel, no pixel is made."""
    monkeypatch.setenv("HOOK_TOKENS", f"sendgrid:{OTHER_TOKEN}")
    answer = await relay_at_vendors(*INN)
    assert answer.status == 2
    assert "No token of HOOK_TOKENS is valid for pixel" in answer.err
    assert len(box.memory.account.pixels) == 2


async def test_no_vendor_is_given_the_token_of_a_trial(
    relay_at_vendors: Relay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, box: Sandbox
) -> None:
    """While a trial runs, its token is what commands find; a real pixel must not deliver with it."""
    url = "unix:///nowhere"
    monkeypatch.delenv("REDIS_URL")
    home = Home(tmp_path / "home")
    home.make()
    home.trial().make()
    with home.lock():
        home.write_address(Address(url, home.trial().path, trial=True, receiver_url="http://x"))
        answer = await relay_at_vendors(*INN)
    assert answer.status == 1
    assert "A trial runs" in answer.err
    assert len(box.memory.account.pixels) == 2


async def test_a_pixel_is_deleted(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """It goes once it is confirmed, and the audit has its id."""
    shop, blog = box.memory.account.pixels
    unasked = await relay_at_vendors("pixels", "delete", shop)
    assert unasked.status == 2
    assert "--yes" in unasked.err
    assert list(box.memory.account.pixels) == [shop, blog]
    gone = await relay_at_vendors("pixels", "delete", shop, "--yes", "--json")
    assert (gone.status, gone.json) == (0, {"deleted": shop})
    assert list(box.memory.account.pixels) == [blog]
    again = await relay_at_vendors("pixels", "delete", shop, "--yes", "--json")
    assert again.status == 1
    assert (again.json["kind"], again.json["status"]) == ("NotFound", 404)
    assert [(what, count) for what, count, words in await audited(redis)] == [
        *[("pixels delete", 1), ("pixels delete finished", 1)],
        *[("pixels delete", 1), ("pixels delete failed", 0)],
    ]
    assert {words["id"] for _, _, words in await audited(redis)} == {shop}


async def test_what_is_no_id_is_kept_out_of_the_audit(
    relay_at_vendors: Relay, redis: Redis
) -> None:
    """An address that is taken for an id is refused, and audited nowhere."""
    answer = await relay_at_vendors("pixels", "delete", "ada@example.com", "--yes")
    assert answer.status == 1
    assert (await relay_at_vendors("pixels", "delete", "a/b", "--yes")).status == 2
    assert "ada" not in str(await audited(redis))


async def test_a_pixel_that_may_have_been_made_all_the_same(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """When the answer is lost, the command says to look before trying again, and so does the audit."""
    box.faults.add(Fault(endpoint="create-pixel", reset="after"))
    answer = await relay_at_vendors(*INN, "--json")
    assert answer.status == 1
    assert "look before you try again" in answer.json["error"]
    assert answer.json["maybe_stored"] is True
    assert len(box.memory.account.pixels) == 3
    assert [what for what, _, _ in await audited(redis)] == [
        "pixels create",
        "pixels create unclear",
    ]


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    "fault",
    [
        Fault(endpoint="pixels", status=503, body="<html>Bad gateway</html>"),
        Fault(endpoint="pixels", status=200, body="<html>Log in</html>"),
        Fault(endpoint="pixels", status=200, body={"status": "NOT_FOUND"}),
        Fault(endpoint="pixels", status=403, body={"message": f"key {KEY}x is not allowed"}),
        Fault(endpoint="pixels", status=429, headers={"Retry-After": "7"}),
        Fault(endpoint="pixels", cut="body"),
        Fault(endpoint="pixels", reset="before"),
    ],
    ids=["503", "html", "not-found", "403", "429", "half", "reset"],
)
async def test_what_the_vendor_refuses_is_one_sentence(
    fault: Fault, relay_at_vendors: Relay, box: Sandbox
) -> None:
    """No traceback, no key; with --json its kind and status as well."""
    box.faults.add(fault)
    told = await relay_at_vendors("pixels", "list")
    assert (told.status, told.out) == (1, "")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    machine = await relay_at_vendors("pixels", "list", "--json")
    assert (machine.status, machine.err) == (1, "")
    assert {"error", "kind", "status", "maybe_stored"} <= set(machine.json)


@pytest.mark.usefixtures("redis")
async def test_neither_key_nor_token_is_in_an_error(
    relay_at_vendors: Relay, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor that repeats what it was sent is quoted with the secrets hidden."""
    repeated = {"error": {"code": "INVALID", "message": f"cannot reach {HOOK} with key {KEY}"}}
    box.faults.add(Fault(endpoint="create-pixel", status=422, body=repeated))
    answer = await relay_at_vendors(*INN)
    assert answer.status == 1
    assert "cannot reach" in answer.err
    assert HOOK_TOKEN not in answer.err
    assert f"key {KEY}" not in answer.err
    monkeypatch.setenv("AUDIENCELAB_API_KEY", "sk_wörter")
    odd = await relay_at_vendors("pixels", "list")
    assert odd.status == 2
    assert "wörter" not in odd.err


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("kept", [6, 12, 18, len(HOOK_TOKEN) - 1])
async def test_a_token_that_was_cut_is_hidden(
    kept: int, relay_at_vendors: Relay, box: Sandbox
) -> None:
    """Where a vendor's long words end in the middle of a token, its beginning is not shown either."""
    told = "cannot reach https://relay.example.com/in?token="
    begins = 'AudienceLab refused the request (400: "'
    room = 500 - len('…")') - len(begins) - kept - len(told)
    words = "x" * room + told + HOOK_TOKEN + " for its reasons"
    box.faults.add(Fault(endpoint="create-pixel", status=400, body={"message": words}))
    for answer in (await relay_at_vendors(*INN), await relay_at_vendors(*INN, "--json")):
        said = answer.out + answer.err
        assert answer.status == 1
        assert "?token=****…" in said
        assert HOOK_TOKEN[:6] not in said


def test_only_what_was_cut_is_taken_for_a_beginning(tmp_path: Path) -> None:
    """A token's first letters in the middle of a sentence are words; as a URL writes it, it is hidden too."""
    own = {"hook_tokens": "braces{and}more-0123456789", "relay_home": tmp_path}
    settings = Settings.model_validate(own)
    assert hidden("braces{and of words", settings) == "braces{and of words"
    assert hidden("braces", settings) == "****"
    assert hidden("brace", settings) == "brace"
    assert hidden('(422: "braces{and…', settings) == '(422: "****…'
    assert hidden("/braces%7Band%7Dmore-0123456789 is", settings) == "/**** is"
    assert hidden("/braces%7Bba", settings) == "/braces%7Bba"
    assert hidden("/braces%7Ban", settings) == "/****"


async def test_check_tells_here_elsewhere_and_nowhere(
    dialect: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """Each pixel is judged; the only one that leads here is known to have delivered last."""
    shop, blog = box.memory.account.pixels.values()
    shop.webhook_url = "https://crm.example.org/in/secret-path?key=somebodys-secret"
    made = (await relay_at_vendors(*INN, "--tag", "inn", "--json")).json
    before = (await relay_at_vendors("pixels", "check", "--json")).json
    assert {pixel["last_delivery"] for pixel in before["pixels"]} == {"unknown", "never"}
    await redis.hset(keys.SENDERS, "pixel:last", 1_767_225_600_000)
    answer = await relay_at_vendors("pixels", "check", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert answer.json["ok"] is True
    assert answer.json["last_delivery_at"]["pixel"] == "2026-01-01T00:00:00.000Z"
    rows = {pixel["id"]: pixel for pixel in answer.json["pixels"]}
    assert rows[shop.id]["webhook"]["points"] == "elsewhere"
    assert rows[shop.id]["webhook"]["host"] == "crm.example.org"
    assert rows[blog.id]["webhook"]["points"] == "nowhere"
    here = rows[made["id"]]
    assert here["provider_id"] == made["provider_id"]
    assert here["webhook"] == {
        "points": "here",
        "host": "relay.example.com",
        "source": "pixel",
        "tag": "inn",
        "token_valid": True,
        "problem": None,
    }
    assert here["last_delivery"] == here["last_delivery_at"] == "2026-01-01T00:00:00.000Z"
    assert rows[shop.id]["last_delivery_at"] is None
    shown = (await relay_at_vendors("pixels", "check")).out
    assert made["provider_id"] in shown
    assert "https://relay.example.com/hooks/pixel/****" in shown
    for secret in (HOOK_TOKEN, "secret-path", "somebodys-secret"):
        assert secret not in shown + answer.out
    assert HOOK in (await relay_at_vendors("pixels", "check", "--show-url")).out


async def test_several_that_share_a_hook_are_not_told_apart(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """Which of them delivered is kept nowhere, and the command says so."""
    for pixel in box.memory.account.pixels.values():
        pixel.webhook_url = HOOK
    await redis.hset(keys.SENDERS, "pixel:last", 1_767_225_600_000)
    answer = await relay_at_vendors("pixels", "check", "--json")
    rows = answer.json["pixels"]
    assert [row["last_delivery"] for row in rows] == ["unknown", "unknown"]
    assert [row["last_delivery_at"] for row in rows] == [None, None]
    shown = (await relay_at_vendors("pixels", "check")).out
    assert "is not kept; the hooks' last: pixel 2026-01-01T00:00:00.000Z." in shown


@pytest.mark.usefixtures("redis")
async def test_a_token_that_is_not_valid_any_more_ends_with_1(
    relay_at_vendors: Relay, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a rotation the pixels that still have the old token are refused, so check fails."""
    shop, _ = box.memory.account.pixels.values()
    shop.webhook_url = HOOK
    assert (await relay_at_vendors("pixels", "check")).status == 0
    monkeypatch.setenv("HOOK_TOKENS", "another-token-0123456789")
    machine = await relay_at_vendors("pixels", "check", "--json")
    assert (machine.status, machine.err, machine.json["ok"]) == (1, "", False)
    assert machine.json["pixels"][0]["webhook"]["token_valid"] is False
    shown = await relay_at_vendors("pixels", "check")
    assert shown.status == 1
    assert f"{shop.id}: the token in it is not valid for pixel" in shown.out
    assert HOOK_TOKEN not in shown.out + machine.out


async def test_what_nobody_shares_is_not_told_of_several(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """A webhook that is refused shares no hook: that nobody knows when it delivered needs no such sentence."""
    shop, blog = box.memory.account.pixels.values()
    shop.webhook_url = "https://relay.example.com//hooks/pixel/anything"
    shown = await relay_at_vendors("pixels", "check")
    assert "404" in shown.out
    assert "Which of several" not in shown.out
    shop.webhook_url = "https://relay.example.com/hooks/pixel/an-old-token"
    blog.webhook_url = HOOK
    await redis.hset(keys.SENDERS, "pixel:last", 1_767_225_600_000)
    assert "Which of several" not in (await relay_at_vendors("pixels", "check")).out


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("url", "status"), [("https://crm.example.org/in", 0), (HOOK, 1), (None, 0)]
)
async def test_without_a_token_for_pixels_check_tells_the_rest(
    url: str | None,
    status: int,
    relay_at_vendors: Relay,
    box: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table and the machine form end alike; only the URL to paste is not known, and why is said."""
    monkeypatch.setenv("HOOK_TOKENS", f"sendgrid:{OTHER_TOKEN}")
    for pixel in box.memory.account.pixels.values():
        pixel.webhook_url = url
    machine = await relay_at_vendors("pixels", "check", "--json")
    shown = await relay_at_vendors("pixels", "check")
    assert (machine.status, shown.status, shown.err) == (status, status, "")
    assert machine.json["webhook_url_to_paste"] is None
    is_due = url is None or status == 1
    assert ("No token of HOOK_TOKENS is valid for pixel" in shown.out) is is_due


@pytest.mark.usefixtures("redis")
async def test_the_url_to_paste_may_have_a_tag(relay_at_vendors: Relay, box: Sandbox) -> None:
    """With --show-url both forms have it whole, else masked."""
    masked = "https://relay.example.com/hooks/pixel/****?tag=blog"
    words = ("pixels", "check", "--tag", "blog")
    assert (await relay_at_vendors(*words, "--json")).json["webhook_url_to_paste"] == masked
    whole = await relay_at_vendors(*words, "--show-url", "--json")
    assert whole.json["webhook_url_to_paste"] == f"{HOOK}?tag=blog"
    assert masked in (await relay_at_vendors(*words)).out


@pytest.mark.parametrize("kind", ["pixels", "audiences"])
async def test_who_deletes_is_asked_about_what_by_name(
    kind: str, relay_at_vendors: Relay, box: Sandbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question has the name and the id, and for no nothing is done, or audited."""
    pixel = next(iter(box.memory.account.pixels.values()))
    audience = next(iter(box.memory.account.audiences.values()))
    its_id, its_name = {
        "pixels": (pixel.id, pixel.website_name),
        "audiences": (audience.id, audience.name),
    }[kind]
    answers = StringIO("n\n")
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", answers)
    answer = await relay_at_vendors(kind, "delete", its_id)
    assert answer.status == 1
    assert its_name in answer.err
    assert its_id in answer.err
    assert "Nothing was done" in answer.err
    assert await audited(redis) == []


@pytest.mark.parametrize("kind", ["pixels", "audiences"])
async def test_what_can_be_no_id_opens_no_order(
    kind: str, relay_at_vendors: Relay, redis: Redis
) -> None:
    """An empty id, as of a variable that is not set, is bad usage and stands in no audit."""
    for word in ("", " ", "a/b"):
        assert (await relay_at_vendors(kind, "delete", word, "--yes")).status == 2
    assert await audited(redis) == []


async def test_check_reads_from_a_redis_that_is_full(
    relay_at_vendors: Relay, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When everything stands still is when somebody looks: what only reads works all the same."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    async with Redis.from_url(own_redis.url) as client:
        await client.config_set("maxmemory", 1)
        checked = [await relay_at_vendors(kind, "check") for kind in ("pixels", "audiences")]
        await client.config_set("maxmemory", 0)
    assert [answer.status for answer in checked] == [0, 0], checked


async def test_a_pixel_is_shown_by_either_id(
    dialect: str, relay_at_vendors: Relay, box: Sandbox
) -> None:
    """All that is told of it, found by AudienceLab's id or by that of its events; of its webhook only the host."""
    shop = next(iter(box.memory.account.pixels.values()))
    shop.webhook_url = "https://crm.example.org/in?key=somebodys-secret"
    answer = await relay_at_vendors("pixels", "show", shop.id, "--json")
    assert (answer.status, answer.err) == (0, "")
    assert (answer.json["website_name"], answer.json["webhook_host"]) == ("Shop", "crm.example.org")
    shown = await relay_at_vendors("pixels", "show", shop.provider_id)
    assert shop.install_url in shown.out
    assert "somebodys-secret" not in shown.out + answer.out
    unknown = await relay_at_vendors("pixels", "show", "nobody", "--json")
    assert (unknown.status, unknown.json["kind"]) == (1, "NotFound")


async def test_what_a_pixel_has_seen_is_looked_at(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """A few events, by either id, of a pixel of either generation; nothing goes into the pipeline."""
    shop = next(iter(box.memory.account.pixels.values()))
    words = ("pixels", "events", shop.provider_id)
    answer = await relay_at_vendors(*words, "--limit", "3", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert (answer.json["page"], answer.json["total"], len(answer.json["events"])) == (1, 250, 3)
    assert {event["pixel_id"] for event in answer.json["events"]} == {shop.provider_id}
    table = (await relay_at_vendors(*words, "--limit", "3")).out
    for event in answer.json["events"]:
        assert event["event_timestamp"] in table
    assert "3 of 250." in table
    other = await relay_at_vendors(*words, "--limit", "3", "--page", "2", "--json")
    assert other.json["page"] == 2
    assert other.json["events"] != answer.json["events"]
    assert box.memory.calls_to("pixel-v4") == 0
    v4 = await relay_at_vendors(*words, "--version", "v4")
    assert (v4.status, box.memory.calls_to("pixel-v4")) == (0, 1)
    assert not await redis.exists(keys.queue("unpack"))


@pytest.mark.usefixtures("redis")
async def test_events_may_be_told_in_texts(relay_at_vendors: Relay, box: Sandbox) -> None:
    """Parts may be objects, JSON in a text, or missing: a line each all the same."""
    told = [
        {"event_timestamp": "2026-01-01T00:00:00Z", "event_data": '{"url": "https://a.example/1"}'},
        {"event": "click", "full_url": "https://a.example/2", "edid": "E1", "resolution": "{"},
        {"resolution": '{"UUID": "U3"}', "event_data": None},
    ]
    body = {"total_records": 3, "page": 1, "page_size": 10, "total_pages": 1, "events": told}
    box.faults.add(Fault(endpoint="pixel", status=200, body=body))
    shop = next(iter(box.memory.account.pixels.values()))
    shown = (await relay_at_vendors("pixels", "events", shop.id)).out
    for word in ("https://a.example/1", "https://a.example/2", "click", "E1", "U3"):
        assert word in shown

"""The page of visitors: nobody in a URL, all that is known, veiled until asked for, and how they are forgotten."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

import httpx
import pytest
from redis.asyncio import Redis

from console.web.sessions import Sessions
from pipeline import keys, verifications
from pipeline.addresses import digest
from pipeline.tombstones import Tombstones
from pipeline.visitors import Visitor
from tests.console.conftest import audited
from tests.console.web.conftest import Open
from tests.console.web.posting import HOSTILE, ended, post, post_and_follow
from tests.pipeline.acquaintances import meet
from tests.pipeline.burials import bury

pytestmark = pytest.mark.anyio

ADA = "ada.lovelace@example.com"
COLD = "cold.ada@example.net"
NUMBER = "+1 (555) 123-4567"
SECRETS = ("ada.lovelace", "cold.ada", "gold.ada", "4567", "5551234", "secret street")


def sealed(text: str) -> str:
    """Return the name that the forms of a page carry, as its source shows it."""
    found = re.search(r'name="whom" value="([^"]+)"', text)
    assert found is not None, text
    return found[1]


def ada() -> Visitor:
    """Return somebody of whom everything is known, addresses and numbers wherever a sender may put them."""
    return Visitor(
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        uuid="3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        edid=f"edid of {ADA}",
        hem_sha256=digest(ADA),
        fields={
            "FIRST_NAME": "Ada",
            "NOTE": f"write to {ADA.upper()}, or call {NUMBER}, or come to 12 Secret Street",
            "PERSONAL_ADDRESS": "12 Secret Street",
            "PERSONAL_CITY": "Springfield",
            "LINKEDIN_URL": "https://linkedin.com/in/gold.ada",
            "MOBILE_PHONE": ["15551234567", "1234567"],
            COLD: "a field's name",
        },
        personal_emails=[ADA],
        business_emails=[COLD],
        verified_emails=[ADA],
        hashes=["a" * 64],
        phones=[NUMBER, COLD],
        tags=["launch", ADA],
        sources=["pixel"],
        pages=[
            {
                "at": "2026-01-12T09:00:00Z",
                "event_type": "page_view",
                "url": f"https://example.org/welcome?email={quote(ADA)}&tel=%2B15551234567",
                "title": f"Hello {ADA}",
                "referrer": f"https://mail.example/?to={COLD}",
                "pixel_id": ADA,
            },
            {"at": "2026-01-12T10:00:00Z", "url": "https://example.org/price"},
        ],
        first_seen_at="2026-01-12T09:00:00Z",
        last_seen_at="2026-01-12T10:00:00Z",
        scores={"score": "4", "send_time": "33", "new": f"of {ADA}"},
        scores_changed_at="2026-01-13T00:00:00.000Z",
        enriched_at="2026-01-12T09:01:00.000Z",
        enrichment="found",
    )


async def met(redis: Redis) -> str:
    """Keep Ada, and what is kept beside a visitor; return the address of her page."""
    await meet(redis, ada(), subscribed=[digest(ADA)])
    await verifications.keep(redis, digest(COLD), "Invalid", "gold.ada@example.com")
    await Tombstones(redis).put([digest(COLD), f"edid of {ADA}"])
    return f"/visitors/{ada().id}"


def shows_no_secret(answer: httpx.Response) -> bool:
    """Tell whether nothing that the veil should hide is in the page."""
    return not [secret for secret in SECRETS if secret in answer.text.lower()]


# looking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [ADA, f" {ADA.upper()} ", digest(ADA), "A" * 64, ada().id.upper()])
async def test_a_look_leads_to_the_visitors_id(open_console: Open, redis: Redis, who: str) -> None:
    """Whoever is posted, by address, hash or id, the address that follows holds the visitor's id and nothing else."""
    where = await met(redis)
    console = await open_console()
    answer = await post(console, "/visitors/find", who=who)
    assert (answer.status_code, answer.headers["location"]) == (303, where)
    assert (await console.get(where)).status_code == 200


async def test_everything_known_is_told(open_console: Open, redis: Redis) -> None:
    """Resolution, addresses with what is known of each, scores and their meaning, tags, sources, pages, tombstones."""
    console = await open_console()
    text = (await console.get(await met(redis))).text
    for told in (
        ada().id, digest(ADA), "a" * 64, "Ada", "launch", "pixel", 'found, at <time datetime="2026-01-12',
        "verified, personal", "business", "subscribed", "Invalid", "0 to 5: how likely to interact",
        "hour 33 of the week", "page_view", "https://example.org/price", "2026-01-12 10:00:00 UTC",
        "Kept from coming", "a field&#39;s name",
    ):  # fmt: skip
        assert told in text, told


async def test_addresses_and_numbers_are_veiled(open_console: Open, redis: Redis) -> None:
    """Wherever they stand they are masked, their domains and last digits left."""
    console = await open_console()
    answer = await console.get(await met(redis))
    assert shows_no_secret(answer)
    for veiled in (
        "a…@example.com",
        "c…@example.net",
        "g…@example.com",
        "…67",
        "Hello ",
        "Springfield",
    ):
        assert veiled in answer.text


async def test_what_is_veiled_is_shown_to_who_asks(open_console: Open, redis: Redis) -> None:
    """The answer to the form is the page in clear; the audit says that, and no name; the page itself stays veiled."""
    where = await met(redis)
    console = await open_console(console_read_only=True)
    answer = await post(console, "/visitors/reveal", who=ada().id)
    assert answer.status_code == 200
    for told in (
        ADA,
        COLD,
        "gold.ada@example.com",
        NUMBER,
        "15551234567, 1234567",
        "12 Secret Street",
    ):
        assert told in answer.text
    assert await audited(redis) == [("reveal", 1, {})]
    assert shows_no_secret(await console.get(where))


async def test_nothing_is_shown_before_it_is_written_down(open_console: Open, redis: Redis) -> None:
    """Where the audit cannot be written nobody is shown in clear."""
    await met(redis)
    await redis.set(keys.AUDIT, "no stream")
    console = await open_console()
    answer = await post(console, "/visitors/reveal", who=ada().id)
    assert answer.status_code == 503
    assert shows_no_secret(answer)


@pytest.mark.parametrize("path", ["find", "reveal", "forget/plan", "forget", "allow"])
async def test_a_form_needs_its_token(open_console: Open, redis: Redis, path: str) -> None:
    """Without the session's token nobody is looked for, shown, forgotten or allowed."""
    await met(redis)
    console = await open_console()
    answer = await console.post(f"/visitors/{path}", data={"who": ADA, "form_token": "x"})
    assert answer.status_code == 403
    assert await redis.zcard(keys.VISITORS) == 1
    assert await audited(redis) == []


@pytest.mark.parametrize("who", ["", "  ", "x" * 401])
async def test_nobody_is_meant_by_nothing(open_console: Open, who: str) -> None:
    """No name, or one that is too long, is 400 with a sentence."""
    console = await open_console()
    for path in ("find", "reveal", "forget/plan", "forget", "allow"):
        assert (await post(console, f"/visitors/{path}", who=who)).status_code == 400


async def test_an_address_in_a_url_finds_nobody(open_console: Open, redis: Redis) -> None:
    """Who types an address behind /visitors/ is sent to the form."""
    await met(redis)
    console = await open_console()
    answer = await console.get(f"/visitors/{quote(ADA)}")
    assert answer.status_code == 404
    assert "look for people by the form" in answer.text


@pytest.mark.parametrize("visitor_id", ["a/b", "../dead", "ü", "a b", "find", "forgetting"])
async def test_an_id_that_can_stand_in_no_url(
    open_console: Open, redis: Redis, visitor_id: str
) -> None:
    """The answer to the look is the visitor's page itself, which works as every other does."""
    await meet(redis, Visitor(visitor_id, uuid=visitor_id, fields={"FIRST_NAME": "Ada"}))
    console = await open_console()
    answer = await post(console, "/visitors/find", who=visitor_id)
    assert answer.status_code == 200
    assert "FIRST_NAME" in answer.text
    assert (await post(console, "/visitors/reveal", who=visitor_id)).status_code == 200


async def test_an_id_that_looks_like_an_address(open_console: Open, redis: Redis) -> None:
    """Who has an address for an id is found, shown and forgotten by it; whoever is known by the address comes first."""
    await meet(
        redis, Visitor("Ada@Example.com", edid="Ada@Example.com", fields={"FIRST_NAME": "Ada"})
    )
    console = await open_console()
    answer = await post(console, "/visitors/find", who="Ada@Example.com")
    assert (answer.status_code, "A…@Example.com" in answer.text) == (200, True)
    assert (
        "Ada@Example.com" in (await post(console, "/visitors/reveal", who="Ada@Example.com")).text
    )
    await post(console, "/visitors/forget", who="Ada@Example.com")
    await ended(console, "/visitors/forgetting")
    assert (await post(console, "/visitors/find", who="Ada@Example.com")).status_code == 404
    await meet(redis, Visitor("u-1", uuid="u-1", personal_emails=["bob@example.com"]))
    await meet(redis, Visitor("bob@example.com", edid="bob@example.com"))
    answer = await post(console, "/visitors/find", who="bob@example.com")
    assert answer.headers["location"] == "/visitors/u-1"


async def test_the_forms_of_a_page_carry_its_name_sealed(open_console: Open, redis: Redis) -> None:
    """An id that is an address stands nowhere in a page's source until it is asked for; its forms work all the same."""
    name = "Ada@Example.com"
    await meet(redis, Visitor(name, edid=name, fields={"FIRST_NAME": "Ada"}))
    console = await open_console()
    found = (await post(console, "/visitors/find", who=name)).text
    planned = (await post(console, "/visitors/forget/plan", whom=sealed(found))).text
    for text in (found, planned):
        assert name.lower() not in text.lower()
    assert name in (await post(console, "/visitors/reveal", whom=sealed(found))).text
    await post(console, "/visitors/forget", whom=sealed(planned))
    await ended(console, "/visitors/forgetting")
    gone = (await post(console, "/visitors/find", who=name)).text
    assert name.lower() not in gone.lower()
    assert (
        "Allowed again"
        in (await post_and_follow(console, "/visitors/allow", whom=sealed(gone))).text
    )


@pytest.mark.parametrize("path", ["reveal", "forget/plan", "forget", "allow"])
async def test_a_name_that_was_sealed_elsewhere_is_nobodys(
    open_console: Open, redis: Redis, path: str
) -> None:
    """What this console did not seal is refused, not looked for."""
    await met(redis)
    console = await open_console()
    for whom in (ADA, "gAAAA", "\u00fc", Sessions("another").seal(ADA)):
        answer = await post(console, f"/visitors/{path}", whom=whom)
        assert (answer.status_code, "look for them again" in answer.text) == (400, True)
    assert await redis.zcard(keys.VISITORS) == 1


async def test_what_answers_a_form_leads_to_the_form(open_console: Open) -> None:
    """Who comes to its address without one, by a link or after a log-in, finds where to look."""
    console = await open_console()
    for path in ("find", "reveal", "forget/plan", "forget", "allow"):
        answer = await console.get(f"/visitors/{path}")
        assert (answer.status_code, 'id="who"' in answer.text) == (200, True)


async def test_somebody_unknown_is_told(open_console: Open) -> None:
    """Nobody known is 404, by the form and by an id, and may be kept from coming."""
    console = await open_console()
    answer = await post(console, "/visitors/find", who="nobody@example.com")
    assert answer.status_code == 404
    assert "Keep from coming" in answer.text
    assert (await console.get("/visitors/nobody")).status_code == 404


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_visitor_is_only_text(
    open_console: Open, redis: Redis, hostile: str
) -> None:
    """Whatever a sender put into any fact is shown as text, cut, without controls; veiled, and in clear."""
    page = dict.fromkeys(("event_type", "url", "title", "referrer", "pixel_id"), hostile)
    visitor = Visitor(
        "id-1", edid=hostile, fields={"NOTE": hostile, hostile[:99]: [hostile]}, phones=[hostile],
        personal_emails=[hostile], tags=[hostile], sources=[hostile], scores={"score": hostile, hostile: "1"},
        pages=[{"at": hostile, **page}], enrichment=hostile, enriched_at=hostile, first_seen_at=hostile,
    )  # fmt: skip
    await meet(redis, visitor)
    await verifications.keep(redis, visitor.digests[0], hostile, hostile)
    console = await open_console()
    for answer in (
        await console.get("/visitors/id-1"),
        await post(console, "/visitors/reveal", who="id-1"),
    ):
        assert answer.status_code == 200
        for sign in ("<script>alert", "<img", "\x1b", "\u202e", 'href="javascript'):
            assert sign not in answer.text
        assert len(answer.text) < 500_000


async def test_of_very_many_facts_some_are_shown(open_console: Open, redis: Redis) -> None:
    """Somebody with thousands of fields and addresses has a page that a browser can show."""
    many = [f"a{n}@example.com" for n in range(5_000)]
    fields: dict[str, str | list[str]] = {f"F{n}": "x" for n in range(5_000)}
    await meet(redis, Visitor("id-1", personal_emails=many, tags=many, phones=many, fields=fields))
    console = await open_console()
    answer = await console.get("/visitors/id-1")
    assert answer.text.count("And 4\u202f800 more") == 2
    assert len(answer.text) < 500_000


# forgetting ---------------------------------------------------------------------------------------------


async def test_the_plan_says_what_forgetting_does(open_console: Open, redis: Redis) -> None:
    """It tells what goes and what cannot be undone, and touches nothing; by an id, that others may stay."""
    await met(redis)
    console = await open_console()
    by_address = (await post(console, "/visitors/forget/plan", who=ADA)).text
    for told in (
        "no call to unsubscribe",
        "Only this name is allowed again",
        "cannot be taken back",
    ):
        assert told in by_address
    assert "This one visitor is meant" not in by_address
    by_id = (await post(console, "/visitors/forget/plan", who=ada().id)).text
    assert "This one visitor is meant" in by_id
    unknown = (await post(console, "/visitors/forget/plan", who="nobody@example.com")).text
    assert "No visitor is known by this" in unknown
    assert await redis.zcard(keys.VISITORS) == 1


async def test_somebody_is_forgotten(open_console: Open, redis: Redis) -> None:
    """Visitor and dead letters go, the page and the audit tell how many, and neither says who."""
    where = await met(redis)
    await bury(redis, payloads=[f'{{"email":"{ADA}"}}'.encode(), b'{"email":"other@example.com"}'])
    console = await open_console()
    answer = await post(console, "/visitors/forget", who=ada().id)
    assert answer.headers["location"] == "/visitors/forgetting"
    text = await ended(console, "/visitors/forgetting")
    assert "Gone: 1 visitor, " in text
    assert "1 dead letter." in text
    assert await audited(redis) == [
        ("forget", 1, {}),
        ("forget finished", 1, {"visitors": 1, "dead_letters": 1}),
    ]
    assert await redis.zcard(keys.VISITORS) == 0
    assert await redis.zcard(keys.DEAD) == 1
    gone = await console.get(where)
    assert gone.status_code == 404
    assert "Forgotten, and kept from coming back" in gone.text
    for told in (text, repr(await redis.xrange(keys.AUDIT))):
        assert ADA not in told
        assert ada().id not in told
        assert digest(ADA) not in told


async def test_somebody_unknown_is_kept_from_coming(open_console: Open, redis: Redis) -> None:
    """Forgetting an address that nobody has sets its tombstone; allowing it lifts that, and is told."""
    console = await open_console()
    await post(console, "/visitors/forget", who=ADA)
    await ended(console, "/visitors/forgetting")
    found = await post(console, "/visitors/find", who=ADA)
    assert "Allow again" in found.text
    told = await post_and_follow(console, "/visitors/allow", who=ADA)
    assert "Only this name is allowed again" in told.text
    again = await post_and_follow(console, "/visitors/allow", who=ADA)
    assert "Nobody was forgotten by that name" in again.text
    assert [(what, count) for what, count, _ in await audited(redis)] == [
        ("forget", 1),
        ("forget finished", 0),
        ("allow", 1),
        ("allow", 1),
    ]


async def test_a_known_persons_names_are_allowed_one_by_one(
    open_console: Open, redis: Redis
) -> None:
    """Beside each name that is kept from coming stands its form, which lifts that of this name and no other."""
    where = await met(redis)
    console = await open_console()
    for left in (2, 1):
        text = (await console.get(where)).text
        assert text.count('action="/visitors/allow"') == left
        of_the_first = text[text.index('action="/visitors/allow"') :]
        await post(console, "/visitors/allow", whom=sealed(of_the_first))
    assert "Kept from coming" not in (await console.get(where)).text


async def test_one_person_at_a_time(open_console: Open, redis: Redis) -> None:
    """While one is being forgotten the page says how far it is, and a second one is told to wait."""
    await met(redis)
    await redis.client_pause(60_000, all=False)  # no write gets through: it cannot end meanwhile
    try:
        console = await open_console()
        await post(console, "/visitors/forget", who=COLD)
        assert "It goes on: 0 of about" in (await console.get("/visitors/forgetting")).text
        told = await post_and_follow(console, "/visitors/forget", who=ADA)
        assert "Another person is being forgotten" in told.text
    finally:
        await redis.client_unpause()
    assert "Gone: 1 visitor," in await ended(console, "/visitors/forgetting")


async def test_a_forgetting_that_fails_is_told(open_console: Open, redis: Redis) -> None:
    """The page says that it failed and can be repeated, and another may begin."""
    await met(redis)
    await redis.set(keys.TOMBSTONES, "no set")
    console = await open_console()
    await post(console, "/visitors/forget", who="nobody@example.com")
    assert "It failed" in await ended(console, "/visitors/forgetting")
    await redis.delete(keys.TOMBSTONES)
    await post(console, "/visitors/forget", who=ADA)
    assert "Gone: 1 visitor," in await ended(console, "/visitors/forgetting")


async def test_read_only_forgets_nobody(open_console: Open, redis: Redis) -> None:
    """With CONSOLE_READ_ONLY no form that changes is shown, and a posted one is refused."""
    where = await met(redis)
    console = await open_console(console_read_only=True)
    text = (await console.get(where)).text
    assert "Forget" not in text
    assert "Allow" not in text
    for path in ("forget/plan", "forget", "allow"):
        answer = await post(console, f"/visitors/{path}", who=ADA)
        assert answer.status_code == 403
    await asyncio.sleep(0)
    assert await redis.zcard(keys.VISITORS) == 1

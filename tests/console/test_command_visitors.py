"""`relay visitors`: show, forget, allow."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from pipeline import keys, verifications
from pipeline.addresses import digest
from pipeline.tombstones import Tombstones
from pipeline.visitors import Visitor
from tests.console.conftest import Relay
from tests.pipeline.acquaintances import meet
from tests.pipeline.burials import bury

pytestmark = pytest.mark.anyio

BOB = "bob@example.com"


def bob() -> Visitor:
    """Return somebody who was seen once."""
    return Visitor(
        "bob-1",
        uuid="bob-1",
        personal_emails=[BOB],
        fields={"FIRST_NAME": "Bob"},
        pages=[{"at": "2026-01-01T09:00:00Z", "url": "https://example.net/"}],
    )


async def test_show_tells_everything(relay: Relay, redis: Redis) -> None:
    """By address, hash or id; the subscriptions are told by hash."""
    await meet(redis, bob(), subscribed=[digest(BOB)])
    for name in (BOB, digest(BOB), "BOB-1"):
        shown = (await relay("visitors", "show", name, "--json")).json
        assert shown["id"] == "bob-1"
        assert shown["personal_emails"] == [BOB]
        assert shown["subscriptions"] == {digest(BOB): "subscribed"}
    people = (await relay("visitors", "show", BOB)).out
    assert "https://example.net/" in people
    assert "FIRST_NAME" in people
    unknown = await relay("visitors", "show", "nobody@example.com", "--json")
    assert unknown.status == 1
    assert "nobody@example.com" not in unknown.out


async def test_forget_says_what_went_and_what_cannot(relay: Relay, redis: Redis) -> None:
    """The answer holds counts and the word about AudiencePoint; the audit names nobody."""
    await meet(redis, bob())
    await bury(redis, payloads=[b'{"email":"bob@example.com"}'])
    answer = await relay("visitors", "forget", BOB, "--yes", "--json")
    assert answer.status == 0
    assert (answer.json["visitors"], answer.json["dead_letters"]) == (1, 1)
    assert "no call to unsubscribe" in answer.json["note"]
    assert (await relay("visitors", "show", BOB)).status == 1
    people = await relay("visitors", "forget", BOB, "--yes")
    assert "0 visitors" in people.out
    assert "no call to unsubscribe" in people.out
    audit = repr(await redis.xrange(keys.AUDIT))
    assert "forget" in audit
    assert "bob" not in audit
    assert digest(BOB) not in audit


@pytest.mark.parametrize(
    "slip",
    ["bob.example.com", "Bob <bob@example.com>", "0f0f0f0f-1111-4222-8333-44445555666", "a" * 63],
)
async def test_a_slip_is_not_told_as_forgotten(relay: Relay, redis: Redis, slip: str) -> None:
    """What is no address, hash or UUID, and nobody's id, is refused, and nothing is written down."""
    await meet(redis, bob())
    answer = await relay("visitors", "forget", slip, "--yes", "--json")
    assert answer.status == 2
    assert "nothing was forgotten" in answer.json["error"]
    assert not await redis.exists(keys.TOMBSTONES, keys.AUDIT)


async def test_allow_lifts_and_explains(relay: Relay, redis: Redis) -> None:
    """Lifting says that each name has to be allowed; nothing to lift is a failure."""
    await relay("visitors", "forget", BOB, "--yes")
    answer = await relay("visitors", "allow", BOB)
    assert answer.status == 0
    assert "Only this name" in answer.out
    again = await relay("visitors", "allow", BOB, "--json")
    assert again.status == 1
    assert again.json["lifted"] == 0
    await relay("visitors", "forget", BOB, "--yes")
    assert (await relay("visitors", "allow", BOB, "--json")).json["lifted"] == 1


async def test_show_tells_what_is_kept_beside_the_visitor(relay: Relay, redis: Redis) -> None:
    """Subscription and verification of each address, scores with their units, the state of the enrichment."""
    cold = "cold@example.com"
    known = bob()
    known.verified_emails = [BOB]
    known.business_emails = [cold]
    known.hashes = ["a" * 64]
    known.enrichment, known.enriched_at = "found", "2026-01-02T00:00:00.000Z"
    known.scores = {
        "score": "4",
        "send_time": "33",
        "last_seen": "2026-01-04 18:04:00 PM",
        "new": "x",
    }
    known.scores_changed_at = "2026-01-03T00:00:00.000Z"
    await meet(redis, known, subscribed=[digest(BOB)])
    await verifications.keep(redis, digest(cold), "Invalid", "gold@example.com")
    machine = (await relay("visitors", "show", cold, "--json")).json
    assert machine["scores"]["send_time"] == "33"
    assert (machine["typed_scores"]["score"], machine["typed_scores"]["send_time"]) == (4, 33)
    assert machine["verifications"][digest(cold)]["result"] == "Invalid"
    assert machine["verifications"][digest(cold)]["suggestion"] == "gold@example.com"
    assert machine["tombstones"] == []
    people = (await relay("visitors", "show", "A" * 64)).out
    assert f"  {BOB}  verified, personal, subscription: subscribed" in people
    assert f"  {cold}  business, subscription: none" in people
    assert f"  {'a' * 64}  subscription: none" in people
    assert "AudiencePoint's verification: Invalid, at 20" in people
    assert "its suggestion: gold@example.com" in people
    assert "found, at 2026-01-02" in people
    assert "4  (0 to 5: how likely to interact)" in people
    assert "hour 33 of the week" in people
    assert "2026-01-04T18:04:00Z  (the last open, click or unsubscribe)" in people
    assert "scores, changed at 2026-01-03" in people


async def test_show_tells_what_enrichment_waits_for(relay: Relay, redis: Redis) -> None:
    """Somebody is asked about, or waits to be, or is not asked about at all."""
    await meet(redis, bob())
    assert "not asked" in (await relay("visitors", "show", BOB)).out
    await redis.set(keys.enrichment(digest("bob-1")), 1)
    assert "asked, or waiting to be" in (await relay("visitors", "show", BOB)).out
    assert (await relay("visitors", "show", BOB, "--json")).json["is_asked_about"] is True


async def test_show_tells_tombstones(relay: Relay, redis: Redis) -> None:
    """Somebody forgotten is said to be; so is each name of somebody known that is kept from coming."""
    await relay("visitors", "forget", BOB, "--yes")
    gone = await relay("visitors", "show", BOB, "--json")
    assert (gone.status, gone.json["forgotten"]) == (1, True)
    assert "relay visitors allow" in (await relay("visitors", "show", BOB)).err
    nobody = await relay("visitors", "show", "nobody@example.com", "--json")
    assert nobody.json["forgotten"] is False
    await relay("visitors", "allow", BOB)
    await meet(redis, bob())
    await Tombstones(redis).put(["bob-1"])
    shown = await relay("visitors", "show", BOB, "--json")
    assert shown.json["tombstones"] == ["bob-1"]
    assert "1: forgotten" in (await relay("visitors", "show", BOB)).out

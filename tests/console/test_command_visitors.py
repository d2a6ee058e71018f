"""`relay visitors`: show, forget, allow."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from pipeline import keys
from pipeline.addresses import digest
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

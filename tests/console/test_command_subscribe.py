"""`relay subscribe`: addresses that AudiencePoint is to tell of, by hand; at a stand-in served on loopback."""

from __future__ import annotations

import sys
from io import StringIO

import pytest
from redis.asyncio import Redis

from pipeline.addresses import digest
from pipeline.tombstones import Tombstones
from sandbox.faults import Fault
from tests.console.conftest import Relay, audited
from tests.vendors import Sandbox

pytestmark = pytest.mark.anyio

MARA = "mara.quill@example.com"


async def test_addresses_are_subscribed(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """They leave hashed, in thirties; who was subscribed before counts as such; the audit has numbers only."""
    many = [f"person{n}@example.com" for n in range(31)]
    answer = await relay_at_vendors("subscribe", *many, "--yes", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert answer.json == {"new": 31, "existing": 0, "invalid": 0}
    assert box.memory.calls_to("list-subscription") == 2
    assert box.memory.addresses == [digest(each) for each in many]
    again = await relay_at_vendors("subscribe", many[0], MARA, "--yes")
    assert again.out == "1 new, 1 were subscribed, 0 are invalid.\n"
    words = {"addresses": 2, "format": "sha256"}
    assert (await audited(redis))[2:] == [
        ("subscribe", 1, words),
        ("subscribe finished", 2, words),
    ]


async def test_nobody_is_subscribed_unasked(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call ends a subscription, so the question says so; for no nothing is done, or audited."""
    assert (await relay_at_vendors("subscribe", MARA)).status == 2
    answers = StringIO("n\n")
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", answers)
    answer = await relay_at_vendors("subscribe", MARA)
    assert answer.status == 1
    assert "as their SHA-256? No call can end it" in answer.err
    assert box.memory.calls_to("list-subscription") == 0
    assert await audited(redis) == []


async def test_who_was_forgotten_is_not_subscribed(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """One who was forgotten, told by place and not by name, is enough: nobody is subscribed."""
    await Tombstones(redis).put([digest(MARA)])
    answer = await relay_at_vendors("subscribe", "ana@example.com", MARA.upper(), "--yes", "--json")
    assert (answer.status, answer.json["forgotten"]) == (1, [2])
    assert "@" not in answer.json["error"]
    assert box.memory.calls_to("list-subscription") == 0
    assert await audited(redis) == []


@pytest.mark.usefixtures("redis")
async def test_an_address_that_is_counted_as_invalid_ends_with_1(
    relay_at_vendors: Relay, box: Sandbox
) -> None:
    """The counts are told all the same."""
    counts = {"new": 1, "existing": 0, "invalid": 1}
    box.faults.add(Fault(endpoint="list-subscription", status=200, body=counts))
    answer = await relay_at_vendors("subscribe", MARA, "ana@example.com", "--yes", "--json")
    assert (answer.status, answer.err, answer.json) == (1, "", counts)


async def test_a_lost_answer_may_be_asked_for_again(
    relay_at_vendors: Relay, box: Sandbox, redis: Redis
) -> None:
    """Subscribing twice changes nothing, so that nobody has to look first; what was done is unclear."""
    box.faults.add(Fault(endpoint="list-subscription", reset="after"))
    answer = await relay_at_vendors("subscribe", MARA, "--yes")
    assert answer.status == 1
    assert "it is safe to do it again" in answer.err
    assert [what for what, *_ in await audited(redis)] == ["subscribe", "subscribe unclear"]


@pytest.mark.usefixtures("redis")
async def test_wrong_words_are_refused(
    relay_at_vendors: Relay, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither address nor hash, none at all, or no key: status 2, before anybody is asked."""
    for words in ([], ["nobody"], [MARA, " "]):
        assert (await relay_at_vendors("subscribe", *words, "--yes")).status == 2
    monkeypatch.delenv("AUDIENCEPOINT_API_KEY")
    answer = await relay_at_vendors("subscribe", MARA, "--yes")
    assert answer.status == 2
    assert "AUDIENCEPOINT_API_KEY is not set" in answer.err
    assert box.memory.calls_to("list-subscription") == 0

"""Whoever is forgotten stays forgotten: nothing in flight, sealed, held or replayed brings them back."""

from __future__ import annotations

import orjson
import pytest

from pipeline import forgetting, keys, pauses, recipients, visitors
from pipeline.outcomes import Person, Stage
from pipeline.tombstones import Tombstones
from sandbox.faults import slow, throttled
from sandbox.people import PEOPLE
from tests.workbench import Workbench, mail_event, mail_events
from tests.workers.test_enrich import see

pytestmark = pytest.mark.anyio

ADDRESS = PEOPLE[0]["PERSONAL_EMAILS"].split(", ")[0]


async def test_what_waits_to_be_sealed_is_ignored(bench: Workbench) -> None:
    """Events of a forgotten person that wait are ignored; those of others leave."""
    await pauses.pause(bench.redis, Stage.FORWARD, "wait")
    await bench.put("events", mail_events(5))
    await bench.work()
    await forgetting.forget(bench.redis, "person2@example.com")
    await pauses.resume(bench.redis, Stage.FORWARD)
    await bench.work_until(bench.is_idle)

    assert "person2@example.com" not in bench.arrived
    assert await bench.row(Stage.FORWARD) == {"in": 5, "done": 4, "ignored": 1}


async def test_a_sealed_batch_leaves_without_the_forgotten(bench: Workbench) -> None:
    """A batch that failed and waits for its retry is made anew without them."""
    bench.box.faults.add(throttled("events", times=1, retry_after="3600"))
    await bench.put("events", mail_events(5))
    await bench.work_until(lambda: bench.box.faults.hits == 1)
    await forgetting.forget(bench.redis, "person2@example.com")
    await pauses.resume(bench.redis, Stage.FORWARD)
    await bench.work_until(bench.is_idle)

    assert len(bench.arrived) == 4
    assert await bench.row(Stage.FORWARD) == {"in": 5, "done": 4, "ignored": 1}
    await bench.assert_balanced()


async def test_an_enrichment_under_way_does_not_bring_them_back(bench: Workbench) -> None:
    """Forgotten while AudienceLab is being asked: the answer is thrown away."""
    bench.box.faults.add(slow("enrich", 0.5))
    await see(bench, Person(uuid="U", personal_emails=[ADDRESS]))
    async with bench.at_work():
        await bench.until(lambda: bool(bench.box.memory.enrich_requests))
        await forgetting.forget(bench.redis, ADDRESS)
        await bench.until(bench.is_idle)

    assert [name async for name in visitors.ids(bench.redis)] == []
    assert await bench.row(Stage.ENRICH) == {"in": 1, "ignored": 1}


async def test_what_comes_later_is_ignored_until_allowed(bench: Workbench) -> None:
    """New sightings and events of the person are ignored; `allow` lifts that."""
    await forgetting.forget(bench.redis, "person1@example.com")
    person = Person(uuid="U", personal_emails=["person1@example.com"])
    await see(bench, person)
    await bench.put("events", orjson.dumps([mail_event(1)]))
    await bench.work_until(bench.is_idle)
    assert await visitors.find(bench.redis, "person1@example.com") is None
    assert not bench.arrived

    await forgetting.allow(bench.redis, "person1@example.com")
    await see(bench, person)
    await bench.work_until(bench.is_idle)
    assert await visitors.find(bench.redis, "person1@example.com") is not None


async def test_the_memory_of_numbers_forgets_them(bench: Workbench) -> None:
    """An address that was remembered for a sender's own number is gone, and the number names nobody any more."""
    await recipients.resolve(
        bench.redis, Tombstones(bench.redis), [("sfmc", "1:7", "Ada@Example.com")]
    )
    gone = await forgetting.forget(bench.redis, "ada@example.com")
    assert gone.addresses == 1
    assert await bench.redis.keys(keys.recipient("*")) == []

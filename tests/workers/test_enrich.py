"""Enrich: who is merged with whom, whom AudienceLab is asked about, and what follows from its answer."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from pipeline import keys, visitors
from pipeline.addresses import digest
from pipeline.moves import Move, Mover
from pipeline.origins import Origin
from pipeline.outcomes import Person, Stage, VisitorEvent
from sandbox.faults import broken
from sandbox.people import PEOPLE
from sandbox.samples import SAMPLES
from tests.workbench import Workbench

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]
KNOWN = PEOPLE[0]
ADDRESS = KNOWN["PERSONAL_EMAILS"].split(", ")[0]


async def see(bench: Workbench, *people: Person, tag: str | None = None) -> None:
    """Queue a sighting of each of *people*, as `unpack` would."""
    mover = Mover(bench.redis, "test", 1000)
    for n, person in enumerate(people):
        event = VisitorEvent(person, f"{n}", seen_at=f"2026-01-01T00:00:0{n}Z", event_type="page")
        # a move needs an entry to take out: one that stands for the delivery
        await bench.put("pixel", b"{}")
        await bench.redis.xreadgroup(keys.GROUP, "test", {keys.queue("unpack"): ">"}, count=1)
        row = await bench.redis.xpending_range(keys.queue("unpack"), keys.GROUP, "-", "+", 1)
        move = Move(Stage.UNPACK, [row[0]["message_id"]])
        move.append(Stage.ENRICH, orjson.dumps(event), Origin("pixel", 0, tag=tag))
        move.settle(Stage.UNPACK, "done")
        await mover.apply([move])


async def everybody(bench: Workbench) -> dict[str, visitors.Visitor]:
    """Return all visitors by id."""
    return await visitors.fetch(bench.redis, [name async for name in visitors.ids(bench.redis)])


def named(address: str, uuid: str | None = None) -> Person:
    """Return somebody about whom nothing need be asked."""
    return Person(
        uuid=uuid,
        hem_sha256=digest(address),
        personal_emails=[address],
        fields={"FIRST_NAME": "Ada"},
    )


async def test_sightings_of_one_person_are_merged(bench: Workbench) -> None:
    """Pages add up, newer facts win, nothing is blanked out; nobody is asked about."""
    first = named("ada@example.com", "U-1")
    second = Person(uuid="U-1", fields={"LAST_NAME": "Byron"})
    await see(bench, first, second, tag="spring")
    await bench.work_until(bench.is_idle)

    (visitor,) = (await everybody(bench)).values()
    assert visitor.fields == {"FIRST_NAME": "Ada", "LAST_NAME": "Byron"}
    assert len(visitor.pages) == 2
    assert visitor.tags == ["spring"]
    assert not bench.box.memory.enrich_requests
    assert await bench.row(Stage.ENRICH) == {"in": 2, "done": 2}


async def test_two_people_of_one_click_stay_two(bench: Workbench) -> None:
    """Two resolutions are two visitors, both subscribed."""
    await see(bench, named("a@example.com", "U-1"), named("b@example.com", "U-2"))
    await bench.work_until(bench.is_idle)

    assert set(await everybody(bench)) == {"U-1", "U-2"}
    assert set(bench.box.memory.addresses) == {"a@example.com", "b@example.com"}


async def test_a_visitor_known_by_a_hash_becomes_the_person_it_is(bench: Workbench) -> None:
    """Scores kept under an address's hash move to the visitor who turns out to have that address."""
    await bench.put("scores", orjson.dumps([score_of("ada@example.com")]))
    await bench.work_until(bench.is_idle)
    assert set(await everybody(bench)) == {digest("ada@example.com")}

    person = Person(uuid="U-1", personal_emails=["ada@example.com"], fields={"FIRST_NAME": "Ada"})
    await see(bench, person)
    await bench.work_until(bench.is_idle)
    (visitor,) = (await everybody(bench)).values()
    assert visitor.id == "U-1"
    assert visitor.scores


def score_of(address: str) -> dict[str, str]:
    """Return AudiencePoint's scores of *address*, as it pushes them."""
    message = orjson.loads(SAMPLES["scores"][0].body)
    sample: dict[str, str] = (message if isinstance(message, list) else [message])[0]
    return {**sample, "emailAddress": address}


@pytest.mark.parametrize(
    ("person", "asked_by"),
    [
        (Person(uuid="U", personal_emails=[ADDRESS], phones=["+12185550101"]), "email"),
        (Person(uuid="U", hem_sha256=digest(ADDRESS), phones=["+12185550101"]), "sha256"),
        (Person(uuid="U", phones=["+12185550101"]), "phone"),
    ],
)
async def test_whom_nothing_is_known_of_is_asked_about(
    bench: Workbench, person: Person, asked_by: str
) -> None:
    """By e-mail, else by hash, else by phone; what is found is merged and its address subscribed."""
    await see(bench, person)
    await bench.work_until(bench.is_idle)

    (request,) = bench.box.memory.enrich_requests
    (name,) = request["filter"]
    assert name.startswith(asked_by)
    (visitor,) = (await everybody(bench)).values()
    assert visitor.enrichment == "found"
    assert visitor.fields["FIRST_NAME"] == KNOWN["FIRST_NAME"]
    assert bench.box.memory.subscribed
    await bench.assert_balanced()


async def test_not_found_is_remembered_for_thirty_days(bench: Workbench) -> None:
    """A second sighting of somebody AudienceLab does not know makes no second call."""
    stranger = Person(uuid="U", personal_emails=["nobody@example.com"])
    for _ in range(2):
        await see(bench, stranger)
        await bench.work_until(bench.is_idle)

    assert bench.box.memory.calls_to("enrich") == 1
    ttl = await bench.redis.pttl(keys.enrichment(digest("U")))
    assert 29 * 86_400_000 < ttl <= 30 * 86_400_000
    assert (await everybody(bench))["U"].enrichment == "not found"
    assert await bench.row(Stage.ENRICH) == {"in": 2, "done": 2}


@pytest.mark.parametrize(("wish", "calls"), [("off", 0), ("missing", 1), ("always", 2)])
async def test_enrich_says_whom_to_ask_about(make_bench: MakeBench, wish: str, calls: int) -> None:
    """`missing` asks about whom too little is known, `always` about everybody, `off` about nobody."""
    bench = make_bench(enrich=wish)
    stranger = Person(uuid="U-2", personal_emails=["nobody@example.com"])
    await see(bench, named("ada@example.com", "U-1"), stranger)
    await bench.work_until(bench.is_idle)
    assert bench.box.memory.calls_to("enrich") == calls


@pytest.mark.parametrize(
    ("wish", "subscribed", "ignored"),
    [("off", 0, 1), ("identified", 1, 0), ("verified", 1, 0), ("all", 3, 0)],
)
async def test_subscribe_says_which_addresses_are_watched(
    make_bench: MakeBench, wish: str, subscribed: int, ignored: int
) -> None:
    """Identified, verified, all or none; what the setting excludes is counted as ignored."""
    bench = make_bench(subscribe=wish, email_format="plain", enrich="off")
    person = Person(
        uuid="U",
        hem_sha256=digest("a@example.com"),
        personal_emails=["a@example.com", "b@example.com"],
        verified_emails=["b@example.com"],
        hashes=[digest("c@example.com")],
    )
    await see(bench, person)
    await bench.work_until(bench.is_idle)
    assert len(bench.box.memory.subscribed) == subscribed
    assert await bench.count(Stage.SUBSCRIBE, "ignored") == ignored


async def test_nobody_is_ignored(bench: Workbench) -> None:
    """A sighting without anything to identify anybody by is counted and forgotten."""
    await see(bench, Person())
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 1, "ignored": 1}


async def test_an_entry_that_trips_our_code_is_buried_alone(bench: Workbench) -> None:
    """A stored sighting this version cannot read is tried three times; the others are merged."""
    await see(bench, named("a@example.com", "U-1"))
    await bench.redis.xadd(
        keys.queue("enrich"), {"p": b'{"strange": 1}', "m": Origin("pixel", 0).pack()}
    )
    await bench.redis.hincrby(keys.BOOKS, "enrich:in", 1)
    await bench.redis.hincrby(keys.BOOKS, "enrich:waiting", 1)
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.ENRICH) == {"in": 2, "done": 1, "dead": 1}
    assert [(letter.reason, letter.attempts) for letter in await bench.dead()] == [("bug", 3)]


async def test_asking_goes_on_after_a_refusal(bench: Workbench) -> None:
    """What AudienceLab refuses is buried and may be asked again; an outage only delays."""
    bench.box.faults.add(broken("enrich", times=2))
    await see(bench, Person(uuid="U", personal_emails=[ADDRESS]))
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 1, "done": 1}

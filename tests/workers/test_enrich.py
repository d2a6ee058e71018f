"""Enrich: who is merged with whom, whom AudienceLab is asked about, and what follows from its answer or without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import orjson
import pytest

from pipeline import keys, pauses, visitors
from pipeline.addresses import digest
from pipeline.moves import Move, Mover
from pipeline.origins import Origin
from pipeline.outcomes import Person, Stage, VisitorEvent
from sandbox.faults import Fault, broken, refused_alike
from sandbox.people import PEOPLE
from sandbox.samples import SAMPLES
from tests.vendors import KEY
from tests.workbench import Workbench
from tests.workers.test_sweep import context_of
from workers.merge import merge_some

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


async def test_a_fifth_of_a_take_is_left_to_what_came_back(bench: Workbench) -> None:
    """However many new sightings there are, some of those from the dead letters are merged with them."""
    await see(bench, named("ada@example.com"))
    (_, fields), *_ = await bench.redis.xrange(keys.queue(Stage.ENRICH))
    for queue, more in ((Stage.ENRICH, 199), (keys.retried(Stage.ENRICH), 30)):
        for _ in range(more):
            await bench.redis.xadd(keys.queue(queue), fields)
    await bench.redis.hincrby(keys.BOOKS, "enrich:in", 229)
    await bench.redis.hincrby(keys.BOOKS, "enrich:waiting", 229)
    context = context_of(bench)
    lengths = []
    for _ in range(3):
        await merge_some(context)
        queues = (Stage.ENRICH, keys.retried(Stage.ENRICH))
        lengths.append([await bench.redis.xlen(keys.queue(queue)) for queue in queues])
    assert lengths == [[120, 10], [40, 0], [0, 0]]
    await bench.assert_balanced()


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


async def test_a_sighting_past_its_seen_mark_changes_nothing(bench: Workbench) -> None:
    """An old event that comes again is merged into the same: the visitor is not written, nor kept any longer."""
    redis, body = bench.redis, SAMPLES["pixel"][0].body
    await bench.put("pixel", body)
    await bench.work_until(bench.is_idle)
    before = await everybody(bench)
    asked, subscribed = bench.box.memory.calls_to("enrich"), list(bench.box.memory.subscribed)
    for name in before:
        await redis.pexpire(keys.visitor(name), 1_000_000)
    scores = await redis.zrange(keys.VISITORS, 0, -1, withscores=True)
    for key in await redis.keys(keys.SEEN + "*"):  # the window is over
        await redis.delete(key)
    for key in await redis.keys(
        keys.enrichment("*")
    ):  # and so is the time in which nobody is asked again
        await redis.delete(key)

    await bench.put("pixel", body)
    await bench.work_until(bench.is_idle)
    row = await bench.row(Stage.ENRICH)
    assert row["done"] == row["in"]
    assert await everybody(bench) == before
    assert await redis.zrange(keys.VISITORS, 0, -1, withscores=True) == scores
    for name in before:
        assert await redis.pttl(keys.visitor(name)) <= 1_000_000
    assert list(bench.box.memory.subscribed) == subscribed
    assert bench.box.memory.calls_to("enrich") == asked
    await bench.assert_balanced()


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


async def test_who_was_not_asked_about_for_good_is_asked_about_at_the_next_sighting(
    make_bench: MakeBench,
) -> None:
    """A look-up by a hash that belongs to a known visitor is buried: that visitor can be asked about again."""
    await see(make_bench(enrich="off"), Person(uuid="U", personal_emails=[ADDRESS]))
    bench = make_bench()
    await make_bench(enrich="off").work_until(bench.is_idle)
    bench.box.faults.add(refused_alike("enrich"))
    await see(bench, Person(hem_sha256=digest(ADDRESS)))
    await bench.work_until(bench.is_idle)
    assert set(await everybody(bench)) == {"U"}
    assert await bench.row(Stage.ENRICH) == {"in": 2, "done": 1, "dead": 1}

    bench.box.faults.clear()
    await see(bench, Person(uuid="U"))
    await bench.work_until(bench.is_idle)
    assert (await everybody(bench))["U"].enrichment == "found"


async def test_visitors_refused_alike_are_buried_one_by_one(bench: Workbench) -> None:
    """A call is about one visitor: two alike are two odd visitors, and only twenty in a row are a setting's fault."""
    bench.box.faults.add(refused_alike("enrich"))
    async with bench.at_work():
        for n in range(4):
            await see(bench, Person(uuid=f"U-{n}", personal_emails=[ADDRESS]))
            await bench.until(partial(_are_buried, bench, n + 1))
        assert await bench.pause(Stage.ENRICH) is None


async def _are_buried(bench: Workbench, people: int) -> bool:
    return await bench.row(Stage.ENRICH) == {"in": people, "dead": people}


@pytest.mark.parametrize("result", [[{}], {}, [{"FOO": 1}]])
async def test_an_answer_without_a_column_of_a_person_is_an_outage(
    bench: Workbench, result: object
) -> None:
    """It tells nothing of whoever was asked about: they wait, and nobody is buried or taken for unknown."""
    bench.box.faults.add(Fault(endpoint="enrich", status=200, body={"found": 1, "result": result}))
    for n in range(4):
        await see(bench, Person(uuid=f"U-{n}", personal_emails=[f"person{n}@example.com"]))
    async with bench.at_work():
        await bench.until(lambda: bench.is_paused(Stage.ENRICH))
        assert await bench.row(Stage.ENRICH) == {"in": 4, "waiting": 4}
        bench.box.faults.clear()
        await bench.until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 4, "done": 4}


async def test_a_sighting_of_a_newer_version_is_read_as_far_as_it_is_known(
    bench: Workbench,
) -> None:
    """While workers are replaced one by one, an old one finds fields that it has no name for."""
    event = orjson.loads(orjson.dumps(VisitorEvent(named(ADDRESS, "U"), "1")))
    event["person"]["horoscope"] = event["mood"] = "new"
    await bench.redis.xadd(
        keys.queue(Stage.ENRICH), {"p": orjson.dumps(event), "m": Origin("pixel", 0).pack()}
    )
    for counter in ("in", "waiting"):
        await bench.redis.hincrby(keys.BOOKS, f"enrich:{counter}", 1)
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 1, "done": 1}
    assert set(await everybody(bench)) == {"U"}


async def wait_to_be_asked_about(bench: Workbench, payload: bytes) -> None:
    """Queue a look-up as another version may have written it."""
    batch = {"p": payload, "m": Origin("pixel", 0).pack()}
    await bench.redis.xadd(keys.queue(keys.batches(Stage.ENRICH)), batch)
    await bench.redis.hincrby(keys.BOOKS, "enrich:in", 1)
    await bench.redis.hincrby(keys.BOOKS, "enrich:waiting", 1)


@pytest.mark.parametrize("payload", [b'{"strange": 1}', b"[]", b"?", b'{"person": {"age": 1}}'])
async def test_a_look_up_that_cannot_be_read_is_buried(bench: Workbench, payload: bytes) -> None:
    """It is tried three times as any exception of ours, and does not stay in the way for ever."""
    await wait_to_be_asked_about(bench, payload)
    await see(bench, Person(uuid="U", personal_emails=[ADDRESS]))
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.ENRICH) == {"in": 2, "done": 1, "dead": 1}
    assert [(letter.reason, letter.attempts) for letter in await bench.dead()] == [("bug", 3)]
    await bench.assert_balanced()


# switched off ------------------------------------------------------------------------------------


async def leave_waiting(bench: Workbench, people: int) -> None:
    """Queue look-ups while AudienceLab is away, until the relay pauses their stage."""
    bench.box.faults.add(broken("enrich"))
    strangers = (Person(uuid=f"U-{n}", personal_emails=[ADDRESS]) for n in range(people))
    await see(bench, *strangers)
    async with bench.at_work():
        await bench.until(lambda: bench.is_paused(Stage.ENRICH))
        await bench.until(lambda: _are_merged(bench, people))


async def _are_merged(bench: Workbench, people: int) -> bool:
    queues = [await bench.redis.xlen(keys.queue(name)) for name in ("enrich", "enrich:raw")]
    return queues == [0, 0] and len(await everybody(bench)) == people


@pytest.mark.parametrize("key", [KEY, None])
async def test_enrich_off_asks_about_nobody_who_waits(
    make_bench: MakeBench, key: str | None
) -> None:
    """What waits is finished without a call, with or without a key and whatever pause the relay had made."""
    bench = make_bench()
    await leave_waiting(bench, 3)
    assert await bench.row(Stage.ENRICH) == {"in": 3, "waiting": 3}
    bench.box.faults.clear()
    calls = bench.box.memory.calls_to("enrich")

    await make_bench(enrich="off", audiencelab_api_key=key).work_until(bench.is_idle)
    assert bench.box.memory.calls_to("enrich") == calls
    assert await bench.row(Stage.ENRICH) == {"in": 3, "done": 3}
    assert len(await everybody(bench)) == 3
    assert await bench.pause(Stage.ENRICH) is None
    await bench.assert_balanced()


async def test_switched_on_again_whom_nobody_asked_about_is_asked_about(
    make_bench: MakeBench,
) -> None:
    """Being switched off is no answer that would be remembered for thirty days."""
    bench = make_bench()
    await leave_waiting(bench, 1)
    await make_bench(enrich="off").work_until(bench.is_idle)
    bench.box.faults.clear()

    await see(bench, Person(uuid="U-0"))
    await bench.work_until(bench.is_idle)
    assert (await everybody(bench))["U-0"].enrichment == "found"


async def test_switched_off_an_operators_pause_still_holds(make_bench: MakeBench) -> None:
    """An operator who paused the stage finds everything where it was."""
    bench, off = make_bench(), make_bench(enrich="off")
    await leave_waiting(bench, 2)
    await pauses.pause(bench.redis, Stage.ENRICH, "wait")
    await off.work()
    assert await bench.row(Stage.ENRICH) == {"in": 2, "waiting": 2}

    await pauses.resume(bench.redis, Stage.ENRICH)
    await off.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 2, "done": 2}


async def test_switched_off_a_look_up_that_cannot_be_read_is_finished_too(
    make_bench: MakeBench,
) -> None:
    """No call, no reading: whatever version wrote it."""
    bench = make_bench(enrich="off")
    await wait_to_be_asked_about(bench, b'{"strange": 1}')
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 1, "done": 1}

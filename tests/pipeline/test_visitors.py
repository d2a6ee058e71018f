"""Visitors: newer facts win, nothing known is ever lost, and everybody is found by what is known of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from pipeline import visitors
from pipeline.addresses import digest
from pipeline.clock import HOUR_MS
from pipeline.moves import Move
from pipeline.outcomes import Person, Stage, VisitorEvent
from pipeline.visitors import Visitor, absorb, add_facts, merge, visitor_id
from tests.pipeline.work import ORIGIN, add, apply, take

ANN, BOB, CID = "ann@example.com", "bob@example.org", "cid@example.net"
NOW = "2026-02-01T00:00:00Z"


def at(day: int) -> str:
    """Return a moment of January 2026."""
    return f"2026-01-{day:02}T12:00:00Z"


def seen(person: Person, day: int | None = 1, **more: Any) -> VisitorEvent:
    """Return a sighting of *person*."""
    return VisitorEvent(person, "fingerprint", seen_at=at(day) if day else None, **more)


def merged(*events: VisitorEvent, visitor: Visitor | None = None) -> Visitor:
    """Return a visitor after *events*."""
    visitor = visitor or Visitor("v")
    for event in events:
        merge(visitor, event, source="pixel", tag=None, now=NOW)
    return visitor


# merging ------------------------------------------------------------------------------------------


def test_newer_facts_win_and_blank_nothing_out() -> None:
    """A later sighting replaces what it knows and leaves what it does not know."""
    visitor = merged(
        seen(
            Person(uuid="u", fields={"FIRST_NAME": "Ann", "CITY": "Graz"}, phones=["555-0100"]), 1
        ),
        seen(Person(uuid="u", fields={"FIRST_NAME": "Anna", "CITY": ""}, phones=["555-0101"]), 2),
        seen(Person(), 3),
    )
    assert visitor.fields == {"FIRST_NAME": "Anna", "CITY": "Graz"}
    assert visitor.phones == ["555-0101", "555-0100"]
    assert (visitor.uuid, visitor.first_seen_at, visitor.last_seen_at) == ("u", at(1), at(3))
    assert visitor.is_named
    assert not Visitor("w", fields={"CITY": "Graz"}).is_named


def test_a_sighting_that_comes_again_changes_nothing() -> None:
    """Merged a second time, at whatever time and after whatever came since, it adds no page and moves no time."""
    old = seen(Person(uuid="u", fields={"CITY": "Graz"}), 1, url="/a", event_type="click")
    new = seen(Person(uuid="u", fields={"CITY": "Linz"}), 3, url="/b", event_type="click")
    visitor = merged(old, new)
    before = visitor.document()
    assert merged(old, new, old, visitor=visitor).document() == before
    assert (visitor.last_seen_at, len(visitor.pages)) == (at(3), 2)


def test_a_sighting_that_comes_again_in_another_form_is_the_same_page() -> None:
    """What one form does not tell is filled in; two kinds of event at one moment stay two."""
    whole = seen(Person(uuid="u"), 1, url="/a", event_type="click", title="Lamps", pixel_id="p")
    part = seen(Person(uuid="u"), 1, url="/a", pixel_id="p", referrer="/z")
    for first, second in ((whole, part), (part, whole)):
        (page,) = merged(first, second).pages
        assert page == {
            "at": at(1), "url": "/a", "event_type": "click", "title": "Lamps", "pixel_id": "p", "referrer": "/z",
        }  # fmt: skip
    other = seen(Person(uuid="u"), 1, url="/a", event_type="page_view", pixel_id="p")
    assert len(merged(whole, other).pages) == 2


def test_a_page_without_a_moment_is_kept_once() -> None:
    """Its body tells no time, so each merge would see it at another one."""
    event = seen(Person(uuid="u"), None, url="/a")
    visitor = merged(event)
    merge(visitor, event, source="pixel", tag=None, now="2026-03-01T00:00:00Z")
    assert [page["at"] for page in visitor.pages] == [NOW]
    assert visitor.last_seen_at == "2026-03-01T00:00:00Z"


def test_the_last_fifty_pages_stay_those_when_older_ones_come_again() -> None:
    """A page that has left the list for newer ones does not push one of them out."""
    events = [
        VisitorEvent(Person(uuid="u"), "f", seen_at=f"2026-01-01T00:{n:02}:00Z", url=f"/{n}")
        for n in range(60)
    ]
    visitor = merged(*events)
    before = visitor.document()
    assert merged(*events[:20], visitor=visitor).document() == before


def test_a_second_and_its_fractions_are_ordered() -> None:
    """The text of a whole second sorts behind its fractions; the time does not go back by that."""
    half, whole = "2026-01-01T00:00:00.500Z", "2026-01-01T00:00:00Z"
    for times in ((half, whole), (whole, half)):
        events = [VisitorEvent(Person(uuid="u"), "f", seen_at=each) for each in times]
        visitor = merged(*events)
        assert (visitor.first_seen_at, visitor.last_seen_at) == (whole, half)


def test_older_facts_only_fill_what_is_unknown() -> None:
    """A sighting that arrives late changes nothing that a newer one told."""
    visitor = merged(
        seen(Person(uuid="new", fields={"FIRST_NAME": "Anna"}, personal_emails=[ANN]), 9),
        seen(
            Person(uuid="old", edid="e", fields={"FIRST_NAME": "Ann", "CITY": "Graz"},
                   personal_emails=[BOB]), 2,
        ),
    )  # fmt: skip
    assert visitor.fields == {"FIRST_NAME": "Anna", "CITY": "Graz"}
    assert (visitor.uuid, visitor.edid) == ("new", "e")
    assert visitor.personal_emails == [ANN, BOB]
    assert (visitor.first_seen_at, visitor.last_seen_at) == (at(2), at(9))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 28), st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["", "x", "y"]))
        ),
        max_size=8,
    )
)  # fmt: skip
def test_whatever_comes_nothing_known_becomes_unknown(
    sightings: list[tuple[int, dict[str, str | list[str]]]],
) -> None:
    """In any order of sightings, a field that was known stays known."""
    visitor = Visitor("v")
    for day, fields in sightings:
        known = {name for name, value in visitor.fields.items() if value}
        merged(seen(Person(fields=fields), day), visitor=visitor)
        told = {name for name, value in fields.items() if value}
        assert {name for name, value in visitor.fields.items() if value} == known | told


def test_an_event_without_a_time_was_seen_now() -> None:
    """An audience tells no time: the moment of the merge stands in for it."""
    visitor = merged(seen(Person(uuid="u"), None, event_type="member"))
    assert visitor.last_seen_at == NOW
    assert visitor.pages == [{"at": NOW, "event_type": "member"}]


def test_sources_and_tags_are_collected() -> None:
    """Every source and every tag of a hook's URL is kept, each once."""
    visitor = Visitor("v")
    for source, tag in (("pixel", "a"), ("audience", None), ("pixel", "b"), ("pixel", "a")):
        merge(visitor, seen(Person()), source=source, tag=tag, now=NOW)
    assert visitor.sources == ["pixel", "audience"]
    assert visitor.tags == ["a", "b"]


def test_the_last_fifty_pages_are_kept() -> None:
    """Pages are kept in the order of their time, each once, the oldest leave first."""
    events = [
        VisitorEvent(Person(), "f", seen_at=f"2026-01-01T00:{n:02}:00Z", url=f"https://example.com/{n}")
        for n in range(60)
    ]  # fmt: skip
    visitor = merged(*reversed(events), *events, seen(Person(), 1))
    assert [page["url"][20:] for page in visitor.pages] == [str(n) for n in range(10, 60)]
    assert visitors.page_of(seen(Person()), NOW) is None
    page = visitors.page_of(
        seen(Person(), url="https://example.com", title="T", referrer="R", pixel_id="P"), NOW
    )
    assert page == {
        "at": NOW, "url": "https://example.com", "title": "T", "referrer": "R", "pixel_id": "P",
    }  # fmt: skip


# who it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        (Person(uuid="u", edid="e", hem_sha256="h"), "u"),
        (Person(edid="e", hem_sha256="h"), "e"),
        (Person(hem_sha256="h", personal_emails=[ANN]), "h"),
        (Person(verified_emails=[ANN], personal_emails=[BOB], business_emails=[CID]), digest(ANN)),
        (Person(personal_emails=[BOB], business_emails=[CID], hashes=["x"]), digest(BOB)),
        (Person(business_emails=[CID], hashes=["x"]), digest(CID)),
        (Person(hashes=["x", "y"], phones=["555-0100"]), "x"),
        (Person(fields={"FIRST_NAME": "Ann"}), None),
        (Person(uuid="u" * 500), "u" * 128),
    ],
)
def test_a_person_has_one_id(person: Person, expected: str | None) -> None:
    """UUID, else EDID, else the hash of an address; nobody without any of them."""
    assert visitor_id(person) == expected


def test_a_phone_is_an_id_that_does_not_show_it() -> None:
    """Somebody known by a phone only is found by its hash, never by the number."""
    name = visitor_id(Person(phones=["555-0100"]))
    assert name is not None
    assert name.startswith("phone:")
    assert "555" not in name[:9]


@pytest.mark.parametrize(
    ("visitor", "expected"),
    [
        (Visitor("v", hem_sha256=digest(CID), verified_emails=[ANN], business_emails=[CID]), CID),
        (Visitor("v", hem_sha256=digest(CID), verified_emails=[ANN]), digest(CID)),
        (Visitor("v", verified_emails=[ANN], personal_emails=[BOB], business_emails=[CID]), ANN),
        (Visitor("v", personal_emails=[BOB], business_emails=[CID]), BOB),
        (Visitor("v", business_emails=[CID]), CID),
        (Visitor("v", hashes=["x"]), None),
    ],
)
def test_the_identified_address(visitor: Visitor, expected: str | None) -> None:
    """The known one with the hash they were resolved by, else that hash, else verified, personal, business."""
    assert visitor.identified_address() == expected


def test_everything_known_is_an_identity() -> None:
    """A tombstone may stand on id, UUID, EDID, or the hash of any address, each once."""
    visitor = Visitor(
        "e", uuid="u", edid="e", hem_sha256="h", personal_emails=[ANN], business_emails=[ANN], hashes=["x"]
    )  # fmt: skip
    assert visitor.identities == ["e", "u", digest(ANN), "x", "h"]
    assert visitor.emails == [ANN]


# absorbing ----------------------------------------------------------------------------------------


def test_an_absorbed_visitor_leaves_everything_behind() -> None:
    """What the surviving one knows wins, what it does not know it takes over, and sightings span both."""
    survivor = merged(
        seen(Person(uuid="u", fields={"FIRST_NAME": "Anna"}, personal_emails=[ANN]), 5, url="https://example.com/5")
    )  # fmt: skip
    other = merged(
        seen(Person(hem_sha256=digest(BOB), fields={"FIRST_NAME": "Ann", "CITY": "Graz"},
                    verified_emails=[BOB], hashes=["x"]), 3, url="https://example.com/3"),
        seen(Person(), 9, url="https://example.com/9"),
        visitor=Visitor("h", scores={"open": "high"}, scores_changed_at=at(4), tags=["t"]),
    )  # fmt: skip
    absorb(survivor, other)
    assert survivor.fields == {"FIRST_NAME": "Anna", "CITY": "Graz"}
    assert (survivor.uuid, survivor.hem_sha256) == ("u", digest(BOB))
    assert survivor.emails == [BOB, ANN]
    assert [page["at"] for page in survivor.pages] == [at(3), at(5), at(9)]
    assert (survivor.first_seen_at, survivor.last_seen_at) == (at(3), at(9))
    assert (survivor.scores, survivor.scores_changed_at) == ({"open": "high"}, at(4))
    assert survivor.tags == ["t"]


def test_sightings_of_one_second_are_in_order_when_two_become_one() -> None:
    """A whole second comes before its fractions, though `Z` comes after the dot."""
    whole, half = "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.500Z"
    survivor = Visitor("u", first_seen_at=half, last_seen_at=half, pages=[{"at": half, "url": "b"}])
    absorb(
        survivor,
        Visitor("h", first_seen_at=whole, last_seen_at=whole, pages=[{"at": whole, "url": "a"}]),
    )
    assert (survivor.first_seen_at, survivor.last_seen_at) == (whole, half)
    assert [page["url"] for page in survivor.pages] == ["a", "b"]


def test_absorbing_keeps_what_the_survivor_has() -> None:
    """Scores of the surviving visitor stay, and visitors never seen have no sightings to merge."""
    survivor = Visitor("u", scores={"open": "low"}, scores_changed_at=at(8))
    absorb(survivor, Visitor("h", scores={"open": "high"}, scores_changed_at=at(9)))
    assert (survivor.scores, survivor.scores_changed_at) == ({"open": "low"}, at(8))
    assert (survivor.first_seen_at, survivor.last_seen_at) == (None, None)


def test_facts_without_a_sighting_fill_gaps_first() -> None:
    """An enrichment adds to a visitor; as the newer fact it also replaces."""
    visitor = Visitor("v", edid="e", fields={"CITY": "Graz"}, verified_emails=[ANN])
    add_facts(visitor, Person(edid="f", fields={"CITY": "Linz"}, verified_emails=[BOB]))
    assert (visitor.edid, visitor.fields["CITY"], visitor.verified_emails) == (
        "f", "Linz", [BOB, ANN],
    )  # fmt: skip


# keeping ------------------------------------------------------------------------------------------


async def keep(redis: Redis, *kept: Visitor) -> None:
    """Write visitors and the hashes of their addresses."""
    await add(redis, Stage.ENRICH, [b"event"])
    (entry,) = await take(redis, Stage.ENRICH)
    move = Move("enrich", [entry.id])
    for visitor in kept:
        move.save_visitor(visitor.id, "1", visitor.document(), 5, HOUR_MS)
        for name in visitor.digests:
            move.alias(name, visitor.id, HOUR_MS)
    move.subscribe(digest(ANN), ANN, ORIGIN)
    move.settle(Stage.ENRICH, "done")
    await apply(redis, move)


@pytest.mark.anyio
async def test_a_visitor_is_found_by_whatever_is_known(redis: Redis) -> None:
    """By an address in any case, by its hash, or by the id; what was written is what is read."""
    ann = merged(
        seen(
            Person(uuid="v", personal_emails=[ANN], fields={"LANGUAGES": ["de", "sl"]}), 2, url="u"
        )
    )
    await keep(redis, ann, Visitor("w"))
    for wanted in ("v", " Ann@Example.COM ", digest(ANN)):
        found = await visitors.find(redis, wanted)
        assert found is not None
        assert found.version == "1"
        found.version = ""
        assert found == ann
    assert await visitors.find(redis, BOB) is None
    assert ann.view()["personal_emails"] == [ANN]
    assert "version" not in ann.view()
    assert sorted([name async for name in visitors.ids(redis)]) == ["v", "w"]


@pytest.mark.anyio
async def test_reading_nobody_and_those_who_are_gone(redis: Redis) -> None:
    """Asking for nobody asks nothing; a visitor that is gone is absent, not empty."""
    assert await visitors.fetch(redis, []) == {}
    assert await visitors.fetch(redis, ["gone"]) == {}
    assert await visitors.owners(redis, []) == {}
    assert await visitors.owners(redis, ["gone"]) == {}


@pytest.mark.anyio
async def test_subscriptions_are_told_by_address(redis: Redis) -> None:
    """Each address of a visitor that is watched or waits says so; the others are absent."""
    ann = Visitor("v", personal_emails=[ANN, BOB])
    await keep(redis, ann)
    assert await visitors.subscriptions(redis, ann) == {digest(ANN): "waiting"}


@pytest.mark.anyio
async def test_many_visitors_are_walked(redis: Redis) -> None:
    """A walk meets every visitor, however many there are."""
    names = {f"v{n}" for n in range(1_200)}
    await keep(redis, *(Visitor(name) for name in names))
    assert {name async for name in visitors.ids(redis)} == names

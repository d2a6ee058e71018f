"""Arrivals: each delivery leaves a note with the move that ends it, without anything of what was sent."""

from __future__ import annotations

import orjson
import pytest
from redis.asyncio import Redis

from pipeline import arrivals, dead_letters, drills, imports, keys
from pipeline.arrivals import Arrival, Cursor, Note
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from pipeline.moves import Move, Result
from pipeline.outcomes import Reason, Stage
from tests.flow.conftest import bench, box, make_bench
from tests.pipeline.burials import bury_delivery
from tests.pipeline.work import apply, full, image, put, take
from tests.workbench import Workbench, mail_event, mail_events
from workers import handing_over

pytestmark = pytest.mark.anyio

__all__ = ["bench", "box", "make_bench"]

AT_MS = 1_767_225_600_000


def note(name: str, source: str = "events", fate: arrivals.Fate = "done") -> Note:
    """Return the note of a delivery of one event, 10 bytes long."""
    return (name, source, 1, 10, AT_MS, "hook", fate, 1, 0, 0, "")


async def leave(redis: Redis, *notes: Note) -> None:
    """Leave *notes* with one move."""
    await put(redis)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    move.settle(Stage.UNPACK, "done")
    for each in notes:
        move.arrived(each)
    await apply(redis, move)


async def everything(redis: Redis, source: str | None = None) -> list[Arrival]:
    """Return all arrivals that are known, newest first."""
    found, further = await arrivals.look(redis, source, None, 100_000)
    assert further is None
    return found


async def test_each_delivery_leaves_what_it_came_to(bench: Workbench) -> None:
    """Fate, size, events of every kind and the tag, under its own id; a dead one's is that of its letter."""
    wrong = mail_event(3, type="Nothing")
    mixed = orjson.dumps([mail_event(0), mail_event(1), wrong])
    deferred = orjson.dumps([{"event": "deferred", "email": "ann@example.com", "timestamp": 1}])
    (done, dead) = await bench.put("events", mixed, b'{"what": "is this"}', tag="spring")
    (probe,) = await bench.put("pixel", b"{}")
    (ignored,) = await bench.put("sendgrid", deferred)
    await bench.work_until(bench.is_idle)

    found = {one.id: one for one in await everything(bench.redis)}
    told = {i: (one.answer, one.fate, one.taken, one.ignored, one.invalid, one.tag, one.size)
            for i, one in found.items()}  # fmt: skip
    assert told == {
        done: (202, "done", 2, 0, 1, "spring", len(mixed)),
        dead: (202, "dead", 0, 0, 0, "spring", 19),
        probe: (202, "ignored", 0, 0, 0, "", 2),
        ignored: (200, "done", 0, 1, 0, "", len(deferred)),
    }
    assert [letter.id for letter in await bench.dead(Stage.UNPACK)] == [dead]


async def test_nothing_that_was_sent_stands_in_it(bench: Workbench) -> None:
    """No body, no address, no header."""
    await bench.put("events", orjson.dumps(mail_event(0)), b"what ann@example.com wrote")
    await bench.work_until(bench.is_idle)
    stored = repr(await bench.redis.xrange(keys.ARRIVALS))
    assert "@" not in stored
    assert "send" not in stored


async def test_a_large_delivery_is_noted_once(bench: Workbench) -> None:
    """Its slices leave no note, the last move one with all of its events."""
    await bench.put("events", mail_events(2 * handing_over.SLICE + 10))
    await bench.work_until(bench.is_idle)
    (one,) = await everything(bench.redis)
    assert one.taken == 2 * handing_over.SLICE + 10


async def test_a_drill_leaves_none(bench: Workbench) -> None:
    """What the doctor sends is no delivery of anybody."""
    await bench.put("events", drills.body("0123456789abcdef", 1_767_225_600))
    await bench.work_until(bench.is_idle)
    assert await everything(bench.redis) == []


async def test_what_an_import_fetched_was_answered_nothing(bench: Workbench) -> None:
    """It is told with the others, and without an answer."""
    about = {imports.HEADER: "segment:1"}
    fetched = Delivery(new_delivery_id(), "audience", b"[]", AT_MS, headers=about)
    await Inbox(bench.redis).put([fetched])
    await bench.work_until(bench.is_idle)
    (one,) = await everything(bench.redis)
    assert (one.id, one.answer) == (fetched.id, None)


async def test_a_retry_is_answered_to_nobody(bench: Workbench) -> None:
    """What was answered 400 and is retried stands there twice; nothing says that it was ever answered 202."""
    inbox = Inbox(bench.redis)
    refused = Delivery(new_delivery_id(), "events", b"<", AT_MS)
    await inbox.bury(refused, Reason.MALFORMED, "not JSON")
    assert await dead_letters.retry(bench.redis, refused.id)
    await bench.put("events", mail_events(1))
    await bench.work_until(bench.is_idle)
    found = await everything(bench.redis)
    assert [one.answer for one in found if one.id == refused.id] == [None, 400]
    assert [one.answer for one in found if one.id != refused.id] == [202]
    await bench.assert_balanced()


async def test_what_a_newer_release_adds_is_passed_over(redis: Redis) -> None:
    """A note with more in it than is known here is read all the same."""
    longer = orjson.dumps([[*note("a"), "more", {"and": "more"}]])
    await redis.xadd(keys.ARRIVALS, {"d": longer})
    assert [one.id for one in await everything(redis)] == ["a"]


async def test_a_move_notes_once(redis: Redis) -> None:
    """A second run of the same move changes nothing; also on a full server the first one is whole."""
    await put(redis)
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    move.settle(Stage.UNPACK, "done")
    move.arrived(note("a"))
    async with full(redis):
        assert (await apply(redis, move)).results == [Result.DONE]
    before = await image(redis)
    assert (await apply(redis, move)).results == [Result.GONE]
    assert await image(redis) == before
    assert [one.id for one in await everything(redis)] == ["a"]


async def test_moves_of_one_call_share_entries(redis: Redis) -> None:
    """Of fifty moves each is noted in its place; one that does not happen is not, and three entries hold all."""
    for _ in range(50):
        await put(redis)
    entries = await take(redis, most=50)
    moves = [Move(entry.queue, [entry.id]) for entry in (*entries, entries[7])]
    for n, move in enumerate(moves):
        move.settle(Stage.UNPACK, "done")
        move.arrived(note(str(n)))
    assert (await apply(redis, *moves)).results == [Result.DONE] * 50 + [Result.GONE]
    assert [one.id for one in await everything(redis)] == [str(n) for n in reversed(range(50))]
    assert await redis.xlen(keys.ARRIVALS) == 3


async def test_of_a_large_flush_the_rest_is_summed_up(redis: Redis) -> None:
    """Twenty are listed, the dead ones among them; sums by source and fate leave nothing out."""
    notes = [note(f"e{n}") for n in range(150)] + [note(f"s{n}", "ses") for n in range(100)]
    await leave(redis, *notes, *(note(f"d{n}", fate="dead") for n in range(6)))
    found = await everything(redis)
    listed = [one.id for one in found if one.id]
    assert len(listed) == arrivals.MOST_LISTED
    assert listed[:6] == ["d5", "d4", "d3", "d2", "d1", "d0"]
    sums = [(one.source, one.deliveries, one.size, one.taken) for one in found if not one.id]
    assert sums == [("ses", 86, 860, 86), ("events", 150, 1500, 150)]
    assert sum(one.deliveries for one in found) == 256


async def test_the_stream_stays_short(redis: Redis) -> None:
    """However many moves there are, about a thousand entries are kept."""
    for _ in range(13):
        for _ in range(100):
            await put(redis)
        entries = await take(redis, most=200)
        moves = [Move(entry.queue, [entry.id]) for entry in entries]
        for move in moves:
            move.settle(Stage.UNPACK, "done")
            for _ in range(arrivals.MOST_LISTED):
                move.arrived(note("a"))
        await apply(redis, *moves)
    assert 1000 <= await redis.xlen(keys.ARRIVALS) < 1200


async def test_a_look_goes_on_where_it_ended(redis: Redis) -> None:
    """Page by page each is met once, newest first, also in the middle of an entry and while others arrive."""
    for n in range(60):
        await leave(redis, note(f"{n}a"), note(f"{n}b", "ses"), note(f"{n}c"))
    for source, expected in (
        (None, [f"{n}{which}" for n in reversed(range(60)) for which in "cba"]),
        ("ses", [f"{n}b" for n in reversed(range(60))]),
        ("pixel", []),
    ):
        met: list[str] = []
        cursor: Cursor | None = None
        while True:
            found, cursor = await arrivals.look(redis, source, cursor, 7)
            met += [one.id for one in found]
            if cursor is None:
                break
            await leave(redis, note("later", "brevo"))
        assert [one for one in met if one != "later"] == expected


async def test_a_body_answered_400_leads_to_its_letter(redis: Redis) -> None:
    """The same body again is noted again, with the letter that keeps the first; a second run notes nothing."""
    inbox = Inbox(redis)
    first, again = (Delivery(new_delivery_id(), "ses", b"<", AT_MS + n) for n in range(2))
    for each in (first, first, again):
        await inbox.bury(each, Reason.MALFORMED, "not JSON")
    found = await everything(redis)
    assert [(one.id, one.received_at_ms) for one in found] == [
        (first.id, AT_MS + 1),
        (first.id, AT_MS),
    ]
    assert {(one.answer, one.fate, one.size) for one in found} == {(400, "dead", 1)}


# what waits ---------------------------------------------------------------------------------------------


def waiting_one(n: int, size: int = 10, source: str = "events", tag: str | None = None) -> Delivery:
    """Return a delivery that was received *n* milliseconds later than the first one."""
    return Delivery(f"{n:024x}", source, b"x" * size, AT_MS + n, "application/json", tag)


async def test_the_newest_that_wait_are_told(redis: Redis) -> None:
    """Time, source, size of the body, answer and tag of the last twenty, also of several that share an entry."""
    for first in range(0, 30, 5):
        await Inbox(redis).put([waiting_one(first + n, size=first + n) for n in range(5)])
    await Inbox(redis).put([waiting_one(30, 7, "pixel", "spring")])
    found = await arrivals.waiting(redis)
    assert [one.received_at_ms - AT_MS for one in found] == list(range(30, 10, -1))
    assert [one.size for one in found] == [7, *range(29, 10, -1)]
    assert (found[0].source, found[0].tag, found[0].answer, found[0].fate) == (
        *("pixel", "spring", 202, "waiting"),
    )


async def test_those_in_a_workers_hands_wait_still(redis: Redis) -> None:
    """What was taken and not yet moved has no other place."""
    await put(redis)
    await take(redis)
    assert len(await arrivals.waiting(redis)) == 1


async def test_one_that_was_retried_was_answered_long_ago(redis: Redis) -> None:
    """It waits as any other, and nobody is answered for it now."""
    letter = await bury_delivery(redis, b"\xff")
    assert await dead_letters.retry(redis, letter)
    (found,) = await arrivals.waiting(redis)
    assert (found.id, found.size, found.answer) == (letter, 1, None)


async def test_large_ones_are_not_all_looked_into(redis: Redis) -> None:
    """After some megabytes no older delivery is read, so that Redis is not kept busy by a page."""
    for n in range(8):
        await Inbox(redis).put([waiting_one(n, size=1_500_000)])
    assert len(await arrivals.waiting(redis)) == 3


async def test_a_proof_that_is_waited_for_does_not_hide_a_delivery(redis: Redis) -> None:
    """Those that were set aside are told among the others, by their time."""
    await Inbox(redis).put([waiting_one(1)])
    (entry,) = await take(redis)
    move = Move(entry.queue, [entry.id])
    handing_over.set_aside(move, [waiting_one(1)])
    await apply(redis, move)
    await Inbox(redis).put([waiting_one(2), waiting_one(0)])
    found = await arrivals.waiting(redis)
    assert [one.received_at_ms - AT_MS for one in found] == [2, 1, 0]

"""Unpack: slices with a cursor, deliveries of one flush that do not share their fates."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import pytest

from pipeline import dead_letters
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox
from pipeline.moves import Move
from pipeline.outcomes import MailEvent, Outcome, Stage
from pipeline.queues import Entry
from tests.workbench import Workbench, mail_events
from workers import handing_over, reading, unpack
from workers.context import Context
from workers.fates import BUG_TRIES

pytestmark = pytest.mark.anyio


async def test_a_large_delivery_leaves_in_slices(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 500 events are handed over in moves of at most 500, and the delivery is done once."""
    sizes: list[int] = []
    events: list[int] = []
    write, hand_over = unpack.write, handing_over.hand_over

    async def watched(context: Context, moves: list[Move]) -> None:
        sizes.append(sum(move.weight for move in moves))
        await write(context, moves)

    def counted(context: Context, move: Move, found: Sequence[tuple[Delivery, Outcome]]) -> None:
        events.append(len(found))
        hand_over(context, move, found)

    monkeypatch.setattr(unpack, "write", watched)
    monkeypatch.setattr(handing_over, "hand_over", counted)
    await bench.put("events", mail_events(2500))
    await bench.work_until(bench.is_idle)

    assert len(sizes) == 5
    assert events == [handing_over.SLICE] * 5
    assert max(sizes) <= handing_over.SLICE + 3  # they travel as one effect; the last also settles
    assert await bench.row(Stage.UNPACK) == {"in": 1, "done": 1}
    assert await bench.row(Stage.FORWARD) == {"in": 2500, "done": 2500}
    assert await bench.redis.hlen("{relay}:cursors") == 0
    await bench.assert_balanced()


async def test_a_crash_between_slices_goes_on_where_it_stopped(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure in the middle of a delivery no event is lost, doubled or called a duplicate."""
    written = 0
    write = unpack.write

    async def failing(context: Context, moves: list[Move]) -> None:
        nonlocal written
        written += 1
        if written == 4:
            raise ConnectionError("Redis went away")
        await write(context, moves)

    monkeypatch.setattr(unpack, "write", failing)
    await bench.put("events", mail_events(3000))
    await bench.work_until(bench.is_idle)

    assert written > 4
    assert await bench.row(Stage.FORWARD) == {"in": 3000, "done": 3000}
    assert len(bench.arrived) == 3000


async def test_large_deliveries_are_read_beside_the_loop(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long to read is read in another thread, and slices leave one by one."""
    threads: dict[int, int] = {}
    made: list[int] = []
    left: list[int] = []
    read, make_moves, write = reading.read, handing_over.make_moves, unpack.write

    def noted(context: Context, delivery: Delivery, *rest: Any) -> reading.Read:
        threads[len(delivery.body)] = threading.get_ident()
        return read(context, delivery, *rest)

    def counted(*args: Any) -> Iterator[Move]:
        for move in make_moves(*args):
            made.append(move.weight)
            yield move

    async def watched(context: Context, moves: list[Move]) -> None:
        left.append(len(made))
        await write(context, moves)

    monkeypatch.setattr(reading, "read", noted)
    monkeypatch.setattr(handing_over, "make_moves", counted)
    monkeypatch.setattr(unpack, "write", watched)
    small, large = mail_events(1), mail_events(4000, first=1)
    assert len(large) > reading.LARGE
    await bench.put("events", large)
    await bench.put("events", small)
    await bench.work_until(bench.is_idle)

    assert threads[len(small)] == threading.get_ident() != threads[len(large)]
    # while one slice is written, the next one is made, and no more
    assert left[:8] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert await bench.row(Stage.FORWARD) == {"in": 4001, "done": 4001}


async def test_our_fault_behind_slices_that_left_buries_the_delivery_at_last(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What left goes on, nothing of it twice; the delivery is a dead letter in the end, and the next one leaves."""
    hand_over_one = handing_over.hand_over_one
    handed: list[str] = []

    def failing(move: Move, delivery: Delivery, outcome: Outcome, email_format: Any) -> None:
        assert isinstance(outcome, MailEvent)
        if outcome.email == "person1700@example.com":
            raise ZeroDivisionError
        handed.append(outcome.email)
        hand_over_one(move, delivery, outcome, email_format)

    monkeypatch.setattr(handing_over, "hand_over_one", failing)
    (wrong,) = await bench.put("events", mail_events(2500))
    await bench.put("events", mail_events(3, first=2500))
    await bench.work_until(bench.is_idle)

    assert [letter.id for letter in await bench.dead(Stage.UNPACK)] == [wrong]
    assert await bench.row(Stage.UNPACK) == {"in": 2, "done": 1, "dead": 1}
    assert sorted(bench.arrived) == sorted(
        f"person{n}@example.com" for n in (*range(1500), *range(2500, 2503))
    )
    # three slices once; of the fourth what comes before the fault, as often as there are tries
    assert handed.count("person0@example.com") == 1
    assert handed.count("person1501@example.com") <= BUG_TRIES + 1
    assert await bench.redis.hlen("{relay}:cursors") == 0
    await bench.assert_balanced()


async def test_deliveries_of_one_flush_have_their_own_fates(bench: Workbench) -> None:
    """An unreadable one, a probe and an unknown source are told apart; the good one goes on."""
    ids = await bench.put("events", b'{"what": "is this"}', mail_events(2))
    await bench.put("pixel", b'[{"test": true}]', b"{}")
    await bench.put("braze", b"{}")
    await bench.work_until(bench.is_idle)

    letters = await bench.dead(Stage.UNPACK)
    assert ids[0] in {letter.id for letter in letters}
    assert {letter.reason for letter in letters} <= {"unknown_shape", "malformed"}
    assert "braze" in {letter.source for letter in letters}
    assert len(bench.arrived) == 2
    row = await bench.row(Stage.UNPACK)
    assert row["in"] == 5
    assert row.get("ignored", 0) >= 1
    await bench.assert_balanced()


async def test_our_fault_in_one_of_several_entries_holds_up_none_of_the_others(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are read together; where ours fails on one of them, it is tried three times and the others leave."""
    tried: list[str] = []
    read = reading.read

    def failing(
        context: Context, delivery: Delivery, found: reading.Proofs, faults: Mapping[str, str]
    ) -> reading.Read:
        if delivery.id == wrong and wrong not in faults:
            tried.append(wrong)
            raise reading.OurFault(wrong) from ZeroDivisionError()
        return read(context, delivery, found, faults)

    monkeypatch.setattr(reading, "read", failing)
    await bench.put("events", mail_events(2))
    (wrong,) = await bench.put("brevo", b"{}")
    await bench.put("events", mail_events(3, first=2))
    await bench.work_until(bench.is_idle)

    assert [(one.id, one.reason) for one in await bench.dead(Stage.UNPACK)] == [(wrong, "bug")]
    assert tried == [wrong] * BUG_TRIES
    assert await bench.row(Stage.UNPACK) == {"in": 3, "done": 2, "dead": 1}
    assert await bench.row(Stage.FORWARD) == {"in": 5, "done": 5}
    await bench.assert_balanced()


async def test_what_is_read_source_by_source_is_put_where_it_belongs(bench: Workbench) -> None:
    """Deliveries of several sources in several entries: each entry has what its own tell, in their order."""
    now = int(time.time() * 1000)
    bodies = [("scores", b"{}"), ("events", mail_events(1)), ("brevo", b"{}"), ("events", b"[]")]
    came = [Delivery(new_delivery_id(), *bodies[n % 4], now, "application/json") for n in range(12)]
    payloads = [one.pack() for one in came]
    group = [
        reading.opened_of(Entry("unpack", "1-0", payloads[:5], [])),
        reading.opened_of(Entry("unpack", "2-0", payloads[5:], [])),
    ]
    async with bench.at_work() as worker:
        reading.read_all(worker.ctx["context"], group)

    first, second = ([read.delivery for read in one.reads] for one in group)
    assert (first, second) == (came[:5], came[5:])
    found = [len(read.outcomes) for one in group for read in one.reads]
    assert found == [0, 1, 0, 0] * 3


async def test_what_was_stored_twice_and_cannot_be_read_is_one_letter(bench: Workbench) -> None:
    """A delivery that was stored and spilled dies once: its second copy is a duplicate, also in the books."""
    now = int(time.time() * 1000)
    one = Delivery(new_delivery_id(), "events", b"not JSON", now, "application/json")
    for _ in range(2):
        await Inbox(bench.redis).put([one])
    await bench.work_until(bench.is_idle)

    (letter,) = await bench.dead(Stage.UNPACK)
    assert (letter.id, letter.count) == (one.id, 2)
    assert await bench.row(Stage.UNPACK) == {"in": 2, "dead": 1, "duplicate": 1}
    await bench.assert_balanced()
    assert await dead_letters.drop(bench.redis, [letter.id]) == 1
    assert await bench.row(Stage.UNPACK) == {"in": 2, "dropped": 1, "duplicate": 1}
    await bench.assert_balanced()


async def test_a_dead_event_is_read_again_when_it_is_retried(bench: Workbench) -> None:
    """What was wrong and still is, is buried again; the stage is not held up by it."""
    await bench.put("events", orjson.dumps([{"email": "a@example.com", "type": "Nothing"}]))
    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead()
    await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 1, "dead": 1}
    await bench.assert_balanced()

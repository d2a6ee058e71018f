"""What happens to work that fails, row by row: outages, wrong keys, quotas, poison, bugs, independence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from functools import partial

import orjson
import pytest

from pipeline import keys, pauses
from pipeline.addresses import digest
from pipeline.deliveries import Delivery
from pipeline.outcomes import EventType, MailEvent, Outcome, Stage
from pipeline.sources import Rules
from pipeline.sources.registry import SOURCES
from sandbox.faults import (
    Fault,
    broken,
    firewalled,
    poisoned,
    quota_exceeded,
    refused_alike,
    reset,
    slow,
    stored_then_504,
    throttled,
)
from sandbox.samples import SAMPLES, fresh
from tests.workbench import Workbench, mail_event, mail_events
from workers import forward
from workers.batches import Item

pytestmark = pytest.mark.anyio

UNAVAILABLE = Fault(endpoint="events", status=503, body={"message": "Service Unavailable"})


def addresses(numbers: Sequence[int]) -> set[str]:
    """Return the addresses of the events of *numbers*."""
    return {f"person{n}@example.com" for n in numbers}


async def fail_until_paused(bench: Workbench, *faults: Fault) -> Mapping[str, str | None]:
    """Work under *faults* until `forward` is paused, then lift them and work to the end."""
    bench.box.faults.add(*faults)
    async with bench.at_work():
        await bench.until(lambda: bench.is_paused(Stage.FORWARD))
        pause = await bench.pause(Stage.FORWARD)
        assert pause is not None
        bench.box.faults.clear()
        await bench.until(bench.is_idle)
        assert await bench.pause(Stage.FORWARD) is None
    return pause


# the destination's fault ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        UNAVAILABLE,
        broken("events"),
        reset("events"),
        throttled("events"),
        Fault(endpoint="events", status=200, body={"message": "ok"}),
        Fault(endpoint="events", status=200, body="<html>maintenance</html>"),
        Fault(endpoint="events", status=503, latency_s=0.05),
    ],
    ids=["503", "500", "reset", "429", "without-keys", "html", "slow-503"],
)
async def test_an_outage_pauses_and_nothing_dies(bench: Workbench, fault: Fault) -> None:
    """Five failures in a row pause the stage by the relay's own word; after the outage all arrives."""
    await bench.put("events", mail_events(70))
    pause = await fail_until_paused(bench, fault)

    assert pause["by"] == "relay"
    assert "AudiencePoint" in str(pause["reason"])
    assert pause["until"] is not None
    assert set(bench.arrived) == addresses(range(70))
    assert await bench.row(Stage.FORWARD) == {"in": 70, "done": 70}
    await bench.assert_balanced()


async def test_an_outage_that_begins_while_others_succeed_buries_nothing(bench: Workbench) -> None:
    """A success shortly before an outage does not make the outage an item's fault."""
    await bench.put("events", mail_events(300))
    bench.box.faults.add(
        slow("events", 0.05, times=2), Fault(endpoint="events", status=503, times=60)
    )
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 300, "done": 300}
    assert set(bench.arrived) == addresses(range(300))


async def test_an_outage_that_lets_some_calls_pass_buries_nothing(bench: Workbench) -> None:
    """Where what failed passes later, single successes do not tell that the vendor is well and the item is not."""
    rounds = [
        Fault(endpoint="events", status=503, body={"message": "Service Unavailable"}, times=11),
        Fault(endpoint="events", times=1),
    ]
    bench.box.faults.add(*rounds * 30)
    await bench.put("events", mail_events(600))
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 600, "done": 600}


async def test_a_vendor_that_forbids_every_second_call_buries_nothing(bench: Workbench) -> None:
    """One of two machines over there refuses: what is held does not come back in step with it."""
    rounds = [Fault(endpoint="events", times=1), replace(firewalled("events"), times=1)]
    bench.box.faults.add(*rounds * 300)
    async with bench.at_work():
        for n in range(60):
            await bench.put("events", mail_events(2, 2 * n))
            await bench.until(partial(_has_come_to, bench, 2 * n))
        bench.box.faults.clear()
        await bench.until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 120, "done": 120}


async def test_connections_that_break_are_never_an_events_fault(bench: Workbench) -> None:
    """Without an answer nothing is known of the event, however often it happens to the same one while others pass."""
    bench.box.faults.add(replace(reset("events", "before"), addresses=["person0@example.com"]))
    await bench.put("events", mail_events(1))
    async with bench.at_work():
        for n in range(1, 8):
            await bench.put("events", orjson.dumps([mail_event(n)]))
            await bench.until(partial(_arrived, bench, n))
        assert await bench.row(Stage.FORWARD) == {"in": 8, "waiting": 1, "done": 7}
        bench.box.faults.clear()
        await bench.until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 8, "done": 8}


async def test_an_outage_does_not_break_up_what_comes_in_meanwhile(bench: Workbench) -> None:
    """Events that trickle in while the vendor is away leave in batches of thirty afterwards."""
    bench.box.faults.add(UNAVAILABLE)
    async with bench.at_work():
        for n in range(60):
            await bench.put("events", orjson.dumps([mail_event(n)]))
        await bench.until(lambda: bench.is_paused(Stage.FORWARD))
        await bench.until(
            lambda: _has(bench, Stage.FORWARD, "waiting", 60),
        )
        bench.box.faults.clear()
        await bench.until(bench.is_idle)

    assert len(bench.box.memory.batches) < 30


async def _has(bench: Workbench, stage: Stage, counter: str, n: int) -> bool:
    return await bench.count(stage, counter) == n


def _arrived(bench: Workbench, n: int) -> bool:
    return len(bench.arrived) == n


def _has_come_to(bench: Workbench, n: int) -> bool:
    return len(bench.arrived) >= n


async def _are_done(bench: Workbench, n: int) -> bool:
    return await bench.count(Stage.FORWARD, "done") >= n


def _are_called(bench: Workbench, n: int) -> bool:
    return bench.box.faults.hits >= n


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_honoured(bench: Workbench, form: str) -> None:
    """No call is made before the time that `Retry-After` names, in seconds or as a date."""
    moment = "3600" if form == "seconds" else formatdate(time.time() + 3600, usegmt=True)
    bench.box.faults.add(throttled("events", times=1, retry_after=moment))
    await bench.put("events", mail_events(3))

    async def has_waited() -> bool:
        due = await bench.redis.hget("{relay}:destination:forward", "due")
        return due is not None and float(due) > (time.time() + 3000) * 1000

    async with bench.at_work():
        await bench.until(has_waited)
    await bench.work()
    assert bench.box.memory.calls_to("events") == 1
    assert await bench.row(Stage.FORWARD) == {"in": 3, "waiting": 3}


async def test_retry_after_holds_while_calls_that_were_under_way_succeed(bench: Workbench) -> None:
    """One call of several is told to wait an hour: the others pass, and none is made after them."""
    told = replace(throttled("events", times=1, retry_after="3600"), latency_s=0.2)
    bench.box.faults.add(told, Fault(endpoint="events", latency_s=0.4))
    await bench.put("events", mail_events(600))
    async with bench.at_work():
        await bench.until(lambda: len(bench.box.memory.batches) > 0)
    bench.box.faults.clear()
    made = bench.box.memory.calls_to("events")
    await bench.work()
    assert bench.box.memory.calls_to("events") == made
    assert await bench.row(Stage.FORWARD) == {
        "in": 600,
        "waiting": 600 - 30 * (made - 1),
        "done": 30 * (made - 1),
    }


async def test_a_used_up_quota_pauses_until_the_next_utc_day(bench: Workbench) -> None:
    """429 "Limit Exceeded" pauses until midnight UTC, and an operator can resume before."""
    bench.box.faults.add(quota_exceeded("events"))
    await bench.put("events", mail_events(3))
    async with bench.at_work():
        await bench.until(lambda: bench.is_paused(Stage.FORWARD))
        pause = await bench.pause(Stage.FORWARD)
        assert pause is not None
        assert "quota" in str(pause["reason"])
        assert str(pause["until"])[11:13] == "00"

        bench.box.faults.clear()
        await pauses.resume(bench.redis, Stage.FORWARD)
        await bench.until(bench.is_idle)
    assert len(bench.arrived) == 3


# key or path ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "names"),
    [
        (401, "Unauthorized", "AUDIENCEPOINT_API_KEY"),
        (403, "Forbidden", "AUDIENCEPOINT_API_KEY"),
        (403, "Missing Authentication Token", "AUDIENCEPOINT_EVENTS_PATH"),
        (404, "Not Found", "AUDIENCEPOINT_EVENTS_PATH"),
        (405, "Method Not Allowed", "AUDIENCEPOINT_EVENTS_PATH"),
        (415, "Unsupported Media Type", "AUDIENCEPOINT_EVENTS_PATH"),
    ],
)
async def test_a_wrong_key_or_path_pauses_at_once_and_resumes_by_itself(
    bench: Workbench, status: int, words: str, names: str
) -> None:
    """The first such answer pauses the stage and says what to look at; once mended, all arrives."""
    await bench.put("events", mail_events(70))
    fault = Fault(endpoint="events", status=status, body={"message": words})
    pause = await fail_until_paused(bench, fault)

    assert pause["by"] == "relay"
    assert names in str(pause["reason"])
    assert set(bench.arrived) == addresses(range(70))
    assert await bench.row(Stage.FORWARD) == {"in": 70, "done": 70}


async def test_a_key_revoked_in_full_flight_buries_nothing(bench: Workbench) -> None:
    """A 403 for everybody after many successes is the key's fault, not the items'."""
    await bench.put("events", mail_events(600))
    fault = Fault(endpoint="events", status=403, body={"message": "Forbidden"}, times=40)
    bench.box.faults.add(slow("events", 0.02, times=3), fault)
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 600, "done": 600}


# the item's fault ----------------------------------------------------------------------------------


async def test_a_poisoned_event_alone_is_dead(bench: Workbench) -> None:
    """A refused batch is halved until the culprit stands alone; the vendor's words are kept, masked."""
    words = "Invalid value for person7@example.com"
    bench.box.faults.add(
        poisoned("events", "person7@example.com", "person44@example.com", words=words)
    )
    await bench.put("events", mail_events(90))
    await bench.work_until(bench.is_idle)

    letters = await bench.dead()
    assert {orjson.loads(letter.payload)["email"] for letter in letters} == addresses([7, 44])
    assert {letter.reason for letter in letters} == {"refused"}
    assert all("Invalid value for [address]" in letter.error for letter in letters)
    assert set(bench.arrived) == addresses([n for n in range(90) if n not in (7, 44)])
    assert len(bench.arrived) == 88
    await bench.assert_balanced()


async def test_a_refused_event_with_nothing_to_compare_is_buried(bench: Workbench) -> None:
    """One refused event in an otherwise empty system is one refusal, not everything."""
    bench.box.faults.add(poisoned("events", "person0@example.com"))
    await bench.put("events", mail_events(1))
    await bench.work_until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 1, "dead": 1}


@pytest.mark.parametrize("count", [60, 29])
async def test_everything_refused_pauses_and_buries_nothing(bench: Workbench, count: int) -> None:
    """Twenty single refusals in a row with the same words are nobody's fault but a setting's."""
    await bench.put("events", mail_events(count))
    pause = await fail_until_paused(bench, refused_alike("events"))

    assert str(pause["reason"]).startswith("everything is refused: ")
    assert await bench.row(Stage.FORWARD) == {"in": count, "done": count}
    assert set(bench.arrived) == addresses(range(count))


async def test_two_batches_refused_whole_pause_and_bury_nothing(bench: Workbench) -> None:
    """Every event of two batches in a row is enough, also when the batches are small."""
    hashed = [mail_event(n, email=digest(f"person{n}@example.com")) for n in range(6, 12)]
    await bench.put("events", orjson.dumps([*(mail_event(n) for n in range(6)), *hashed]))
    pause = await fail_until_paused(bench, refused_alike("events"))

    assert str(pause["reason"]).startswith("everything is refused: ")
    assert await bench.row(Stage.FORWARD) == {"in": 12, "done": 12}


async def test_everything_refused_in_full_flight_buries_at_most_nineteen(bench: Workbench) -> None:
    """When the vendor changes its mind in mid-flow, the twentieth refusal in a row ends the burying."""
    await bench.put("events", mail_events(300))
    bench.box.faults.add(slow("events", 0.02, times=2), refused_alike("events"))
    async with bench.at_work():
        await bench.until(lambda: bench.is_paused(Stage.FORWARD))
        bench.box.faults.clear()
        await bench.until(bench.is_idle)

    assert await bench.count(Stage.FORWARD, "dead") < 20
    await bench.assert_balanced()


@pytest.mark.parametrize("events", [30, 90])
@pytest.mark.parametrize("status", [403, 404, 405])
async def test_a_firewalled_event_is_isolated(bench: Workbench, status: int, events: int) -> None:
    """A 403, or another turning away, that follows one event while others pass is that event's, also of one batch."""
    bench.box.faults.add(replace(firewalled("events", "person13@example.com"), status=status))
    await bench.put("events", mail_events(events))
    await bench.work_until(bench.is_idle)

    assert set(bench.arrived) == addresses(range(events)) - addresses([13])
    assert await bench.row(Stage.FORWARD) == {"in": events, "done": events - 1, "dead": 1}
    assert await bench.pause(Stage.FORWARD) is None


@pytest.mark.parametrize("status", [500, 504])
async def test_an_event_that_breaks_the_vendor_is_isolated(bench: Workbench, status: int) -> None:
    """A 5xx that follows one event while others succeed is that event's fault."""
    poison = Fault(
        endpoint="events", status=status, body={"message": "x"}, addresses=["person5@example.com"]
    )
    bench.box.faults.add(poison)
    await bench.put("events", mail_events(90))
    await bench.work_until(bench.is_idle)

    assert set(bench.arrived) == addresses(range(90)) - addresses([5])
    assert await bench.row(Stage.FORWARD) == {"in": 90, "done": 89, "dead": 1}


async def test_many_broken_events_wait_apart_and_are_buried_as_others_pass(
    bench: Workbench,
) -> None:
    """Where batch after batch fails nothing is buried; all that is right leaves, and new work that passes decides."""
    broken_ones = range(0, 300, 50)
    poison = [f"person{n}@example.com" for n in broken_ones]
    bench.box.faults.add(Fault(endpoint="events", status=500, body={}, addresses=poison))
    await bench.put("events", mail_events(300))
    async with bench.at_work():
        await bench.until(partial(_arrived, bench, 294))
        for n in range(300, 340):
            await bench.put("events", orjson.dumps([mail_event(n)]))
            await bench.until(partial(_has, bench, Stage.FORWARD, "done", n - 5))
            if await bench.is_idle():
                break
        await bench.until(bench.is_idle)

    assert {orjson.loads(each.payload)["email"] for each in await bench.dead()} == addresses(
        broken_ones
    )
    await bench.assert_balanced()


async def test_a_lone_broken_event_waits_and_does_not_stop_others(bench: Workbench) -> None:
    """With nothing to compare it, a 5xx is an outage; new events pass, and then it is buried."""
    poison = Fault(endpoint="events", status=500, body={}, addresses=["person0@example.com"])
    bench.box.faults.add(poison)
    await bench.put("events", mail_events(1))
    async with bench.at_work():
        await bench.until(lambda: bench.is_paused(Stage.FORWARD))
        assert await bench.row(Stage.FORWARD) == {"in": 1, "waiting": 1}
        for n in range(1, 8):
            await bench.put("events", orjson.dumps([mail_event(n)]))
            await bench.until(partial(_arrived, bench, n))
        await bench.until(bench.is_idle)

    assert await bench.row(Stage.FORWARD) == {"in": 8, "done": 7, "dead": 1}


async def test_broken_events_that_keep_coming_are_buried_as_they_come(bench: Workbench) -> None:
    """They speak for no outage, however many there are: the vendor fails the same ones each time, and no others."""
    broken_ones = range(0, 90, 3)
    poison = [f"person{n}@example.com" for n in broken_ones]
    bench.box.faults.add(Fault(endpoint="events", status=500, body={}, addresses=poison))
    right = 0
    async with bench.at_work():
        for n in range(130):
            await bench.put("events", orjson.dumps([mail_event(n)]))
            right += f"person{n}@example.com" not in poison
            await bench.until(partial(_arrived, bench, right))
        await bench.until(bench.is_idle)

    assert {orjson.loads(each.payload)["email"] for each in await bench.dead()} == addresses(
        broken_ones
    )
    await bench.assert_balanced()


async def test_a_broken_event_is_found_where_the_vendor_fails_at_times(bench: Workbench) -> None:
    """Calls that fail once in ten and pass when repeated do not keep a broken event for ever, nor its mates."""
    poison = Fault(endpoint="events", status=500, body={}, addresses=["person5@example.com"])
    rounds = [Fault(endpoint="events", times=9), broken("events", times=1)]
    bench.box.faults.add(poison, *rounds * 60)
    await bench.put("events", mail_events(30))
    async with bench.at_work():
        for n in range(1, 200):
            await bench.put("events", mail_events(30, 30 * n))
            await bench.until(partial(_has_come_to, bench, 30 * n - 30))
            if await bench.count(Stage.FORWARD, "dead"):
                break
        await bench.until(bench.is_idle)

    [letter] = await bench.dead()
    assert orjson.loads(letter.payload)["email"] == "person5@example.com"
    assert bench.box.memory.calls_to("events") < 200


async def test_calls_begun_before_an_outage_are_no_sign_that_the_vendor_is_well(
    bench: Workbench,
) -> None:
    """A vendor that sheds new calls takes those it has begun to a good end: nobody is buried for that."""
    bench.box.faults.add(*(slow("events", 0.5 + 0.3 * n, times=1) for n in range(6)))
    async with bench.at_work():
        for n in range(6):
            await bench.put("events", orjson.dumps([mail_event(n)]))
            await bench.until(partial(_are_called, bench, n + 1))
        bench.box.faults.add(UNAVAILABLE)
        await bench.put("events", orjson.dumps([mail_event(6)]))
        await bench.until(partial(_are_done, bench, 6))
        assert await bench.count(Stage.FORWARD, "dead") == 0
        bench.box.faults.clear()
        await bench.until(bench.is_idle)
    assert set(bench.arrived) == addresses(range(7))


async def test_what_is_right_leaves_though_all_that_is_left_fails(bench: Workbench) -> None:
    """When nothing of one batch can be parted any more, the next one has its turn."""
    poison = [f"person{n}@example.com" for n in (0, 1, 9)]
    bench.box.faults.add(Fault(endpoint="events", status=500, body={}, addresses=poison))
    await bench.put("events", mail_events(2))
    async with bench.at_work():
        await bench.until(lambda: bench.box.memory.calls_to("events") > 20)
        await bench.put("events", mail_events(30, 2))
        await bench.until(partial(_arrived, bench, 29))

    assert set(bench.arrived) == addresses([n for n in range(2, 32) if n != 9])


# perhaps stored ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [stored_then_504("events", times=1), reset("events", "after", times=1)]
)
async def test_what_may_have_been_stored_is_sent_again_byte_for_byte(
    bench: Workbench, fault: Fault
) -> None:
    """The retry of a call that may have been carried out has the same bytes and is counted."""
    bench.box.faults.add(fault)
    await bench.put("events", mail_events(20))
    await bench.work_until(bench.is_idle)

    first, second = bench.box.memory.batches
    assert first == second
    assert int(await bench.redis.hget("{relay}:books", "maybe_duplicate") or 0) == 20
    assert await bench.row(Stage.FORWARD) == {"in": 20, "done": 20}


# ours ----------------------------------------------------------------------------------------------


class BrokenSource:
    """Reads events as `events` does, and trips over one body in three."""

    def __init__(self) -> None:
        self.tries = 0

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one event, or fail."""
        if delivery.body == b"bad":
            self.tries += 1
            raise KeyError("someone@example.com")
        return [MailEvent("fine@example.com", EventType.OPEN, "2026-01-01T00:00:00", delivery.id)]


async def test_an_exception_of_ours_is_tried_thrice_then_buried(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One delivery that trips our code is buried as `bug`, masked; others of its flush go on."""
    source = BrokenSource()
    monkeypatch.setitem(SOURCES, "mailgun", source)
    await bench.put("mailgun", b"good", b"bad", b"good")
    await bench.work_until(bench.is_idle)

    assert source.tries == 3
    letter = (await bench.dead())[0]
    assert (letter.reason, letter.attempts, letter.payload) == ("bug", 3, b"bad")
    assert letter.error.startswith("KeyError: ")
    assert "@" not in letter.error
    assert await bench.row(Stage.UNPACK) == {"in": 3, "done": 2, "dead": 1}
    assert len(bench.arrived) == 2


class TripsOver:
    """Makes bodies as `forward` does, and fails on those that hold *address* as long as it is told to."""

    def __init__(self, address: bytes, times: int | None = None) -> None:
        self.address, self.left = address, times
        self.failed = 0
        self._whole = forward.body

    def __call__(self, items: Sequence[Item]) -> bytes:
        """Return the body, or fail."""
        is_hit = any(self.address in item.payload for item in items)
        if is_hit and (self.left is None or self.failed < self.left):
            self.failed += 1
            raise ZeroDivisionError("of all things")
        return self._whole(items)


async def test_an_exception_of_ours_in_a_call_isolates_its_item(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug that one event triggers on its way out buries that event; the stage is never paused."""
    monkeypatch.setattr(forward, "body", TripsOver(b"person11@"))
    await bench.put("events", mail_events(45))
    await bench.work_until(bench.is_idle)

    assert set(bench.arrived) == addresses(range(45)) - addresses([11])
    assert [(letter.reason, letter.error) for letter in await bench.dead()] == [
        ("bug", "ZeroDivisionError: of all things")
    ]
    await bench.assert_balanced()


async def fail_until_held(bench: Workbench) -> None:
    """Let the vendor be away for longer than an exception of ours would be tried."""
    bench.box.faults.add(UNAVAILABLE)
    async with bench.at_work():
        await bench.until(lambda: bench.is_paused(Stage.FORWARD))
        await bench.until(partial(_waits_in, bench, "forward:held"))
    bench.box.faults.clear()


async def _waits_in(bench: Workbench, queue: str) -> bool:
    return bool(await bench.redis.xlen(keys.queue(queue)))


@pytest.mark.parametrize("times", [2, None])
async def test_an_outage_takes_no_tries_from_an_exception_of_ours(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, times: int | None
) -> None:
    """After any number of failures of the vendor's, an item is buried as `bug` at our own third, not at the first."""
    await bench.put("events", mail_events(1))
    await fail_until_held(bench)
    trips = TripsOver(b"person0@", times)
    monkeypatch.setattr(forward, "body", trips)
    await bench.work_until(bench.is_idle)

    if times:
        assert bench.arrived == ["person0@example.com"]
        assert await bench.row(Stage.FORWARD) == {"in": 1, "done": 1}
    else:
        assert trips.failed == 3
        assert [(letter.reason, letter.attempts) for letter in await bench.dead()] == [("bug", 3)]
    await bench.assert_balanced()


async def test_an_exception_of_ours_keeps_its_count_through_an_outage_and_a_restart(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tries, another worker, an outage, the third: the item is buried then, and not tried for ever."""
    trips = TripsOver(b"person0@", 2)
    monkeypatch.setattr(forward, "body", trips)
    bench.box.faults.add(UNAVAILABLE)
    await bench.put("events", mail_events(1))
    await bench.work_until(lambda: trips.failed == 2)
    await fail_until_held(bench)
    trips.left = None
    await bench.work_until(bench.is_idle)

    assert trips.failed == 3
    assert [(letter.reason, letter.attempts) for letter in await bench.dead()] == [("bug", 3)]


# independence --------------------------------------------------------------------------------------


async def test_audiencelab_down_does_not_delay_audiencepoint(bench: Workbench) -> None:
    """Enrichment waits; events and known addresses go out all the same."""
    bench.box.faults.add(broken("enrich"))
    now = time.time()
    for source in ("pixel", "audience", "workflow"):
        await bench.put(source, *(fresh(sample, now).body for sample in SAMPLES[source]))
    await bench.put("events", mail_events(30))
    async with bench.at_work():
        await bench.until(lambda: len(bench.arrived) == 30 and bool(bench.box.memory.subscribed))
        await bench.until(lambda: bench.is_paused(Stage.ENRICH))
        assert await bench.count(Stage.ENRICH, "waiting") > 0
        bench.box.faults.clear()
        await bench.until(bench.is_idle)
    assert not await bench.dead()


async def test_a_stage_paused_by_the_operator_takes_nothing(bench: Workbench) -> None:
    """Its work waits, the other stages go on, and resuming lets everything through."""
    await pauses.pause(bench.redis, Stage.FORWARD, "moving house")
    now = time.time()
    await bench.put("events", mail_events(5))
    await bench.put("audience", *(fresh(sample, now).body for sample in SAMPLES["audience"]))
    await bench.work_until(lambda: bool(bench.box.memory.subscribed))
    await bench.work()

    assert not bench.arrived
    assert await bench.row(Stage.FORWARD) == {"in": 5, "waiting": 5}
    assert await pauses.resume(bench.redis, Stage.FORWARD)
    await bench.work_until(bench.is_idle)
    assert len(bench.arrived) == 5


@pytest.mark.parametrize("stage", list(Stage))
async def test_any_stage_can_be_paused(bench: Workbench, stage: Stage) -> None:
    """A paused stage finishes nothing; resumed, everything comes to its end."""
    await pauses.pause(bench.redis, stage, "just so")
    now = time.time()
    for source, samples in SAMPLES.items():
        await bench.put(source, *(fresh(sample, now).body for sample in samples))
    await bench.work()

    assert set(await bench.row(stage)) <= {"in", "waiting", "duplicate", "ignored"}
    await pauses.resume(bench.redis, stage)
    await bench.work_until(bench.is_idle)
    assert not await bench.dead()
    await bench.assert_balanced()


async def test_with_audiencepoints_key_only_the_rest_waits(
    make_bench: Callable[..., Workbench],
) -> None:
    """Without AudienceLab's key enrichment is paused, yet identified visitors get subscribed."""
    bench = make_bench(audiencelab_api_key=None)
    now = time.time()
    await bench.put("pixel", *(fresh(sample, now).body for sample in SAMPLES["pixel"]))
    await bench.put("workflow", *(fresh(sample, now).body for sample in SAMPLES["workflow"]))
    await bench.work_until(lambda: bool(bench.box.memory.subscribed))

    pause = await bench.pause(Stage.ENRICH)
    assert pause is not None
    assert (pause["by"], pause["until"]) == ("relay", None)
    assert str(pause["reason"]).startswith("no key")
    assert not bench.box.memory.enrich_requests
    assert await bench.pause(Stage.FORWARD) is None


async def test_with_audiencelabs_key_only_events_wait_and_leave_later(
    make_bench: Callable[..., Workbench],
) -> None:
    """Without AudiencePoint's key its stages are paused; with the key set, everything leaves."""
    bench = make_bench(audiencepoint_api_key=None)
    await bench.put("events", mail_events(5))
    await bench.work()

    for stage in (Stage.FORWARD, Stage.SUBSCRIBE):
        assert str((await bench.pause(stage) or {})["reason"]).startswith("no key")
    assert await bench.row(Stage.FORWARD) == {"in": 5, "waiting": 5}

    await make_bench().work_until(bench.is_idle)
    assert len(bench.arrived) == 5
    assert await bench.pause(Stage.FORWARD) is None

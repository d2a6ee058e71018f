"""Reread: an event that was buried in its sender's words is read again when it is retried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from pipeline import dead_letters, keys, recipients
from pipeline.deliveries import Delivery
from pipeline.moves import Move, Mover
from pipeline.origins import Form, Origin
from pipeline.outcomes import (
    EventType,
    MailEvent,
    Outcome,
    Probe,
    Reason,
    Stage,
    Unaddressed,
    Unreadable,
)
from pipeline.queues import Queues
from pipeline.sources import Rules
from pipeline.sources.registry import SOURCES
from pipeline.tombstones import Tombstones
from tests.workbench import Workbench, mail_event, mail_events
from workers import reread
from workers.context import Context
from workers.fates import BUG_TRIES
from workers.reading import Read
from workers.unpack import learn

pytestmark = pytest.mark.anyio


class Repaired:
    """The source `events` after a fix: it answers what the test says, or raises it."""

    def __init__(self, answer: list[Outcome] | Exception) -> None:
        self._answer = answer

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Answer."""
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def retried(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, answer: list[Outcome] | Exception | None
) -> dict[str, int]:
    """Bury one wrong event, mend its source so, retry; return the books of `forward`."""
    await bench.put("events", orjson.dumps([mail_event(1, type="Wrong")]))
    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead()
    if answer is None:
        monkeypatch.delitem(SOURCES, "events")
    else:
        monkeypatch.setitem(SOURCES, "events", Repaired(answer))
    await dead_letters.retry(bench.redis, letter.id)
    await bench.work_until(bench.is_idle)
    await bench.assert_balanced()
    return await bench.row(Stage.FORWARD)


async def test_what_the_fix_understands_leaves(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event goes on as one piece of work; what else it turns out to tell is new work."""
    events = orjson.dumps([mail_event(1), mail_event(2)])
    found = SOURCES["events"].parse(Delivery("x", "events", events, 0), Rules(), 2e9)
    assert await retried(bench, monkeypatch, found) == {"in": 2, "done": 2}
    assert len(bench.arrived) == 2


class Mended:
    """The source `events` after a fix that takes a wrong word for an open."""

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Read the body as if it were right."""
        right = delivery.body.replace(b'"Wrong"', b'"Open"')
        return SOURCES_BEFORE["events"].parse(replace(delivery, body=right), rules, now)


SOURCES_BEFORE = dict(SOURCES)


@pytest.mark.parametrize("comes_right", [False, True])
async def test_what_came_twice_leaves_once(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, comes_right: bool
) -> None:
    """A wrong event that its sender repeated lies there twice; retried, one goes on, and the other is a duplicate.

    Both are duplicates when the event came right in the meantime. Another event goes on by itself.
    """
    wrong = orjson.dumps([mail_event(1, type="Wrong")])
    await bench.put("events", wrong, wrong, orjson.dumps([mail_event(2, type="Wrong")]))
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.FORWARD) == {"in": 3, "dead": 3}
    if comes_right:
        await bench.put("events", mail_events(1, first=1))
        await bench.work_until(bench.is_idle)

    monkeypatch.setitem(SOURCES, "events", Mended())
    for letter in await bench.dead():
        await dead_letters.retry(bench.redis, letter.id)
    await bench.assert_balanced()
    await bench.work_until(bench.is_idle)
    duplicates = 2 if comes_right else 1
    assert await bench.row(Stage.FORWARD) == {
        "in": 2 + duplicates,
        "done": 2,
        "duplicate": duplicates,
    }
    assert sorted(bench.arrived) == ["person1@example.com", "person2@example.com"]
    await bench.assert_balanced()

    monkeypatch.setitem(SOURCES, "events", SOURCES_BEFORE["events"])
    await bench.put("events", mail_events(2, first=1))
    await bench.work_until(bench.is_idle)
    assert await bench.count(Stage.FORWARD, "duplicate") == duplicates + 2
    await bench.assert_balanced()


@pytest.mark.parametrize(
    ("answer", "fate", "reason"),
    [
        (Probe(), "ignored", None),
        ([], "ignored", None),
        (Unreadable(Reason.UNKNOWN_SHAPE, "still strange"), "dead", "invalid"),
        (None, "dead", "invalid"),
        (ZeroDivisionError(), "dead", "bug"),
    ],
)
async def test_what_is_still_wrong_has_a_fate(
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    answer: list[Outcome] | Exception | None,
    fate: str,
    reason: str | None,
) -> None:
    """Ignored, or buried again with the new reason; never in the way of the stage."""
    assert await retried(bench, monkeypatch, answer) == {"in": 1, fate: 1}
    assert [letter.reason for letter in await bench.dead()] == ([reason] if reason else [])


@pytest.mark.parametrize("stage", [Stage.FORWARD, Stage.ENRICH, Stage.SCORES])
async def test_each_stage_reads_its_letters_again(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """A retried letter in its sender's words waits apart, is counted, and what is still wrong dies again."""
    monkeypatch.setitem(SOURCES, "events", Repaired(Unreadable(Reason.UNKNOWN_SHAPE, "strange")))
    await bench.put("events", b"{}")
    taken = await Queues(bench.redis, "test").take(Stage.UNPACK, Stage.UNPACK, most=1)
    move = Move("unpack", [taken.entries[0].id])
    move.settle(Stage.UNPACK, "done")
    origin = Origin("events", 1, Form.RAW)
    move.bury(stage, Reason.INVALID, "wrong", b"theirs", origin, dead_id="a" * 24)
    move.new_dead(stage)
    await Mover(bench.redis, "test", 3_600_000).apply([move])

    assert await dead_letters.retry(bench.redis, "a" * 24) is stage
    lengths = [await bench.redis.xlen(keys.queue(name)) for name in (keys.raw(stage), stage)]
    assert lengths == [1, 0]
    assert await bench.row(stage) == {"in": 1, "waiting": 1}
    await bench.assert_balanced()

    await bench.work_until(bench.is_idle)
    (letter,) = await bench.dead(stage)
    assert (letter.reason, letter.error) == ("invalid", "strange")
    assert await bench.row(stage) == {"in": 1, "dead": 1}
    assert await bench.redis.xlen(keys.queue(keys.raw(stage))) == 0
    await bench.assert_balanced()


async def test_an_event_that_names_a_number_gets_its_address(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open without an address that was buried for another reason finds its person when it is retried."""
    await recipients.resolve(
        bench.redis, Tombstones(bench.redis), [("events", "1:5", "ada@example.com")]
    )
    event = MailEvent("", EventType.OPEN, "2026-01-01T00:00:00", "7", recipient="1:5")
    found: list[Outcome] = [Unaddressed(Stage.FORWARD, "no_address", event)]
    assert await retried(bench, monkeypatch, found) == {"in": 1, "done": 1}
    assert bench.arrived == ["ada@example.com"]


async def test_redis_that_is_away_is_no_fault_of_the_event(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often its address cannot be asked for, the event waits, and leaves when Redis is back."""
    asked = 0

    async def is_away_at_first(context: Context, reads: Sequence[Read]) -> None:
        nonlocal asked
        asked += 1
        if asked <= 2 * BUG_TRIES:
            raise RedisConnectionError("away on purpose")
        await learn(context, reads)

    monkeypatch.setattr(reread, "learn", is_away_at_first)
    event = MailEvent("ada@example.com", EventType.OPEN, "2026-01-01T00:00:00", "7")
    assert await retried(bench, monkeypatch, [event]) == {"in": 1, "done": 1}
    assert asked == 2 * BUG_TRIES + 1

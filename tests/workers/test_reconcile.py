"""Reconciling: what webhooks missed comes by itself, one worker at a time, behind everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest

from pipeline import imports, keys, pauses
from pipeline.clock import HOUR_MS
from pipeline.endpoints import Endpoint
from pipeline.imports import Import, Kind
from pipeline.outcomes import Stage
from sandbox.faults import Fault, broken, throttled
from sandbox.invented import visit
from tests.pipeline.work import use_up
from tests.workbench import Workbench, mail_events
from tests.workers.endpoints import outcomes
from workers.reconcile import begins_anew, is_due

pytestmark = pytest.mark.anyio

MakeBench = Callable[..., Workbench]
PIXEL_ID = "11111111-742b-4b12-afab-c090e4550d66"


@pytest.fixture
def bench(make_bench: MakeBench) -> Workbench:
    """Give a relay that reconciles a segment and a pixel, and asks about nobody."""
    made = make_bench(
        enrich="off", subscribe="off", reconcile_segments="segment-30", reconcile_pixels="pixel-20"
    )
    made.timing = replace(made.timing, reconcile_s=0.02)
    return made


async def known(bench: Workbench, kind: Kind, name: str) -> Import:
    """Return how far an import has come."""
    found = await imports.read(bench.redis, kind, name)
    return found or Import(kind, name, 0)


async def is_done(bench: Workbench) -> bool:
    """Tell whether both were walked to their ends, and nothing waits any more."""
    both = [
        await known(bench, Kind.SEGMENT, "segment-30"),
        await known(bench, Kind.PIXEL, "pixel-20"),
    ]
    return all(one.is_finished for one in both) and await bench.is_idle()


async def test_what_webhooks_missed_comes_by_itself(bench: Workbench) -> None:
    """Rows that came before are duplicates, the others are merged; the books balance."""
    rows = [visit(n, PIXEL_ID) for n in range(12)]
    await bench.put("workflow", orjson.dumps({"visitors": rows}))
    await bench.work_until(lambda: is_done(bench))
    assert await bench.row(Stage.ENRICH) == {"in": 62, "duplicate": 12, "done": 50}
    await bench.assert_balanced()


async def test_its_calls_are_counted(bench: Workbench) -> None:
    """Under one name for segments and pixels, with what they came to."""
    bench.box.faults.add(broken("segment", times=2))
    await bench.work_until(lambda: is_done(bench))
    calls = ("segment", "pixel-v4", "pixels")
    made = sum(bench.box.memory.calls_to(name) for name in calls)
    assert await outcomes(bench, Endpoint.IMPORTS) == {"ok": made - 2, "failed": 2}


async def test_an_operator_can_pause_it(bench: Workbench) -> None:
    """Nothing is begun, other work goes on; resumed, everything is walked."""
    await pauses.pause(bench.redis, Endpoint.IMPORTS, "they asked us to")
    async with bench.at_work():
        await bench.put("events", mail_events(3))
        await bench.until(bench.is_idle)
        assert bench.box.memory.calls_to("segment") == bench.box.memory.calls_to("pixels") == 0
        await pauses.resume(bench.redis, Endpoint.IMPORTS)
        await bench.until(lambda: is_done(bench))


async def test_nothing_is_walked_before_its_time(bench: Workbench) -> None:
    """After a walk nothing is asked until the hours are over; then it begins at the first page again."""
    await bench.work_until(lambda: is_done(bench))
    calls = bench.box.memory.calls_to("segment")
    key = keys.import_of("segment", "segment-30")
    async with bench.at_work():
        # the pixel is walked again, and after the segment had its turn
        await bench.redis.hset(keys.import_of("pixel", "pixel-20"), "started_at_ms", 1)
        await bench.until(lambda: bench.box.memory.calls_to("pixel-v4") > 1)
        assert bench.box.memory.calls_to("segment") == calls
        await bench.redis.hset(key, "started_at_ms", 1)
        await bench.until(lambda: bench.box.memory.calls_to("segment") > calls)
        await bench.until(lambda: is_done(bench))
    assert int(await bench.redis.hget(key, "rows")) == 30
    assert await bench.count(Stage.ENRICH, "done") == 50


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (None, True),
        (Import(Kind.SEGMENT, "s", 10, started_at_ms=0, finished_at_ms=5), True),
        (Import(Kind.SEGMENT, "s", 10, started_at_ms=1, finished_at_ms=5), False),
        (Import(Kind.SEGMENT, "s", 10, started_at_ms=0), True),
        (Import(Kind.SEGMENT, "s", 10, again_at_ms=HOUR_MS, error="x"), True),
        (Import(Kind.SEGMENT, "s", 10, again_at_ms=HOUR_MS + 1, error="x"), False),
    ],
)
def test_when_something_is_due(one: Import | None, expected: bool) -> None:
    """A finished walk begins anew after its hours, an interrupted one goes on, a failed one when it was put off to."""
    assert is_due(one, HOUR_MS, HOUR_MS) is expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (Import(Kind.SEGMENT, "s", 10, started_at_ms=1), False),
        (Import(Kind.SEGMENT, "s", 10, started_at_ms=0), False),
        (Import(Kind.SEGMENT, "s", 10, started_at_ms=1, error="x"), False),
        (Import(Kind.SEGMENT, "s", 10, started_at_ms=0, error="x"), True),
        (Import(Kind.SEGMENT, "s", 10, started_at_ms=0, finished_at_ms=5), True),
    ],
)
def test_when_a_walk_begins_anew(one: Import, expected: bool) -> None:
    """After a period, when it is finished or put off; one that is under way goes on, however long it takes."""
    assert begins_anew(one, HOUR_MS, HOUR_MS) is expected


async def test_a_page_that_never_comes_does_not_keep_what_is_new(bench: Workbench) -> None:
    """A walk that is put off at its third page since longer than a period reads the first ones again."""
    redis, key = bench.redis, keys.import_of("segment", "segment-30")
    one, _ = await imports.take(redis, Import(Kind.SEGMENT, "segment-30", 10), "one")
    facts = {"next_page": 3, "pages": 2, "rows": 20, "total": 30, "breaks": 2}
    await imports.leave(redis, one, "one", **facts, error="no page", again_at_ms=1)
    await redis.hset(key, "started_at_ms", 1)
    await bench.work_until(lambda: is_done(bench))
    walked = await known(bench, Kind.SEGMENT, "segment-30")
    assert (walked.pages, walked.rows, walked.short, walked.error) == (3, 30, 0, None)
    assert await bench.count(Stage.ENRICH, "in") == 50


async def test_two_workers_walk_everything_once(bench: Workbench) -> None:
    """The lease keeps the second one from it: each page is asked for once."""
    async with bench.at_work(), bench.at_work():
        await bench.until(lambda: is_done(bench))
    assert bench.box.memory.calls_to("segment") == 1
    assert bench.box.memory.calls_to("pixel-v4") == 1
    assert await bench.redis.exists("{relay}:reconciling") == 0


async def test_who_has_the_lease_is_left_alone(bench: Workbench) -> None:
    """While another worker reconciles this one asks for nothing, whatever is due; then it takes over."""
    await bench.redis.set("{relay}:reconciling", "another", px=600_000)
    await bench.put("workflow", orjson.dumps({"visitors": [visit(n, PIXEL_ID) for n in range(50)]}))
    async with bench.at_work():
        await bench.until(lambda: _merged(bench, 50))
        assert bench.box.memory.calls_to("segment") == 0
        assert await imports.read(bench.redis, Kind.SEGMENT, "segment-30") is None
        await bench.redis.delete("{relay}:reconciling")
        await bench.until(lambda: is_done(bench))


async def _merged(bench: Workbench, rows: int) -> bool:
    return await bench.count(Stage.ENRICH, "done") == rows


async def test_it_ranks_behind_enrichment(make_bench: MakeBench) -> None:
    """It waits for the rate as one of rank 1, to whom `enrich` leaves nothing that it wants itself."""
    bench = make_bench(audiencelab_rate=1000, reconcile_segments="segment-30")
    rate = "{relay}:rate:audiencelab"
    await use_up(bench.redis, "audiencelab")
    async with bench.at_work():
        await bench.until(lambda: bench.redis.hexists(rate, "1"))
        assert not await bench.redis.hexists(rate, "0")


async def test_a_dead_workers_lease_ends_by_itself(bench: Workbench) -> None:
    """Whoever was killed in the middle is waited for no longer than the lease; then another goes on."""
    redis = bench.redis
    await imports.take(redis, Import(Kind.SEGMENT, "segment-30", 10), "dead")
    one = await imports.read(redis, Kind.SEGMENT, "segment-30")
    assert one
    await imports.note(redis, one, "dead", next_page=3, pages=2, rows=20, total=30)
    await redis.set("{relay}:reconciling", "dead", px=300)
    await redis.hset(keys.import_of("segment", "segment-30"), "held_until_ms", 1)
    await bench.work_until(lambda: is_done(bench))
    assert (await known(bench, Kind.SEGMENT, "segment-30")).rows == 30
    assert await bench.count(Stage.ENRICH, "in") == 30
    await bench.assert_balanced()


async def test_one_that_fails_does_not_keep_the_others_waiting(make_bench: MakeBench) -> None:
    """A wrong id is told, put off and left alone; the next one is walked, and the worker works."""
    bench = make_bench(enrich="off", subscribe="off", reconcile_segments="nobody,segment-30")
    bench.timing = replace(bench.timing, reconcile_s=0.02)
    async with bench.at_work():
        await bench.until(
            lambda: _finished(bench, Kind.SEGMENT, "segment-30"),
        )
        wrong = await known(bench, Kind.SEGMENT, "nobody")
        assert wrong.error is not None
        assert (wrong.again_at_ms or 0) - wrong.started_at_ms >= HOUR_MS
        await bench.redis.hset(keys.import_of("segment", "segment-30"), "started_at_ms", 1)
        await bench.until(lambda: bench.box.memory.calls_to("segment") == 3)


@pytest.mark.parametrize(("field", "value"), [("version", "v9"), ("next_page", "first")])
async def test_a_fault_of_ours_keeps_nobody_else_waiting(
    make_bench: MakeBench, field: str, value: str
) -> None:
    """An id on which the code itself fails is told, and the next one is walked."""
    bench = make_bench(enrich="off", subscribe="off", reconcile_pixels="pixel-5,pixel-20")
    begun, _ = await imports.take(bench.redis, Import(Kind.PIXEL, "pixel-5", 10), "me")
    await imports.leave(bench.redis, begun, "me")
    await bench.redis.hset(keys.import_of("pixel", "pixel-5"), field, value)
    await bench.work_until(lambda: _finished(bench, Kind.PIXEL, "pixel-20"))


async def test_a_fault_of_ours_is_put_off(make_bench: MakeBench) -> None:
    """What trips the code would trip it again at once: it waits an hour, and its error says what it was."""
    bench = make_bench(enrich="off", subscribe="off", reconcile_pixels="pixel-5")
    wrong = Import(Kind.PIXEL, "pixel-5", 10, own_id="pixel-5", version="v9")
    begun, _ = await imports.take(bench.redis, wrong, "me")
    await imports.leave(bench.redis, begun, "me")
    await bench.work_until(lambda: _failed(bench, Kind.PIXEL, "pixel-5"))
    one = await known(bench, Kind.PIXEL, "pixel-5")
    assert "ValueError" in (one.error or "")
    assert (one.again_at_ms or 0) - one.started_at_ms >= HOUR_MS


async def _failed(bench: Workbench, kind: Kind, name: str) -> bool:
    return (await known(bench, kind, name)).error is not None


async def test_who_tries_by_hand_in_vain_changes_nothing(make_bench: MakeBench) -> None:
    """Why an id was put off, and until when, stays until a page of it is told, whoever took it meanwhile."""
    bench = make_bench(enrich="off", subscribe="off", reconcile_segments="nobody")
    await bench.work_until(lambda: _failed(bench, Kind.SEGMENT, "nobody"))
    before = await known(bench, Kind.SEGMENT, "nobody")
    one, _ = await imports.take(bench.redis, Import(Kind.SEGMENT, "nobody", 10), "by hand")
    await imports.leave(bench.redis, one, "by hand")
    assert await known(bench, Kind.SEGMENT, "nobody") == before
    assert not is_due(before, before.started_at_ms, HOUR_MS)


async def test_when_it_was_finished_last_stays_known(bench: Workbench) -> None:
    """A walk that begins anew, and one that fails then, still tell when the one before was over."""
    await bench.work_until(lambda: is_done(bench))
    before = (await known(bench, Kind.SEGMENT, "segment-30")).finished_at_ms
    bench.box.faults.add(Fault(endpoint="segment", status=401))
    await bench.redis.hset(keys.import_of("segment", "segment-30"), "started_at_ms", 1)
    await bench.work_until(lambda: _failed(bench, Kind.SEGMENT, "segment-30"))
    one = await known(bench, Kind.SEGMENT, "segment-30")
    assert (one.is_finished, one.last_finished_at_ms) == (False, before)


async def test_one_that_has_to_wait_long_is_left_for_later(bench: Workbench) -> None:
    """Who is asked for two minutes' patience keeps no other id waiting for them; it is gone on with afterwards."""
    bench.box.faults.add(throttled("segment", retry_after="120"))
    await bench.work_until(lambda: _finished(bench, Kind.PIXEL, "pixel-20"))
    one = await known(bench, Kind.SEGMENT, "segment-30")
    assert one.error is not None
    assert (one.again_at_ms or 0) - one.started_at_ms >= 120_000


async def _finished(bench: Workbench, kind: Kind, name: str) -> bool:
    return (await known(bench, kind, name)).is_finished


async def test_a_stop_ends_a_walk_that_waits(bench: Workbench) -> None:
    """The worker stops at once in the middle of a back-off, and the place is free for the next one."""
    bench.box.faults.add(broken("segment"))
    bench.timing = replace(bench.timing, backoff_base_s=2000.0, backoff_cap_s=2000.0)
    async with asyncio.timeout(60):
        async with bench.at_work():
            await bench.until(lambda: bench.box.memory.calls_to("segment") > 0)
    assert await bench.redis.hget(keys.import_of("segment", "segment-30"), "holder") is None
    assert await bench.redis.exists("{relay}:reconciling") == 0


async def test_without_an_id_nobody_is_asked(make_bench: MakeBench) -> None:
    """A relay that is not told to reconcile makes no such call and keeps nothing about it."""
    bench = make_bench()
    bench.timing = replace(bench.timing, reconcile_s=0.01)
    await bench.put("pixel", b"[]")
    await bench.work_until(bench.is_idle)
    assert await bench.redis.exists("{relay}:reconciling") == 0
    assert bench.box.memory.calls_to("segment") == 0

"""Walking segments and pixels: everything arrives once, a walk may end anywhere and goes on, and none is endless."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from pipeline import imports, keys, pauses, visitors
from pipeline.deliveries import Delivery
from pipeline.endpoints import Endpoint
from pipeline.imports import Import, Kind
from pipeline.inbox import NotStored
from pipeline.outcomes import Stage
from pipeline.scripts import script
from sandbox.faults import Fault, broken, cut_off, proxied, throttled
from sandbox.invented import v3_event, visit
from tests.pipeline.work import use_up
from tests.vendors import KEY
from tests.workbench import Workbench
from workers import walk
from workers.clients import audiencelab
from workers.clients.audiencelab import AudienceLab
from workers.clients.errors import (
    BreaksOff,
    Misconfigured,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from workers.clients.http import VendorHttp, new_client
from workers.timing import Timing
from workers.walk import Walker, bodies_of, put_off_s

pytestmark = pytest.mark.anyio

ME = "me"
PIXEL_ID = "11111111-742b-4b12-afab-c090e4550d66"


@dataclass
class Stroll:
    """A walker over the bench's stand-in, and what it told."""

    bench: Workbench
    url: str | None = None
    told: list[int] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    on_page: Callable[[Import], None] = lambda one: None
    calls_per_s: float = 0.0
    rank: int = 1

    async def walk(self, wanted: Import, *, anew: bool = False) -> Import:
        """Take the import and walk it."""
        redis, settings = self.bench.redis, self.bench.settings
        async with new_client() as connections:
            url = self.url or self.bench.box.audiencelab_url
            http = VendorHttp(audiencelab.VENDOR, url, audiencelab.headers(KEY), connections)
            walker = Walker(
                redis=redis,
                client=AudienceLab(http),
                inbox=self.bench.inbox,
                holder=ME,
                calls_per_s=self.calls_per_s,
                rank=self.rank,
                most_bytes=settings.max_body_bytes,
                stopping=self.stopping,
                ring=self._ring,
                timing=Timing(backoff_base_s=0.001, backoff_cap_s=0.002),
                tell=self._tell,
                hold=self.held.append,
            )
            one, is_ours = await imports.take(redis, wanted, ME, anew=anew)
            return await walker.walk(one) if is_ours else one

    async def _ring(self, number: int) -> None:
        """Nobody listens: the tests unpack when they want to."""

    def _tell(self, one: Import) -> None:
        self.told.append(one.next_page - 1)
        self.on_page(one)


def segment(size: int, page_size: int = 10, **more: Any) -> Import:
    """Return an import of the stand-in's segment of *size* rows."""
    return Import(Kind.SEGMENT, f"segment-{size}", page_size, **more)


def pixel(size: int, page_size: int = 10, **more: Any) -> Import:
    """Return an import of the stand-in's pixel with *size* events."""
    return Import(Kind.PIXEL, f"pixel-{size}", page_size, **more)


async def stored(bench: Workbench) -> list[Delivery]:
    """Return the deliveries in the inbox."""
    rows = await bench.redis.xrange(keys.queue("unpack"))
    return [
        Delivery.unpack(value)
        for _, fields in rows
        for name, value in fields.items()
        if name == b"p"
    ]


async def pages_of(bench: Workbench) -> list[list[dict[str, Any]]]:
    """Return the rows of each delivery in the inbox."""
    bodies = [orjson.loads(delivery.body) for delivery in await stored(bench)]
    return [body.get("data") or body["events"] for body in bodies]


@pytest.fixture
def stroll(make_bench: Callable[..., Workbench]) -> Stroll:
    """Give a walker; AudienceLab is asked about nobody, so that only the walk calls it."""
    return Stroll(make_bench(email_format="plain", enrich="off", subscribe="off"))


async def test_every_row_of_a_segment_becomes_a_sighting_once(stroll: Stroll) -> None:
    """The pages are told in their order, each as one delivery, and the books balance."""
    bench = stroll.bench
    one = await stroll.walk(segment(25))
    assert (one.pages, one.rows, one.total, one.is_finished) == (3, 25, 25, True)
    assert stroll.told == [1, 2, 3]
    assert [len(page) for page in await pages_of(bench)] == [10, 10, 5]
    assert {delivery.source for delivery in await stored(bench)} == {"pixel"}
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.UNPACK) == {"in": 3, "done": 3}
    assert await bench.row(Stage.ENRICH) == {"in": 25, "done": 25}
    await bench.assert_balanced()


async def test_what_came_by_webhook_is_a_duplicate(stroll: Stroll) -> None:
    """A segment's row and a V3 page's event are recognised as the webhook's event; only what was missed is new."""
    bench = stroll.bench
    events = [v3_event(n, PIXEL_ID) for n in range(20)]
    await bench.put("pixel", orjson.dumps({"events": events}))
    await bench.work_until(bench.is_idle)
    await stroll.walk(segment(25))
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 45, "duplicate": 20, "done": 25}

    again = [v3_event(n, "pixel-20") for n in range(20)]
    await bench.put("pixel", orjson.dumps({"events": again}))
    await bench.work_until(bench.is_idle)
    await stroll.walk(pixel(20, version="v3"))
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 85, "duplicate": 40, "done": 45}
    await bench.assert_balanced()


async def test_a_fetched_page_is_no_sign_of_life_of_the_webhook(stroll: Stroll) -> None:
    """`relay senders` goes on telling when the sender itself delivered last."""
    bench = stroll.bench
    await stroll.walk(segment(3))
    await bench.work_until(bench.is_idle)
    known = await bench.redis.hgetall(keys.SENDERS)
    assert b"pixel:last" not in known
    assert known[b"pixel:deliveries:done"] == b"1"


async def test_people_without_an_event_come_as_an_audience(stroll: Stroll) -> None:
    """A segment of people is stored as the audience's webhook would, with the tag; they are upserted by their id."""
    people = [{"UUID": f"U-{n}", "FIRST_NAME": "Ada", "PIXEL_ID": ""} for n in range(3)]
    with answering(lambda page: {"segment_id": "s", "total_records": 3, "data": people}) as url:
        stroll.url = url
        await stroll.walk(Import(Kind.SEGMENT, "people", 10, tag="buyers"))
    (delivery,) = await stored(stroll.bench)
    assert (delivery.source, delivery.tag) == ("audience", "buyers")
    await stroll.bench.work_until(stroll.bench.is_idle)
    known = await visitors.fetch(stroll.bench.redis, ["U-0", "U-1", "U-2"])
    assert [(each.tags, each.pages) for each in known.values()] == [(["buyers"], [])] * 3


async def test_the_pixel_is_found_by_either_of_its_ids(stroll: Stroll) -> None:
    """An operator may know the id that events carry; AudienceLab's calls take its own, and tell the generation."""
    (shop, blog) = stroll.bench.box.memory.account.pixels.values()
    one = await stroll.walk(Import(Kind.PIXEL, shop.provider_id, 100))
    assert (one.own_id, one.version, one.rows) == (shop.id, "v3", 250)
    one = await stroll.walk(Import(Kind.PIXEL, blog.id, 100))
    assert (one.own_id, one.version, one.rows) == (blog.id, "v4", 0)
    assert one.is_finished


async def test_v4_events_are_sightings_too(stroll: Stroll) -> None:
    """A page of the newer generation goes through the same parser."""
    await stroll.walk(pixel(12))
    await stroll.bench.work_until(stroll.bench.is_idle)
    assert await stroll.bench.row(Stage.ENRICH) == {"in": 12, "done": 12}


# going on ------------------------------------------------------------------------------------------


async def test_a_stopped_walk_goes_on_where_it_stood(stroll: Stroll) -> None:
    """After a stop the rest is told, nothing twice; a finished import is not walked again."""
    stroll.on_page = lambda one: stroll.stopping.set() if one.pages == 2 else None
    one = await stroll.walk(segment(25))
    assert (one.next_page, one.rows, one.is_finished) == (3, 20, False)
    stroll.stopping.clear()
    stroll.on_page = lambda one: None
    assert (await stroll.walk(segment(25))).rows == 25
    assert stroll.told == [1, 2, 3]
    calls = stroll.bench.box.memory.calls_to("segment")
    assert (await stroll.walk(segment(25))).rows == 25
    assert stroll.bench.box.memory.calls_to("segment") == calls
    assert (await stroll.walk(segment(25), anew=True)).rows == 25
    assert stroll.told == [1, 2, 3] * 2


async def test_a_stop_does_not_wait_for_an_answer(stroll: Stroll) -> None:
    """A call that hangs is given up at once; it changes nothing."""
    asked, answers = Event(), Event()

    def hanging(page: int) -> dict[str, object]:
        asked.set()
        answers.wait(90)
        return {"data": []}

    with answering(hanging) as url:
        stroll.url = url
        walking = asyncio.create_task(stroll.walk(segment(20)))
        try:
            await stroll.bench.until(asked.is_set)
            stroll.stopping.set()
            async with asyncio.timeout(60):
                assert not (await walking).is_finished
        finally:
            answers.set()
    assert await stored(stroll.bench) == []


async def test_a_crash_between_storing_and_noting_repeats_one_page(stroll: Stroll) -> None:
    """The page comes twice and changes nothing: its events are duplicates."""
    bench = stroll.bench

    async def die(number: int) -> None:
        raise RuntimeError("killed")

    dying = Stroll(bench)
    dying._ring = die  # type: ignore[method-assign] # what comes right after the page was stored
    with pytest.raises(RuntimeError):
        await dying.walk(segment(25))
    assert await stroll.walk(segment(25))
    assert [len(page) for page in await pages_of(bench)] == [10, 10, 10, 5]
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 35, "duplicate": 10, "done": 25}
    await bench.assert_balanced()


async def test_rows_that_left_while_nobody_walked_are_not_skipped(stroll: Stroll) -> None:
    """The total is remembered: smaller after a pause, it makes the walk step back as far as rows have slipped."""
    bench, settings = stroll.bench, stroll.bench.box.settings
    stroll.on_page = lambda one: stroll.stopping.set() if one.pages == 2 else None
    await stroll.walk(segment(40))
    stroll.stopping.clear()
    settings.drift, settings.drift_times = -15, 1
    bench.box.memory.account.drifts["segment-40"] = 1
    one = await stroll.walk(segment(40))
    assert (one.is_finished, one.total, one.steps_back) == (True, 25, 1)
    told = {row["EVENT_DATA"] + row["UUID"] for page in await pages_of(bench) for row in page}
    left = [visit(n, PIXEL_ID) for n in range(25)]
    assert {row["EVENT_DATA"] + row["UUID"] for row in left} <= told


@pytest.mark.parametrize(
    ("following", "size", "then"), [(3, 7, 3), (3, 20, 2), (1, 10, 1), (5, 100, 1)]
)
def test_another_page_size_skips_nothing(following: int, size: int, then: int) -> None:
    """The place is carried over to pages of the new size; some rows may come again."""
    moved = Import(Kind.SEGMENT, "s", 10, next_page=following).with_page_size(size)
    assert moved.next_page == then
    assert (moved.next_page - 1) * size <= (following - 1) * 10


async def test_only_one_walks_an_import_and_the_loser_writes_nothing(stroll: Stroll) -> None:
    """While the lease holds nobody else takes it; who lost it is told at the next note."""
    redis = stroll.bench.redis
    one, _ = await imports.take(redis, segment(45), "other")
    with pytest.raises(imports.Busy):
        await stroll.walk(segment(45))
    await redis.hset(keys.import_of("segment", "segment-45"), "held_until_ms", 1)
    assert (await stroll.walk(segment(45))).is_finished
    with pytest.raises(imports.Lost):
        await imports.note(redis, one, "other", next_page=2)
    known = await imports.read(redis, Kind.SEGMENT, "segment-45")
    assert known
    assert known.is_finished


# going first ---------------------------------------------------------------------------------------


async def test_a_page_waits_until_the_inbox_is_unpacked(stroll: Stroll) -> None:
    """No more pages are stored than a worker soon unpacks; so a walk never fills Redis."""
    walking = asyncio.create_task(stroll.walk(segment(200)))
    await stroll.bench.until(lambda: bool(stroll.held))
    assert len(await stored(stroll.bench)) == 8
    async with stroll.bench.at_work():
        assert (await walking).rows == 200


async def test_a_page_waits_until_sightings_are_merged(
    stroll: Stroll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New ones and those from the dead letters count alike."""
    monkeypatch.setattr(walk, "MOST_SIGHTINGS", 2)
    redis = stroll.bench.redis
    lines = [keys.queue(Stage.ENRICH), keys.queue(keys.retried(Stage.ENRICH))]
    for line in lines:
        await redis.xadd(line, {"p": "1", "m": "2"})
    walking = asyncio.create_task(stroll.walk(segment(20)))
    await stroll.bench.until(lambda: "2 sightings wait to be merged" in stroll.held)
    await redis.xtrim(lines[1], maxlen=0)
    assert (await walking).rows == 20


async def test_a_walk_that_an_operator_pauses_waits(
    stroll: Stroll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two calls, where it is and in its holder's hands; resumed it goes on."""
    monkeypatch.setattr(walk, "PAUSED_S", 0.02)
    redis = stroll.bench.redis
    await pauses.pause(redis, Endpoint.IMPORTS, "they asked us to")
    walking = asyncio.create_task(stroll.walk(segment(20)))
    await stroll.bench.until(lambda: "an operator has paused imports" in stroll.held)
    assert stroll.bench.box.memory.calls_to("segment") == 0
    await pauses.resume(redis, Endpoint.IMPORTS)
    assert (await walking).rows == 20


async def test_a_nearly_full_redis_is_waited_for(stroll: Stroll) -> None:
    """Above the mark nothing is asked for; with room again the walk goes on by itself."""
    redis = stroll.bench.redis
    used = (await redis.info("memory"))["used_memory"]
    limit = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", int(used * 1.1))
    try:
        walking = asyncio.create_task(stroll.walk(segment(20)))
        await stroll.bench.until(lambda: "Redis is nearly full" in stroll.held)
        assert stroll.bench.box.memory.calls_to("segment") == 0
    finally:
        await redis.config_set("maxmemory", limit)
    assert (await walking).rows == 20


async def test_enrichment_takes_the_call_that_both_wait_for(stroll: Stroll) -> None:
    """Whoever waits for the rate with a lower rank is served first; an equal one is not held up."""
    redis = stroll.bench.redis
    turn = script(redis, "turn")
    assert await turn(args=["audiencelab", 60_000, 1]) == 0
    assert await turn(args=["audiencelab", 60_000, 1]) > 0
    assert await turn(args=["audiencelab", 60_000, 0]) > 0
    await redis.hset("{relay}:rate:audiencelab", "next", "1")
    assert await turn(args=["audiencelab", 60_000, 1]) == 60_000
    assert await turn(args=["audiencelab", 60_000, 0]) == 0


async def test_the_walk_keeps_to_the_rate(stroll: Stroll) -> None:
    """Each call uses up one of the rate that all processes share."""
    stroll.calls_per_s = 1000
    await stroll.walk(segment(30))
    assert await stroll.bench.redis.hexists("{relay}:rate:audiencelab", "next")
    await use_up(stroll.bench.redis, "audiencelab")
    walking = asyncio.create_task(stroll.walk(segment(31)))
    await stroll.bench.until(lambda: stroll.bench.redis.hexists("{relay}:rate:audiencelab", "1"))
    stroll.stopping.set()
    assert (await walking).pages == 0


# bad input -----------------------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[int], Any]) -> Iterator[str]:
    """Run a server that answers each page with what *answer* makes of its number: JSON, or bytes as they are."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = int(parse_qs(urlsplit(self.path).query).get("page", ["1"])[0])
            found = answer(page)
            body = found if isinstance(found, bytes) else orjson.dumps(found)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_an_unknown_id_is_told(stroll: Stroll) -> None:
    """404 and the 200 that says NOT_FOUND are the same: nothing is stored, and the error is kept."""
    with pytest.raises(NotFound):
        await stroll.walk(Import(Kind.SEGMENT, "nobody", 10))
    with pytest.raises(NotFound):
        await stroll.walk(Import(Kind.PIXEL, "nobody", 10))
    with answering(lambda page: {"status": "NOT_FOUND"}) as url:
        stroll.url = url
        with pytest.raises(NotFound):
            await stroll.walk(Import(Kind.SEGMENT, "other", 10))
    known = await imports.read(stroll.bench.redis, Kind.SEGMENT, "other")
    assert known
    assert "knows no segment" in (known.error or "")
    assert not known.is_finished
    assert await stored(stroll.bench) == []


@pytest.mark.parametrize("answer", [{"status": "no data"}, {"data": [], "total_records": 0}])
async def test_an_empty_segment_is_finished_without_a_delivery(
    stroll: Stroll, answer: dict[str, object]
) -> None:
    """There is nothing to be unpacked."""
    with answering(lambda page: answer) as url:
        stroll.url = url
        assert (await stroll.walk(segment(9))).is_finished
    assert await stored(stroll.bench) == []
    stroll.url = None
    assert (await stroll.walk(segment(0))).is_finished


async def test_a_wrong_key_ends_the_walk(stroll: Stroll) -> None:
    """It does not mend itself: no second call, and the sentence says what to look at."""
    stroll.bench.box.faults.add(Fault(endpoint="segment", status=401, body={"error": "no"}))
    with pytest.raises(Misconfigured, match="AUDIENCELAB_API_KEY"):
        await stroll.walk(segment(20))
    assert stroll.bench.box.memory.calls_to("segment") == 1


@pytest.mark.parametrize(
    "fault",
    [
        proxied("segment", times=3),
        cut_off("segment", times=3),
        cut_off("segment", "connection", times=3),
        broken("segment", times=3),
        throttled("segment", times=3),
    ],
)
async def test_what_passes_is_waited_for(stroll: Stroll, fault: Fault) -> None:
    """A proxy's page, half an answer, a 5xx or a 429 cost a few tries; nothing is lost and nothing stored of them."""
    stroll.bench.box.faults.add(fault)
    assert (await stroll.walk(segment(25))).rows == 25
    assert [len(page) for page in await pages_of(stroll.bench)] == [10, 10, 5]


async def test_a_429_halves_the_rate_of_all(stroll: Stroll) -> None:
    """An import shares AudienceLab's rate, so what it is told holds for everybody."""
    stroll.calls_per_s = 500
    stroll.bench.box.faults.add(throttled("segment", times=1))
    assert (await stroll.walk(segment(25))).rows == 25
    share = await stroll.bench.redis.hget(keys.pace("audiencelab"), "share")
    assert 0.5 <= float(share) < 0.51


async def test_an_outage_puts_the_rest_off(stroll: Stroll) -> None:
    """After some tries the walk ends, its place is kept, and when it may be tried again is noted."""
    box = stroll.bench.box
    stroll.on_page = lambda one: box.faults.add(broken("segment")) if one.pages == 1 else None
    with pytest.raises(Unavailable):
        await stroll.walk(segment(25))
    assert box.memory.calls_to("segment") == 9
    known = await imports.read(stroll.bench.redis, Kind.SEGMENT, "segment-25")
    assert known
    assert (known.next_page, known.again_at_ms is not None) == (2, True)
    box.faults.clear()
    stroll.on_page = lambda one: None
    one = await stroll.walk(segment(25))
    assert (one.rows, one.error) == (25, None)


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (Unavailable("x"), 300.0),
        (Unavailable("x", retry_after_s=900.0), 900.0),
        (QuotaExceeded("x", retry_after_s=7200.0), 7200.0),
        (QuotaExceeded("x"), 3600.0),
        (Misconfigured("x"), 3600.0),
        (NotFound("x"), 3600.0),
        (NotStored("x"), 300.0),
    ],
)
def test_how_long_a_failed_import_is_put_off(failure: Exception, seconds: float) -> None:
    """An outage ends by itself, a wrong id or key does not; who names a time is left alone that long."""
    assert put_off_s(failure) == seconds


async def test_who_asks_to_wait_long_is_left_alone(stroll: Stroll) -> None:
    """A Retry-After of an hour ends the walk instead of holding it: its place is kept."""
    stroll.bench.box.faults.add(
        Fault(
            endpoint="segment", status=429, body={"error": "slow"}, headers={"Retry-After": "3600"}
        )
    )
    with pytest.raises(Unavailable):
        await stroll.walk(segment(20))
    assert stroll.bench.box.memory.calls_to("segment") == 1


async def test_a_server_that_ignores_the_page_is_noticed(stroll: Stroll) -> None:
    """Also when it tells neither page nor total, and also by who goes on after a pause: no page comes for ever."""
    rows = [visit(n, PIXEL_ID) for n in range(10)]
    with answering(lambda page: {"data": rows}) as url:
        stroll.url = url
        for _ in range(3):
            with pytest.raises(Unavailable, match="ignores"):
                await stroll.walk(Import(Kind.SEGMENT, "stuck", 10))
    assert len(await stored(stroll.bench)) == 1

    stroll.url = None
    stroll.bench.box.settings.pages = "stuck"
    with pytest.raises(Unavailable, match="ignores"):
        await stroll.walk(segment(30))


@pytest.mark.parametrize("drift", [-1, -7, -10, 3, 10])
async def test_a_list_that_changes_while_it_is_walked_ends(stroll: Stroll, drift: int) -> None:
    """The oldest rows, which are at its end, are all read, whatever comes or goes at its front."""
    settings = stroll.bench.box.settings
    settings.drift, settings.drift_times = drift, 4
    async with stroll.bench.at_work():
        one = await stroll.walk(segment(90))
        await stroll.bench.until(stroll.bench.is_idle)
    assert one.is_finished
    left = range(90 + min(0, 4 * drift))
    seen = {name async for name in visitors.ids(stroll.bench.redis)}
    ids = {visit(n, PIXEL_ID)["UUID"] for n in left} - {""}
    assert ids <= seen


async def test_a_list_without_an_end_is_given_up(
    stroll: Stroll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that grows by a page with each page that is read is no list to be read to its end."""
    monkeypatch.setattr(walk, "MOST_GROWTH", 2)  # not ten times as many pages as were told of first

    def growing(page: int) -> dict[str, object]:
        rows = [{"UUID": f"U-{page}-{n}", "FIRST_NAME": "Ada"} for n in range(2)]
        return {"page": page, "total_records": 2 * page + 2, "data": rows}

    with answering(growing) as url:
        stroll.url = url
        async with stroll.bench.at_work():
            with pytest.raises(Unavailable, match="grows faster"):
                await stroll.walk(Import(Kind.SEGMENT, "endless", 2))


@pytest.mark.parametrize(
    "torn",
    [
        {"data": [], "total": 50},
        {"data": [], "total_records": 50, "page": 3, "total_pages": 5, "has_more": True},
        {"data": [{"UUID": "x"}], "total": 50, "total_pages": 5, "has_more": False},
        {"data": None, "total_records": 50},
        {"status": "no data"},
    ],
)
async def test_an_end_before_the_told_end_is_asked_for_again(
    stroll: Stroll, torn: dict[str, object]
) -> None:
    """A page that was empty once, in the middle, costs no row."""
    box = stroll.bench.box

    def tear(one: Import) -> None:
        if one.pages == 2:
            box.faults.add(Fault(endpoint="segment", status=200, body=torn, times=1))

    stroll.on_page = tear
    one = await stroll.walk(segment(50))
    assert (one.pages, one.rows, one.is_finished) == (5, 50, True)
    assert any("page 3" in why or "expected keys" in why for why in stroll.held)


async def test_a_walk_that_has_fewer_rows_than_were_told_says_so(
    stroll: Stroll, caplog: pytest.LogCaptureFixture
) -> None:
    """A page in the middle may be short for a reason; the log tells what the walk did not get."""
    short = {"data": [{"UUID": "x"}], "total": 30, "page": 2, "total_pages": 3, "has_more": True}
    fault = Fault(endpoint="segment", status=200, body=short, times=1)
    stroll.on_page = lambda one: stroll.bench.box.faults.add(fault) if one.pages == 1 else None
    one = await stroll.walk(segment(30))
    assert (one.rows, one.total, one.is_finished) == (21, 30, True)
    assert "import ends short kind=segment rows=21 total=30" in caplog.text


async def test_no_data_in_the_middle_is_not_the_end(stroll: Stroll) -> None:
    """Told of a hundred rows, a walk does not take "no data" for its end."""
    rows = [visit(n, PIXEL_ID) for n in range(10)]

    def torn(page: int) -> dict[str, object]:
        if page > 1:
            return {"status": "no data"}
        return {"page": 1, "total_records": 100, "data": rows}

    with answering(torn) as url:
        stroll.url = url
        with pytest.raises(Unavailable, match="100 rows breaks off at page 2"):
            await stroll.walk(Import(Kind.SEGMENT, "torn", 10))


async def test_a_service_that_refuses_large_pages_is_asked_for_small_ones(stroll: Stroll) -> None:
    """The documented form allows a hundred rows."""
    stroll.bench.box.settings.dialect = "documented"
    one = await stroll.walk(segment(150, 500))
    assert (one.page_size, one.pages, one.rows) == (100, 2, 150)


async def test_a_page_larger_than_a_webhook_may_be_is_stored_in_parts(
    make_bench: Callable[..., Workbench],
) -> None:
    """Together, as one entry: all of it or nothing."""
    bench = make_bench(max_body_bytes=20_000, enrich="off", subscribe="off")
    await Stroll(bench).walk(segment(10))
    assert await bench.redis.xlen(keys.queue("unpack")) == 1
    assert await bench.count(Stage.UNPACK, "in") > 1
    await bench.work_until(bench.is_idle)
    assert await bench.row(Stage.ENRICH) == {"in": 10, "done": 10}


@pytest.mark.parametrize("kind", Kind)
def test_the_parts_of_a_page_are_small_and_hold_every_row(kind: Kind) -> None:
    """Each is no larger than a webhook may be, unless it is a single row."""
    rows: list[dict[str, object]] = [dict(visit(n, PIXEL_ID)) for n in range(9)]
    bodies = bodies_of(Import(kind, "s", 10), rows, 10_000)
    assert all(len(body) <= 10_000 for body in bodies)
    read = [orjson.loads(body) for body in bodies]
    assert [row for body in read for row in body.get("data") or body["events"]] == rows
    assert len(bodies_of(Import(kind, "s", 10), rows, 1)) == 9


async def test_a_page_that_redis_refuses_is_stored_later(stroll: Stroll) -> None:
    """A full server is waited for; the page that was read is not lost, and not noted before it is stored."""
    redis = stroll.bench.redis
    put, refusals = stroll.bench.inbox.put, iter(range(3))
    limit = (await redis.config_get("maxmemory"))["maxmemory"]

    async def full(deliveries: Any) -> int:
        if next(refusals, None) is not None:
            await redis.config_set("maxmemory", 1)
            try:
                return await put(deliveries)
            finally:
                await redis.config_set("maxmemory", limit)
        return await put(deliveries)

    stroll.bench.inbox.put = full  # type: ignore[method-assign] # the server itself refuses, at the right moment
    assert (await stroll.walk(segment(20))).rows == 20
    assert [len(page) for page in await pages_of(stroll.bench)] == [10, 10]
    assert any("OOM" in why or "OutOfMemory" in why for why in stroll.held)


# a list that tells of more than it gives -----------------------------------------------------------


def overcounting(told: int, **more: Any) -> Callable[[int], dict[str, object]]:
    """Return what answers two full pages of ten, a third of five, and empty ones after it, of *told* rows."""

    def answer(page: int) -> dict[str, object]:
        rows = [visit(n, PIXEL_ID) for n in range((page - 1) * 10, min(page * 10, 25))]
        return {"page": page, "page_size": 10, "total_records": told, "data": rows, **more}

    return answer


async def test_a_list_that_tells_of_more_than_it_gives_is_finished_as_short(
    stroll: Stroll, caplog: pytest.LogCaptureFixture
) -> None:
    """Three tries at the page where it breaks off, each put off; then it is over, and said to be short."""
    wanted = Import(Kind.SEGMENT, "over", 10)
    with answering(overcounting(50)) as url:
        stroll.url = url
        for breaks in (1, 2):
            with pytest.raises(BreaksOff, match="50 rows breaks off at page 4"):
                await stroll.walk(wanted)
            known = await imports.read(stroll.bench.redis, Kind.SEGMENT, "over")
            assert known
            assert (known.breaks, known.short, known.again_at_ms is None) == (breaks, 0, False)
        one = await stroll.walk(wanted)
        assert (one.is_finished, one.short, one.rows, one.error) == (True, 1, 25, None)
        assert one.view()["short"] is True
        assert "import ends short kind=segment rows=25 total=50" in caplog.text
        assert (stroll.told, one.breaks) == ([1, 2, 3], 0)


async def test_the_rows_of_the_page_that_ends_a_short_list_are_told(stroll: Stroll) -> None:
    """A service may say that nothing follows on a page that has rows: these are not lost with the rest."""

    def capped(page: int) -> dict[str, object]:
        return overcounting(100, total_pages=10, has_more=page < 2)(page)

    with answering(capped) as url:
        stroll.url = url
        for _ in range(2):
            with pytest.raises(BreaksOff):
                await stroll.walk(Import(Kind.SEGMENT, "capped", 10))
        one = await stroll.walk(Import(Kind.SEGMENT, "capped", 10))
    assert (one.is_finished, one.short, one.rows, one.pages) == (True, 1, 20, 2)


async def test_a_list_that_comes_back_is_read_to_its_end(stroll: Stroll) -> None:
    """What broke off twice may have been an outage: told a page, the walk counts anew, and is not short."""
    answers = {"told": overcounting(50)}
    wanted = Import(Kind.SEGMENT, "back", 10)
    with answering(lambda page: answers["told"](page)) as url:
        stroll.url = url
        for _ in range(2):
            with pytest.raises(BreaksOff):
                await stroll.walk(wanted)

        def whole(page: int) -> dict[str, object]:
            rows = [visit(n, PIXEL_ID) for n in range((page - 1) * 10, min(page * 10, 50))]
            if page == 5:
                rows = []
            return {"page": page, "page_size": 10, "total_records": 50, "data": rows}

        answers["told"] = whole
        with pytest.raises(BreaksOff, match="page 5"):
            await stroll.walk(wanted)
        known = await imports.read(stroll.bench.redis, Kind.SEGMENT, "back")
        assert known
        assert (known.pages, known.breaks) == (4, 1)
    stroll.url = None
    assert (await stroll.walk(segment(20))).short == 0

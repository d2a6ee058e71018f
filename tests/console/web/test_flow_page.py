"""Flow: the figures of now, what is wrong in sentences, charts of what was, pausing and resuming."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest
from redis.asyncio import Redis

from console.web.charts import Axis, line
from console.web.sentences import in_short, verdict
from pipeline import books, heartbeats, history, keys, levels, pauses
from pipeline.history import MINUTE_MS, Moment, Span, rates
from pipeline.outcomes import Stage
from pipeline.queues import create_groups
from tests.console.conftest import audited
from tests.console.web.conftest import Open, form_token
from tests.console.web.posting import post_and_follow
from tests.pipeline.burials import bury
from tests.pipeline.work import put

pytestmark = pytest.mark.anyio


def figure(text: str, name: str) -> str:
    """Return the text of the first figure called *name*."""
    found = re.search(rf'data-figure="{name}">([^<]*)<', text)
    assert found is not None, name
    return found[1]


# the figures ----------------------------------------------------------------------------------------------


async def test_levels_tell_what_each_stage_holds(redis: Redis) -> None:
    """What waits, since when by Redis's clock, and what workers have in hand, by stage."""
    await put(redis)
    now, found = await levels.read(redis)  # before any worker has made the groups
    assert found[Stage.UNPACK].oldest_s is not None
    assert found[Stage.UNPACK].in_hands == 0
    assert found[Stage.FORWARD].oldest_s is None
    await create_groups(redis)
    await redis.xreadgroup(keys.GROUP, "somebody", {keys.queue("unpack"): ">"})
    _, found = await levels.read(redis)
    assert found[Stage.UNPACK].in_hands == 1
    assert now > 1_700_000_000_000


async def test_flow_shows_the_books(open_console: Open, redis: Redis) -> None:
    """Every counter of every stage stands on the page as the books have it."""
    await put(redis)
    await bury(redis, payloads=[b"1", b"2"])
    console = await open_console()
    text = (await console.get("/")).text
    status = await books.snapshot(redis)
    for stage, row in status["stages"].items():
        for name, count in row.items():
            assert figure(text, f"{stage}-{name}") == str(count)
    assert "2 in forward" in text
    assert "No worker is alive" in text


async def test_every_arrow_tells_its_speed(open_console: Open, redis: Redis) -> None:
    """What comes to each stage and what reaches each vendor stands on its arrow, in words for who sees no picture."""
    now = int((await redis.time())[0]) * 1000
    await redis.xadd(keys.HISTORY, {"unpack:in": 0}, id=f"{now - MINUTE_MS}-0")
    grown = {
        "unpack:in": 1200,
        "enrich:in": 600,
        "forward:in": 900,
        "forward:done": 300,
        "notify:done": 60,
    }
    await redis.hset(keys.BOOKS, mapping=grown)
    text = (await (await open_console()).get("/")).text
    speeds = {
        name: figure(text, name)
        for name in ("to-unpack", "to-enrich", "from-forward", "from-notify")
    }
    told = {name: float(speed.replace("\u202f", "")) for name, speed in speeds.items()}
    wanted = {"to-unpack": 1200, "to-enrich": 600, "from-forward": 300, "from-notify": 60}
    assert told == {name: pytest.approx(speed, rel=0.1) for name, speed in wanted.items()}
    assert figure(text, "to-audiencelab") == "\u2013"  # the history knows no calls
    assert "from forward to AudiencePoint" in text


async def test_a_pause_is_told_with_its_reason(open_console: Open, redis: Redis) -> None:
    """Who paused a stage, and why, is the first thing that the page says; as text."""
    await heartbeats.beat(redis, "one")
    await pauses.pause(redis, Stage.FORWARD, "<b>lunch</b>")
    console = await open_console()
    text = (await console.get("/")).text
    assert "forward is paused by the operator: &lt;b&gt;lunch&lt;/b&gt;" in text
    assert "No worker is alive" not in text


async def test_a_stage_is_paused_and_resumed_here(open_console: Open, redis: Redis) -> None:
    """Both buttons do what the commands do, and stand in the audit; an unknown stage is refused."""
    console = await open_console()
    token = form_token((await console.get("/")).text)
    fields = {"form_token": token, "stage": "forward", "reason": "maintenance"}
    assert (await console.post("/pause", data=fields)).status_code == 303
    paused = (await books.snapshot(redis))["paused"]["forward"]
    assert (paused["by"], paused["reason"]) == ("operator", "maintenance")
    assert (await console.post("/resume", data=fields)).status_code == 303
    assert (await books.snapshot(redis))["paused"]["forward"] is None
    assert (await console.post("/pause", data={**fields, "stage": "x"})).status_code == 400
    assert await audited(redis) == [
        ("pause", 1, {"stage": "forward"}),
        ("resume", 1, {"stage": "forward"}),
    ]


async def test_read_only_pauses_nothing(open_console: Open, redis: Redis) -> None:
    """With CONSOLE_READ_ONLY the buttons are missing, and a posted form is refused."""
    console = await open_console(console_read_only=True)
    text = (await console.get("/")).text
    assert 'action="/pause"' not in text
    token = form_token((await console.get("/dead/replay")).text) if "form_token" in text else "x"
    answer = await console.post("/pause", data={"form_token": token, "stage": "forward"})
    assert answer.status_code == 403
    assert (await books.snapshot(redis))["paused"]["forward"] is None


async def test_figures_are_streamed(open_console: Open, redis: Redis) -> None:
    """The stream gives the page's figures, the same texts as the page itself."""
    await put(redis)
    console = await open_console()
    text = (await console.get("/")).text
    told = await first_event(console)
    assert told["texts"]["unpack-waiting"] == figure(text, "unpack-waiting") == "1"
    assert ["bad", "No worker is alive: what comes in waits."] in told["verdict"]


def test_the_worst_is_said_first() -> None:
    """Books that do not balance come before everything, and nothing says then that they do."""
    figures = {
        "balanced": False,
        "workers": 1,
        "paused": {
            "enrich": {"by": "operator", "reason": "asked"},
            "forward": {"by": "relay", "reason": "401"},
        },
        "stages": {"forward": {"dead": 1}},
        "rates": {},
    }
    said = verdict(figures)
    assert "do not balance" in said[0][1]
    assert [how for how, _ in said] == ["bad", "bad", "warn", "warn"]
    assert in_short(said) == "2 grave, 2 to look at:"


async def test_a_paused_task_is_said_too(open_console: Open, redis: Redis) -> None:
    """Imports and the poll of scores are no stages, and yet nobody has to look for what holds them."""
    await pauses.pause(redis, "imports", "the segment is being rebuilt")
    console = await open_console()
    assert (
        "imports is paused by the operator: the segment is being rebuilt"
        in (await console.get("/")).text
    )
    told = (await console.get("/api/status")).json()["tasks"]
    assert (told["imports"]["by"], told["polling"]) == ("operator", None)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (["good"], "Nothing is stuck."),
        (["bad"], "1 grave:"),
        (["warn", "warn", "good"], "2 to look at:"),
    ],
)
def test_it_is_told_how_many_sentences_there_are(how: list[str], told: str) -> None:
    """The page has room for three sentences, and says above them how many of each kind to expect."""
    assert in_short([(each, "") for each in how]) == told


async def test_the_short_sentence_is_live(open_console: Open) -> None:
    """The stream tells it with the figures."""
    console = await open_console()
    text = (await console.get("/")).text
    assert figure(text, "verdict") == "1 grave:"
    assert (await first_event(console))["texts"]["verdict"] == figure(text, "verdict")


# the history ----------------------------------------------------------------------------------------------


async def test_a_minute_is_written_once(redis: Redis) -> None:
    """However many workers ask, a minute has one entry, with the books as they stood."""
    await put(redis)
    written = await asyncio.gather(*(history.note(redis) for _ in range(5)))
    moments = await history.read(redis, 2 * MINUTE_MS, 2)
    assert sum(written) == len(moments)
    assert moments[-1].at_ms % MINUTE_MS == 0
    assert moments[-1].numbers["unpack:in"] == 1


async def test_a_range_is_read_in_pieces(redis: Redis) -> None:
    """Of however many minutes some moments are read, equally far apart, always with the last; older ones are not."""
    now = int((await redis.time())[0]) * 1000 // MINUTE_MS * MINUTE_MS
    async with redis.pipeline(transaction=False) as pipe:
        for n in range(300, 0, -1):
            pipe.xadd(keys.HISTORY, {"unpack:in": 300 - n}, id=f"{now - n * MINUTE_MS}-0")
        await pipe.execute()
    moments = await history.read(redis, 240 * MINUTE_MS, 8)
    ages = [(now - moment.at_ms) // MINUTE_MS for moment in moments]
    assert len(ages) == 9
    assert ages[0] in (239, 240)
    assert ages[-1] == 1
    assert {before - after for before, after in pairwise(ages[:-1])} == {30}
    gap = await history.read(redis, 10_000 * MINUTE_MS, 100)
    assert [moment.numbers["unpack:in"] for moment in gap][-1] == 299
    assert len(gap) == len({moment.at_ms for moment in gap})


def test_speeds_are_a_minute_on_average() -> None:
    """A counter's growth is told by the minute; books that began anew grew by nothing."""
    moments = [Moment(n * 10 * MINUTE_MS, {"a": 100 * n}) for n in range(7)]
    assert [span.value for span in rates(moments, "a")] == [10.0] * 6
    assert rates(moments[:1], "a") == []
    anew = [Moment(0, {"a": 100}), Moment(MINUTE_MS, {"a": 1})]
    assert [span.value for span in rates(anew, "a")] == [0.0]


def test_levels_are_sums_as_they_stood() -> None:
    """What waits is told as it stood at each moment, of all stages together; a counter that is missing is none."""
    moments = [Moment(n * MINUTE_MS, {"a": n, "b": 10}) for n in range(3)]
    assert [span.value for span in history.levels(moments, "a", "b", "c")] == [11, 12]
    assert [span.since_ms for span in history.levels(moments, "a")] == [0, MINUTE_MS]


async def test_what_waited_and_what_died_is_drawn(open_console: Open, redis: Redis) -> None:
    """All stages together, where there was any: a backlog shows when it began, deaths when they came."""
    now = int((await redis.time())[0]) * 1000 // MINUTE_MS * MINUTE_MS
    for n in range(4):
        entry = {"unpack:waiting": 100 * n, "enrich:waiting": 5, "subscribe:dead": 7}
        await redis.xadd(keys.HISTORY, entry, id=f"{now - (4 - n) * MINUTE_MS}-0")
    text = (await (await open_console()).get("/")).text
    told = "pieces of work waited in all stages, 305 at most, 205 on average, 305 last"
    assert f'aria-label="{told}"' in text
    told = "dead letters lay in all stages, 7 at most, 7 on average, 7 last"
    assert f'aria-label="{told}"' in text
    assert "sightings a minute were merged" not in text


@pytest.mark.parametrize(("name", "step"), [("hour", 1), ("day", 15), ("week", 90), ("x", 1)])
async def test_the_charts_say_in_words_what_they_show(
    open_console: Open, redis: Redis, name: str, step: int
) -> None:
    """Each range has its chart with a name that a screen reader tells; an unknown range is the hour's."""
    now = int((await redis.time())[0]) * 1000 // MINUTE_MS * MINUTE_MS
    for n in range(10):
        entry = {"unpack:in": 30 * n * step, "forward:done": 60 * n * step}
        await redis.xadd(keys.HISTORY, entry, id=f"{now - (10 - n) * step * MINUTE_MS}-0")
    console = await open_console()
    text = (await console.get(f"/?range={name}")).text
    assert 'aria-label="deliveries a minute came in, 30 at most, 30 on average, 30 last"' in text


def spans(*minutes: tuple[int, int, float]) -> list[Span]:
    """Return spans from one minute to another, each with its speed."""
    return [Span(begin * MINUTE_MS, end * MINUTE_MS, speed) for begin, end, speed in minutes]


AXIS = Axis(0, 12 * MINUTE_MS, MINUTE_MS)


def test_a_chart_is_drawn_to_its_most() -> None:
    """The largest number reaches the top, zero the bottom; without any there is nothing to draw."""
    drawn = line(spans((0, 1, 0), (1, 2, 5), (2, 3, 10)), AXIS, "what <it> shows")
    assert 'points="0.0,96.0 40.0,96.0 80.0,50.0 120.0,4.0"' in drawn
    assert "what &lt;it&gt; shows" in drawn
    assert "<svg" not in line([], AXIS, "x")


def test_a_chart_has_its_moments_where_their_time_is() -> None:
    """The younger, the further right; where nobody wrote down what happened, the line has a gap."""
    drawn = line(spans((3, 4, 5), (4, 9, 7), (9, 11, 10)), AXIS, "x")
    assert re.findall(r'<polyline class="chart-line" points="([^"]*)"', drawn) == [
        "120.0,50.0 160.0,50.0",
        "360.0,4.0 440.0,4.0",
    ]
    assert line(spans((-5, 1, 5)), AXIS, "x") == line([], AXIS, "x")


async def test_the_charts_stand_as_a_table_too(open_console: Open, redis: Redis) -> None:
    """Below the charts their numbers can be opened, with a dash for a gap; the axis tells four times, UTC on hover."""
    now = int((await redis.time())[0]) * 1000 // MINUTE_MS * MINUTE_MS
    for back, count in ((9, 0), (8, 1234), (2, 2000), (1, 2000)):
        await redis.xadd(keys.HISTORY, {"unpack:in": count}, id=f"{now - back * MINUTE_MS}-0")
    text = (await (await open_console()).get("/")).text
    table = text[text.index("The same as a table") :]
    assert [
        numbers[0]
        for numbers in (
            re.findall(r'class="number">([^<]*)</td>', row)
            for row in table[: table.index("</table>")].split("<tr>")
        )
        if numbers
    ] == [
        "1\u202f234",
        "\u2013",
        "0",
    ]
    assert len(re.findall(r'<time [^>]*title="[^"]* UTC" data-short="clock">', text)) == 8
    week = (await (await open_console()).get("/?range=week")).text
    assert 'data-short="day"' in week


async def first_event(console: httpx.AsyncClient) -> dict[str, Any]:
    """Return the first event of the stream, which httpx's transport would wait for the end of."""
    app = console._transport.app  # type: ignore[attr-defined]
    messages: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    gone = asyncio.Event()

    async def receive() -> dict[str, object]:
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "method": "GET", "path": "/api/live", "raw_path": b"/api/live", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8001")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8001),
        "scheme": "http", "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    task = asyncio.create_task(app(scope, receive, messages.put))
    async with asyncio.timeout(60):
        while not (body := (await messages.get()).get("body")):
            continue
    gone.set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert isinstance(body, bytes)
    assert body.startswith(b"data: ")
    found: dict[str, Any] = orjson.loads(body[6:])
    return found


async def test_who_pauses_sees_it_at_once(open_console: Open) -> None:
    """The page that follows a pause or a resume shows it, however fresh the figures were that others looked at."""
    console = await open_console()
    for path, is_paused in (("/pause", True), ("/resume", False), ("/pause", True)):
        assert (await console.get("/")).status_code == 200
        text = (await post_and_follow(console, path, stage="forward")).text
        assert ("forward is paused by the operator" in text) is is_paused

"""Flow: whether it flows, what is stuck and why, in one look; with the hour, day or week behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from markupsafe import Markup
from redis.exceptions import RedisError
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from console.commands import ring
from console.output import safe
from console.web import charts
from console.web.desk import Desk, desk_of
from console.web.forms import read_form, word
from console.web.rendering import UNKNOWN, done, duration, number, page
from console.web.replay import WHO
from console.web.sentences import in_short, verdict
from pipeline import audit, history, pauses
from pipeline.clock import DAY_MS, HOUR_MS, iso, redis_now_ms
from pipeline.endpoints import OWN_PAUSE
from pipeline.history import Moment, Span
from pipeline.outcomes import Stage

#: how long each range is, and into how many pieces its charts are cut
RANGES = {"hour": (HOUR_MS, 60), "day": (DAY_MS, 96), "week": (7 * DAY_MS, 112)}
#: live figures, as often as anybody can read them
EVERY_S = 2.0
STREAMED_S = 60.0
_GOES_TO = {
    Stage.UNPACK: "takes deliveries apart",
    Stage.ENRICH: "asks AudienceLab who it was",
    Stage.SUBSCRIBE: "has AudiencePoint watch the address",
    Stage.FORWARD: "posts events to AudiencePoint",
    Stage.SCORES: "keeps AudiencePoint's scores",
    Stage.NOTIFY: "tells the CRM what changed",
}


def _each(counter: str) -> list[str]:
    return [f"{stage}:{counter}" for stage in Stage]


Spans = Callable[[list[Moment]], list[Span]]
#: what each chart shows, and from what; of those that show nothing but zeros only the first two stand there
_CHARTS: Sequence[tuple[str, Spans]] = (
    ("deliveries a minute came in", lambda past: history.rates(past, "unpack:in")),
    ("events a minute reached AudiencePoint", lambda past: history.rates(past, "forward:done")),
    ("sightings a minute were merged", lambda past: history.rates(past, "enrich:done")),
    ("pieces of work waited in all stages", lambda past: history.levels(past, *_each("waiting"))),
    ("dead letters lay in all stages", lambda past: history.levels(past, *_each("dead"))),
)


async def show(request: Request) -> Response:
    """Show the flow."""
    desk = desk_of(request)
    wanted = request.query_params.get("range", "hour")
    wanted = wanted if wanted in RANGES else "hour"
    length, pieces = RANGES[wanted]
    figures = await desk.gauges.read()
    now = await redis_now_ms(desk.redis)
    moments = await history.read(desk.redis, length, pieces)
    axis = charts.Axis(now - length, now, length // pieces)
    return page(
        request,
        "flow.html",
        title="Flow",
        figures=figures,
        texts=texts(figures),
        goes_to=_GOES_TO,
        charts=_drawn(moments, axis),
        ticks=[iso(at_ms) for at_ms in axis.ticks_ms],
        ranges=RANGES,
        range=wanted,
        verdict=verdict(figures),
    )


@dataclass(frozen=True, slots=True)
class _Chart:
    """One chart, and the same for a table: when each piece ended, and its value. None: nothing is known."""

    what: str
    drawn: Markup
    most: str | None
    last: str | None
    rows: Sequence[tuple[str, str]]


def _drawn(moments: list[Moment], axis: charts.Axis) -> list[_Chart]:
    """Return the charts that have something to show, and always the first two."""
    drawn = []
    for place, (what, spans_of) in enumerate(_CHARTS):
        spans = spans_of(moments)
        values = [span.value for span in charts.known(spans, axis)]
        if not any(values) and place > 1:
            continue
        rows = [
            (iso(span.at_ms), _shown(None if axis.is_gap(span) else span.value)) for span in spans
        ]
        picture = charts.line(spans, axis, f"{what}, {_in_words(values)}")
        most, last = map(_shown, (max(values), values[-1])) if values else (None, None)
        drawn.append(_Chart(what, picture, most, last, rows))
    return drawn


def _in_words(values: list[float]) -> str:
    if not values:
        return "not known yet"
    average = sum(values) / len(values)
    most, usual, last = map(_shown, (max(values), average, values[-1]))
    return f"{most} at most, {usual} on average, {last} last"


def texts(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return every figure of the page that changes while somebody looks, as it is shown, by its element's name."""
    told = {
        "verdict": in_short(verdict(figures)),
        "oldest": duration(figures["oldest_waiting_s"]),
        "workers": number(figures["workers"]),
        "maybe_duplicate": number(figures["maybe_duplicate"]),
    }
    for cause, count in figures["refused"].items():
        told[f"refused-{cause}"] = number(count)
    for stage, flow in figures["flow"].items():
        row = figures["stages"][stage]
        told |= {f"{stage}-{name}": number(count) for name, count in row.items()}
        told |= {
            f"{stage}-out_per_minute": _shown(flow["out_per_minute"]),
            f"{stage}-oldest": duration(flow["oldest_s"]),
            f"{stage}-in_hands": number(flow["in_hands"]),
            f"{stage}-drains": duration(flow["drains_in_s"]),
            f"to-{stage}": _shown(flow["in_per_minute"]),
        }
    told |= {
        f"from-{stage}": _shown(figures["flow"][stage]["done_per_minute"])
        for stage in (Stage.SUBSCRIBE, Stage.FORWARD, Stage.NOTIFY)
    }
    # most sightings are merged without a call
    told["to-audiencelab"] = _shown(figures["flow"][Stage.ENRICH]["calls_per_minute"])
    return told


def _shown(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return number(round(value)) if value >= 10 else f"{value:.2g}"


async def live(request: Request) -> Response:
    """Stream the figures of the page as server-sent events, every two seconds, for a minute.

    A browser comes back by itself then, and so only while it has a session.
    """
    desk = desk_of(request)
    headers = {"x-accel-buffering": "no"}  # nginx would keep them until there are many
    return StreamingResponse(_events(desk), media_type="text/event-stream", headers=headers)


async def _events(desk: Desk) -> AsyncIterator[bytes]:
    for _ in range(int(STREAMED_S / EVERY_S)):
        try:
            figures = await desk.gauges.read()
            told = {
                "texts": texts(figures),
                "verdict": [(how, safe(sentence[:600])) for how, sentence in verdict(figures)],
                "paused": {stage: bool(pause) for stage, pause in figures["paused"].items()},
            }
        except (RedisError, OSError) as error:
            words = f"Redis does not answer ({type(error).__name__})."
            said = [("bad", words)]
            told = {"texts": {"verdict": in_short(said)}, "verdict": said, "paused": {}}
        yield b"data: " + orjson.dumps(told) + b"\n\n"
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY_S):
                await desk.ending.wait()
        if desk.ending.is_set():
            return


async def pause(request: Request) -> Response:
    """Pause a stage by the operator's word."""
    form = await read_form(request)
    desk, stage = desk_of(request), _stage(word(form, "stage"))
    reason = word(form, "reason")[:500] or "paused by the operator"
    await audit.record(desk.redis, "pause", who=WHO, count=1, wanted={"stage": stage})
    await pauses.pause(desk.redis, stage, reason)
    await desk.gauges.forget()
    return done(
        request, _back(form), f"{stage} is paused: calls in flight finish, what comes in waits."
    )


async def resume(request: Request) -> Response:
    """Lift a pause, and let the stage try at once."""
    form = await read_form(request)
    desk, stage = desk_of(request), _stage(word(form, "stage"))
    await audit.record(desk.redis, "resume", who=WHO, count=1, wanted={"stage": stage})
    await pauses.resume(desk.redis, stage)
    await desk.gauges.forget()
    if stage not in OWN_PAUSE:
        await ring(desk.redis, {Stage(stage)})
    return done(request, _back(form), f"{stage} goes on.")


def _back(form: FormData) -> str:
    """Return the page that the form stood on."""
    return "/destinations" if word(form, "back") == "destinations" else "/"


def _stage(name: str) -> str:
    """Return the name of a stage, or of a task that has a pause, too."""
    if name not in (*Stage, *OWN_PAUSE):
        raise HTTPException(400, "There is no such stage.")
    return name


#: told by `api`, too
LIVE = Route("/api/live", live, methods=["GET"])
routes = [
    Route("/", show, methods=["GET"]),
    LIVE,
    Route("/pause", pause, methods=["POST"]),
    Route("/resume", resume, methods=["POST"]),
]

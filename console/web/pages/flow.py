"""Flow: whether it flows, what is stuck and why, in one look; with the hour, day or week behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import orjson
from redis.exceptions import RedisError
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from console.commands import ring
from console.web import charts
from console.web.desk import Desk, desk_of
from console.web.forms import read_form, word
from console.web.rendering import UNKNOWN, done, duration, number, page
from console.web.replay import WHO
from console.web.sentences import verdict
from pipeline import audit, history, pauses
from pipeline.outcomes import Stage

#: how long each range is, and into how many pieces its charts are cut
RANGES = {"hour": (3_600_000, 60), "day": (86_400_000, 96), "week": (604_800_000, 112)}
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
_CHARTS = (
    ("unpack:in", "deliveries a minute came in"),
    ("forward:done", "events a minute reached AudiencePoint"),
    ("enrich:done", "sightings a minute were merged"),
    ("forward:dead", "events a minute died in forward"),
)


async def show(request: Request) -> Response:
    """Show the flow."""
    desk = desk_of(request)
    length, pieces = RANGES.get(request.query_params.get("range", "hour"), RANGES["hour"])
    figures = await desk.gauges.read()
    moments = await history.read(desk.redis, length, pieces)
    drawn = []
    for counter, what in _CHARTS:
        spans = [span.per_minute for span in history.rates(moments, counter)]
        if any(spans) or counter in ("unpack:in", "forward:done"):
            drawn.append((what, charts.line(spans, f"{what}, {_in_words(spans)}"), spans))
    return page(
        request,
        "flow.html",
        title="Flow",
        figures=figures,
        texts=texts(figures),
        goes_to=_GOES_TO,
        charts=drawn,
        ranges=RANGES,
        range=request.query_params.get("range", "hour"),
        verdict=verdict(figures),
    )


def _in_words(spans: list[float]) -> str:
    if not spans:
        return "not known yet"
    return (
        f"{max(spans):.0f} at most, {sum(spans) / len(spans):.0f} on average, {spans[-1]:.0f} last"
    )


def texts(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return every figure of the page that changes while somebody looks, as it is shown, by its element's name."""
    told = {
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
            f"{stage}-in_per_minute": _per_minute(flow["in_per_minute"]),
            f"{stage}-out_per_minute": _per_minute(flow["out_per_minute"]),
            f"{stage}-oldest": duration(flow["oldest_s"]),
            f"{stage}-in_hands": number(flow["in_hands"]),
            f"{stage}-drains": duration(flow["drains_in_s"]),
        }
    return told


def _per_minute(rate: float | None) -> str:
    if rate is None:
        return UNKNOWN
    return number(round(rate)) if rate >= 10 else f"{rate:g}"


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
                "verdict": verdict(figures),
                "paused": {stage: bool(pause) for stage, pause in figures["paused"].items()},
            }
        except (RedisError, OSError) as error:
            words = f"Redis does not answer ({type(error).__name__})."
            told = {"texts": {}, "verdict": [("bad", words)], "paused": {}}
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
    return done(
        request, _back(form), f"{stage} is paused: calls in flight finish, what comes in waits."
    )


async def resume(request: Request) -> Response:
    """Lift a pause, and let the stage try at once."""
    form = await read_form(request)
    desk, stage = desk_of(request), _stage(word(form, "stage"))
    await audit.record(desk.redis, "resume", who=WHO, count=1, wanted={"stage": stage})
    await pauses.resume(desk.redis, stage)
    await ring(desk.redis, {stage})
    return done(request, _back(form), f"{stage} goes on.")


def _back(form: FormData) -> str:
    """Return the page that the form stood on."""
    return "/destinations" if word(form, "back") == "destinations" else "/"


def _stage(name: str) -> Stage:
    if name not in tuple(Stage):
        raise HTTPException(400, "There is no such stage.")
    return Stage(name)


routes = [
    Route("/", show, methods=["GET"]),
    Route("/api/live", live, methods=["GET"]),
    Route("/pause", pause, methods=["POST"]),
    Route("/resume", resume, methods=["POST"]),
]

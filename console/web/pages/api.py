"""The same as JSON under /api/, for programs: what a page shows, read only; described by /api/openapi.json.

A program shows CONSOLE_TOKEN as bearer. Refusals and failures are `application/problem+json`. Of people nothing is told
here, and of dead letters no payload: `relay dead list --json` has them whole.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console import destinations, senders, setting_rows
from console.web.desk import desk_of
from console.web.openapi import document
from console.web.pages.dead_letters import View
from console.web.pages.deliveries import Choice
from console.web.pages.flow import LIVE, RANGES
from console.web.pages.settings import findings_of
from pipeline import arrivals, dead_letters, history, retry_runs
from pipeline.clock import iso

#: letters or deliveries an answer; the next ones are at `next`
MOST = 100


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


async def status(request: Request) -> Response:
    """Answer the books, and every stage's figures of now."""
    return _json(await desk_of(request).gauges.read())


async def past(request: Request) -> Response:
    """Answer the books at some moments of the last hour, day or week, oldest first."""
    name = request.query_params.get("range", "hour")
    if name not in RANGES:
        raise HTTPException(400, "range is hour, day or week.")
    moments = await history.read(desk_of(request).redis, *RANGES[name])
    return _json([{"at": iso(moment.at_ms), "books": moment.numbers} for moment in moments])


async def deliveries(request: Request) -> Response:
    """Answer up to a hundred of the last deliveries, newest first, and where the next are.

    `waiting` are the newest that wait to be unpacked, at most twenty, before the first of these.
    """
    choice, redis = Choice.of(request.query_params), desk_of(request).redis
    found, cursor = await arrivals.look(redis, choice.source or None, choice.cursor, MOST)
    told = {
        "waiting": [one.view() for one in await choice.newest_waiting(redis)],
        "deliveries": [one.view() for one in found],
        "next": f"{cursor.entry}-{cursor.passed}" if cursor else None,
    }
    return _json(told)


async def letters(request: Request) -> Response:
    """Answer up to a hundred dead letters, newest first, and where the next are."""
    desk, view = desk_of(request), View.of(request.query_params)
    found, cursor = await dead_letters.look(desk.redis, await view.filter(desk), view.cursor, MOST)
    further = f"{cursor.at_ms}-{cursor.passed}" if cursor else None
    return _json({"letters": [letter.view() for letter in found], "next": further})


async def letter(request: Request) -> Response:
    """Answer one dead letter."""
    found = await dead_letters.heads(desk_of(request).redis, [request.path_params["id"]])
    if not found:
        raise HTTPException(404, "There is no such dead letter: it was retried or dropped.")
    return _json(found[0].view())


async def kinds(request: Request) -> Response:
    """Answer how many dead letters there are of each stage, source and reason."""
    found = await dead_letters.kinds(desk_of(request).redis)
    return _json(
        [
            {"stage": k.stage, "source": k.source, "reason": k.reason, "count": k.count}
            for k in found
        ]
    )


async def replay(request: Request) -> Response:
    """Answer how far the retry run has come that goes on or was interrupted; null when there is none."""
    found = await retry_runs.progress(desk_of(request).redis)
    if found is None:
        return _json(None)
    told: dict[str, Any] = {
        "filter": retry_runs.filter_view(found.run.wanted),
        "started_at": iso(found.run.started_at_ms),
        "meant": found.run.meant,
        "done": found.run.done,
        "skipped": found.run.skipped,
        "goes_on": found.goes_on,
        "is_stopping": found.is_stopping,
    }
    return _json(told)


async def called(request: Request) -> Response:
    """Answer whom each stage calls, whether it may, how fast it is answered, and the last calls that failed."""
    desk = desk_of(request)
    return _json(await destinations.read(desk.redis, desk.settings))


async def sources(request: Request) -> Response:
    """Answer what each source delivered last and in all, and whether its signature is checked."""
    desk = desk_of(request)
    return _json(await senders.rows_of(desk.redis, desk.settings.sender_secrets()))


async def settings(request: Request) -> Response:
    """Answer every setting, secrets masked, and what the doctor found: last, or without asking anybody."""
    desk = desk_of(request)
    findings, is_whole = await findings_of(desk)
    rows = [asdict(row) for row in setting_rows.rows_of(desk.settings)]
    found = [finding.view() for finding in findings]
    return _json({"settings": rows, "findings": found, "is_whole": is_whole})


async def described(request: Request) -> Response:
    """Answer the description of all this, as OpenAPI 3.1."""
    return _json(document([*routes, LIVE]))


routes = [
    Route("/api/status", status, methods=["GET"]),
    Route("/api/history", past, methods=["GET"]),
    Route("/api/deliveries", deliveries, methods=["GET"]),
    Route("/api/dead", letters, methods=["GET"]),
    Route("/api/dead/kinds", kinds, methods=["GET"]),
    Route("/api/dead/replay", replay, methods=["GET"]),
    Route("/api/dead/{id}", letter, methods=["GET"]),
    Route("/api/destinations", called, methods=["GET"]),
    Route("/api/senders", sources, methods=["GET"]),
    Route("/api/settings", settings, methods=["GET"]),
    Route("/api/openapi.json", described, methods=["GET"]),
]

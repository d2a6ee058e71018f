"""Destinations: whom the relay calls, whether it may, how long that takes, what failed; with pause, resume, probe."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console import destinations
from console.commands import ring
from console.web.desk import desk_of
from console.web.forms import read_form, word
from console.web.rendering import done, page
from console.web.replay import WHO
from pipeline import audit, pauses
from pipeline.calls import Outcome
from pipeline.outcomes import Stage
from pipeline.paces import CALLING

_WHERE = "/destinations"
#: how a state is coloured
_VERDICTS = {
    "flows": "said good",
    "backs_off": "said warn",
    "paused": "said bad",
    "switched_off": "faint",
}
#: what an outcome is called on the page
_OUTCOMES = {
    Outcome.OK: "went well",
    Outcome.REFUSED: "refused",
    Outcome.FAILED: "failed",
    Outcome.TIMED_OUT: "timed out",
    Outcome.THROTTLED: "too many (429)",
}
_SAID = {
    "due": "The next call of {} goes now; what comes of it is here in a few seconds.",
    "free": "Nothing puts off the calls of {}: there is nothing to probe for.",
    "operator": "An operator has paused {}: resume it, and it calls.",
    "key": "{} waits for its key: no call goes without one.",
}


async def show(request: Request) -> Response:
    """Show every destination."""
    desk = desk_of(request)
    return page(
        request,
        "destinations.html",
        title="Destinations",
        destinations=await destinations.read(desk.redis, desk.settings),
        verdicts=_VERDICTS,
        outcomes=_OUTCOMES,
    )


async def probe(request: Request) -> Response:
    """Let a stage's next call go now; an operator's pause stays."""
    form = await read_form(request)
    desk, name = desk_of(request), word(form, "stage")
    if name not in CALLING:
        raise HTTPException(400, "There is no such destination.")
    stage = Stage(name)
    answer = await pauses.probe(desk.redis, stage)
    if answer == "due":
        await audit.record(desk.redis, "probe", who=WHO, count=1, wanted={"stage": stage})
        await ring(desk.redis, {stage})
    return done(request, _WHERE, _SAID[answer].format(stage))


routes = [
    Route(_WHERE, show, methods=["GET"]),
    Route(f"{_WHERE}/probe", probe, methods=["POST"]),
]

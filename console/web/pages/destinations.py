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
from pipeline.endpoints import OWN_PAUSE, Endpoint
from pipeline.outcomes import Stage
from pipeline.paces import CALLING

_WHERE = "/destinations"
#: how a state is coloured
_VERDICTS = {
    "flows": "said good",
    "backs_off": "said warn",
    "paused": "said bad",
    "no_key": "said warn",
    "rests": "faint",
    "switched_off": "faint",
}
#: what is called, where the name of a stage does not say it
_ABOUT = {
    Endpoint.BULK: "AudienceLab's jobs, by which many visitors are asked about at once: made, looked at, fetched.",
    Endpoint.IMPORTS: "AudienceLab's segments and pixels, read page by page for what webhooks missed.",
    Endpoint.VERIFY: "AudiencePoint's word on an address, before that is subscribed.",
    Endpoint.POLLING: "AudiencePoint's scores of subscribed addresses, asked for while it pushes none;"
    " at most a fifth of the rate.",
    Endpoint.PROOFS: "Amazon's certificates, which prove what SES delivers, and confirmations of its subscriptions.",
}
#: which settings say whether these calls are made
_SETTINGS = {
    Endpoint.BULK: "ENRICH_BULK_FROM",
    Endpoint.IMPORTS: "RECONCILE_SEGMENTS, RECONCILE_PIXELS",
    Endpoint.VERIFY: "VERIFY",
    Endpoint.POLLING: "SCORE_POLL_EVERY_H",
    Endpoint.PROOFS: "SES_TOPIC_ARNS",
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
    "due": "The next call of {0} goes now; load the page again in {1} to see what comes of it.",
    "free": "Nothing puts off the calls of {0}: there is nothing to probe for.",
    "operator": "An operator has paused {0}: resume it, and it calls.",
    "key": "{0} waits for its key: no call goes without one.",
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
        about=_ABOUT,
        settings=_SETTINGS,
        own_pause=OWN_PAUSE,
        stages=CALLING,
    )


async def probe(request: Request) -> Response:
    """Let the next call of a stage, or of the poll, go now; an operator's pause stays.

    Audited before it is tried, as pausing is.
    """
    form = await read_form(request)
    desk, name = desk_of(request), word(form, "stage")
    if name not in (*CALLING, Endpoint.POLLING):
        raise HTTPException(400, "There is nothing to probe by this name.")
    await audit.record(desk.redis, "probe", who=WHO, count=1, wanted={"stage": name})
    answer = await pauses.probe(desk.redis, name)
    if answer == "due" and name in CALLING:
        await ring(desk.redis, {Stage(name)})
    # what is no stage is not rung for: it looks by itself every half a minute
    patience = "a few seconds" if name in CALLING else "a minute"
    return done(request, _WHERE, _SAID[answer].format(name, patience))


routes = [
    Route(_WHERE, show, methods=["GET"]),
    Route(f"{_WHERE}/probe", probe, methods=["POST"]),
]

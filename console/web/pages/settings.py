"""Settings: what is set and what it means, what `relay doctor` finds, and the last entries of the audit."""

from __future__ import annotations

from collections import Counter

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from console.commands import redis_failure
from console.examination import examine
from console.findings import Finding, State
from console.setting_rows import rows_of
from console.web.desk import Desk, desk_of
from console.web.errands import Busy
from console.web.forms import read_form
from console.web.rendering import done, page
from pipeline import audit

#: of the audit
ENTRIES = 100
_EXAMINED = "/settings/examination"


async def show(request: Request) -> Response:
    """Show every setting and the end of the audit."""
    desk, failure, entries = desk_of(request), None, []
    try:
        entries = await audit.last(desk.redis, ENTRIES)
    except (RedisError, OSError) as error:  # the settings are what is looked at then
        failure = redis_failure(error, desk.settings)
    return page(
        request,
        "settings.html",
        title="Settings",
        rows=rows_of(desk.settings),
        entries=entries,
        failure=failure,
    )


async def findings_of(desk: Desk) -> tuple[list[Finding], bool]:
    """Return what the last examination found and True; before the first, what is found without asking anybody."""
    at_hand: list[Finding] = []
    if not (desk.examinations.last and desk.examinations.last.findings):
        at_hand = await examine(desk.redis, desk.settings, is_whole=False)
    last = desk.examinations.last  # it may have come to its end meanwhile
    findings = (last.findings if last else []) or at_hand
    return findings, findings is not at_hand


async def show_examination(request: Request) -> Response:
    """Show what was found."""
    desk = desk_of(request)
    findings, is_whole = await findings_of(desk)
    counted = Counter(each.state for each in findings)
    return page(
        request,
        "examination.html",
        title="Examination",
        last=desk.examinations.last,
        is_whole=is_whole,
        findings=findings,
        counted={state.value: counted[state] for state in reversed(State)},
    )


async def begin_examination(request: Request) -> Response:
    """Begin to look at everything."""
    await read_form(request)
    try:
        await desk_of(request).examinations.begin()
    except Busy as busy:
        return done(request, _EXAMINED, str(busy))
    return RedirectResponse(_EXAMINED, 303)


routes = [
    Route("/settings", show, methods=["GET"]),
    Route(_EXAMINED, show_examination, methods=["GET"]),
    Route(_EXAMINED, begin_examination, methods=["POST"]),
]

"""Dead letters: what failed for good, why, and how it gets another try; nothing is touched without a plan.

Whoever wants to retry or drop many is first shown how many of each stage and reason that means. The plan carries its
filters with the moment it was made at, so that letters buried meanwhile are not meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

import typer
from starlette.datastructures import FormData, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.orders import total
from console.selection import Since, read_since
from console.web.desk import Desk, desk_of
from console.web.errands import Busy
from console.web.forms import read_form, word
from console.web.readable import readable
from console.web.rendering import done, failure, in_words, page
from console.web.replay import WHO
from console.web.veil import Veil, clear, veil
from pipeline import audit, dead_letters, retry_runs
from pipeline.clock import redis_now_ms
from pipeline.dead_letters import Cursor, Filter, Head, Kind
from pipeline.outcomes import Reason, Stage

#: letters a page
MOST = 50
MOST_KINDS = 30
_RUN = "/dead/replay"
_WORDS = ("stage", "source", "reason", "since")
_SINCE = {"": "ever", "1h": "the last hour", "1d": "the last day", "7d": "the last week"}


@dataclass(frozen=True, slots=True)
class View:
    """What the URL asks for: the filters, in its own words, and where the page begins."""

    stage: str = ""
    source: str = ""
    reason: str = ""
    since: str = ""
    cursor: Cursor | None = None

    @classmethod
    def of(cls, query: QueryParams) -> View:
        """Read a query; raises `HTTPException` for what no filter can be."""
        stage, source, reason, since = (query.get(name, "").strip() for name in _WORDS)
        view = cls(stage, source, reason, since)
        if view.stage not in ("", *Stage) or view.reason not in ("", *Reason) or not view._since:
            raise HTTPException(400, "These filters are not valid: choose them on the page again.")
        if "from" not in query:
            return view
        at_ms, _, passed = query["from"].partition("-")
        if not (_is_number(at_ms) and _is_number(passed)):
            raise HTTPException(400, "The page cannot be found: begin at the first one.")
        return replace(view, cursor=Cursor(int(at_ms), int(passed)))

    @property
    def _since(self) -> Since | None:
        try:
            return read_since(self.since) if self.since else Since()
        except typer.BadParameter:
            return None

    async def filter(self, desk: Desk) -> Filter:
        """Return the filter; an age is reckoned by Redis's clock."""
        since_ms = await self._since.at_ms(desk.redis) if self.since and self._since else None
        return Filter(
            Stage(self.stage) if self.stage else None,
            self.source or None,
            Reason(self.reason) if self.reason else None,
            since_ms,
        )

    def url(self, **changes: str) -> str:
        """Return the address of this page with other filters."""
        words = {
            "stage": self.stage,
            "source": self.source,
            "reason": self.reason,
            "since": self.since,
        }
        query = urlencode({name: value for name, value in (words | changes).items() if value})
        return f"/dead?{query}" if query else "/dead"

    def further(self, cursor: Cursor) -> str:
        """Return the address of the page that begins at *cursor*."""
        return self.url(**{"from": f"{cursor.at_ms}-{cursor.passed}"})


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) < 16


# looking ------------------------------------------------------------------------------------------------


async def show_all(request: Request) -> Response:
    """List letters, and how many there are of each kind."""
    desk, view = desk_of(request), View.of(request.query_params)
    wanted = await view.filter(desk)
    every = await dead_letters.kinds(desk.redis)
    kinds = [kind for kind in every if _is_meant(wanted, kind)]
    # where there is none of the kind, nobody needs to look for one
    letters: list[Head] = []
    cursor = None
    if kinds:
        letters, cursor = await dead_letters.look(desk.redis, wanted, view.cursor, MOST)
    return page(
        request,
        "dead_letters.html",
        title="Dead letters",
        view=view,
        kinds=sorted(kinds, key=lambda kind: -kind.count)[:MOST_KINDS],
        kind_count=len(kinds),
        count=sum(kind.count for kind in kinds),
        letters=[letter.view() for letter in letters],
        further=view.further(cursor) if cursor else None,
        # with what was chosen, also where there is none of it any more
        stages=sorted({kind.stage for kind in every} | ({view.stage} - {""})),
        sources=sorted({kind.source for kind in every} | ({view.source} - {""})),
        reasons=sorted({kind.reason for kind in every} | ({view.reason} - {""})),
        since_choices=_SINCE,
        run=await retry_runs.progress(desk.redis),
    )


def _is_meant(wanted: Filter, kind: Kind) -> bool:
    return (
        wanted.stage in (None, kind.stage)
        and wanted.source in (None, kind.source)
        and wanted.reason in (None, kind.reason)
    )


async def show_one(request: Request) -> Response:
    """Show one letter with its original, veiled."""
    return await _one(request, veil([], []))


async def reveal(request: Request) -> Response:
    """Show one letter in clear, once that is written down."""
    await read_form(request, changes=False)
    meant = {"letter": request.path_params["id"]}
    await audit.record(desk_of(request).redis, "reveal", who=WHO, count=1, wanted=meant)
    return await _one(request, clear)


async def _one(request: Request, veiled: Veil) -> Response:
    letter = await dead_letters.fetch(desk_of(request).redis, request.path_params["id"])
    if letter is None:
        raise HTTPException(404, "There is no such dead letter: it was retried or dropped.")
    return page(
        request,
        "dead_letter.html",
        title="Dead letter",
        letter=Head.view(letter),
        error=veiled(letter.error),
        payload=readable(letter.payload, veiled),
        is_clear=veiled is clear,
        size=len(letter.payload),
    )


# replaying ------------------------------------------------------------------------------------------------


async def plan(request: Request) -> Response:
    """Tell exactly what a retry or drop would touch, and ask."""
    form = await read_form(request)
    desk, verb, ids = desk_of(request), _verb(form), _ids(form)
    counted: Mapping[Stage, Mapping[str, int]]
    meant: Filter | None = None
    if ids:
        found = await dead_letters.find(desk.redis, ids)
        counted = dead_letters.by_stage(Counter((each.stage, each.reason) for each in found))
    else:
        meant = replace(await _view(form).filter(desk), until_ms=await redis_now_ms(desk.redis))
        counted = await dead_letters.counts(desk.redis, meant)
    return page(
        request,
        "plan.html",
        title=f"{verb.capitalize()} {in_words(total(counted), 'dead letter')}?",
        verb=verb,
        counted=counted,
        count=total(counted),
        rate=retry_runs.RATE,
        ids=ids,
        fields=_fields(meant) if meant else {},
        words=retry_runs.filter_view(meant) if meant else {},
    )


async def tell_of_plans(request: Request) -> Response:
    """Say what a plan is to whoever comes to the address of one: by a reload, or by a link that was kept."""
    sentence = (
        "A plan tells what a retry or a drop would touch, before it does. It is made for the letters or the filters"
        " that are chosen on the page of dead letters, so it has no address of its own: go there, and choose again."
    )
    response = failure(request, 405, sentence)
    response.headers["allow"] = "POST"
    return response


async def carry_out(request: Request) -> Response:
    """Begin what the plan said."""
    form = await read_form(request)
    desk, verb, ids = desk_of(request), _verb(form), _ids(form)
    try:
        if ids:
            found = [place.id for place in await dead_letters.find(desk.redis, ids)]
            replay = desk.replays.retry_named if verb == "retry" else desk.replays.drop_named
            order = await replay(found)
        elif verb == "retry":
            order = await desk.replays.retry(_filter(form))
        else:
            wanted = _filter(form)
            meant = total(await dead_letters.counts(desk.redis, wanted))
            order = await desk.replays.drop(wanted, meant)
    except Busy as busy:
        return done(request, _RUN, str(busy))
    return done(request, _RUN, f"The {verb} of {in_words(order.meant, 'letter')} has begun.")


async def show_replay(request: Request) -> Response:
    """Show how far the last order has come, and the relay's one retry run."""
    desk = desk_of(request)
    run = await retry_runs.progress(desk.redis)
    return page(
        request,
        "replay.html",
        title="Replay",
        order=desk.replays.order,
        run=run,
        words=retry_runs.filter_view(run.run.wanted) if run else {},
        is_live=bool((desk.replays.order and desk.replays.order.goes_on) or (run and run.goes_on)),
    )


async def stop(request: Request) -> Response:
    """Stop what goes on, after what is under way."""
    await read_form(request)
    await desk_of(request).replays.stop()
    return done(request, _RUN, "It stops after what is under way, within a few seconds.")


async def resume(request: Request) -> Response:
    """Go on with the retry that was interrupted."""
    await read_form(request)
    try:
        order = await desk_of(request).replays.resume()
    except Busy as busy:
        return done(request, _RUN, str(busy))
    return done(request, _RUN, f"The retry goes on with {in_words(order.meant, 'letter')}.")


def _verb(form: FormData) -> str:
    verb = word(form, "verb")
    if verb not in ("retry", "drop"):
        raise HTTPException(400, "Retry, or drop?")
    return verb


def _ids(form: FormData) -> list[str]:
    """Return the letters that were ticked, each once; raises `HTTPException` where some were meant and none is."""
    ids = list(dict.fromkeys(each for each in form.getlist("id") if isinstance(each, str)))
    if word(form, "which") == "ticked" and not ids:
        raise HTTPException(400, "No letter is ticked: go back, and choose some.")
    return ids if word(form, "which") == "ticked" else []


def _view(form: FormData) -> View:
    return View.of(QueryParams({name: word(form, name) for name in _WORDS}))


def _fields(wanted: Filter) -> dict[str, str]:
    """Return *wanted* as the fields of a form, every moment a number."""
    fields = {
        "stage": wanted.stage,
        "source": wanted.source,
        "reason": wanted.reason,
        "since_ms": wanted.since_ms,
        "until_ms": wanted.until_ms,
    }
    return {name: "" if value is None else str(value) for name, value in fields.items()}


def _filter(form: Mapping[str, object]) -> Filter:
    """Read what `_fields` wrote; raises `HTTPException` for anything else."""
    words = {
        name: str(form.get(name, ""))
        for name in ("stage", "source", "reason", "since_ms", "until_ms")
    }
    stage, reason, since, until = (
        words["stage"],
        words["reason"],
        words["since_ms"],
        words["until_ms"],
    )
    if stage not in ("", *Stage) or reason not in ("", *Reason) or not _is_number(until):
        raise HTTPException(400, "This is no plan of ours: make it again.")
    if since and not _is_number(since):
        raise HTTPException(400, "This is no plan of ours: make it again.")
    return Filter(
        Stage(stage) if stage else None,
        words["source"] or None,
        Reason(reason) if reason else None,
        int(since) if since else None,
        int(until),
    )


routes = [
    Route("/dead", show_all, methods=["GET"]),
    Route("/dead/plan", plan, methods=["POST"]),
    Route("/dead/plan", tell_of_plans, methods=["GET"]),
    Route("/dead/carry-out", carry_out, methods=["POST"]),
    Route("/dead/carry-out", tell_of_plans, methods=["GET"]),
    Route(_RUN, show_replay, methods=["GET"]),
    Route(_RUN + "/stop", stop, methods=["POST"]),
    Route(_RUN + "/resume", resume, methods=["POST"]),
    Route("/dead/{id}", show_one, methods=["GET"]),
    Route("/dead/{id}", reveal, methods=["POST"]),
]

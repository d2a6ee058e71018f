"""Senders: which sources deliver, what comes of it, whether they prove who they are, and where each delivers to.

A hook's URL is a secret because of the token in it: it is masked until a form asks for it, which the audit notes.
Samples tell of invented people, so they go the whole way only while the console belongs to a trial, and only to its
receiver. Elsewhere one is a drill: a worker reads it, and nothing of it goes on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.commands import Failed
from console.drill import drill
from console.findings_of_drill import receiver_here
from console.hooks import SOURCES as TAGGED
from console.hooks import Hooks
from console.send import Target, post, samples
from console.senders import CHECKS, events_line, hint_of, rows_of
from console.web.desk import Desk, desk_of
from console.web.forms import read_form
from console.web.rendering import done, page
from console.web.replay import WHO
from pipeline import audit
from pipeline.home import Address, Home, HomeError
from pipeline.hook_tokens import parse_tokens, token_for
from pipeline.settings import SettingsError
from pipeline.sources.registry import SOURCES

if TYPE_CHECKING:
    from pipeline.settings import Settings

_NO_TRIAL = (
    "Samples are sent only while a trial runs, because a real vendor must never hear of invented people:"
    " `relay up` without vendor keys starts one."
)


# looking ------------------------------------------------------------------------------------------------


async def show_all(request: Request) -> Response:
    """Show every source in one table."""
    return page(
        request,
        "senders.html",
        title="Senders",
        rows=await _rows(desk_of(request)),
        checks=CHECKS,
        events=events_line,
    )


async def show_one(request: Request) -> Response:
    """Show one source, its URL with the token masked."""
    return await _show(request, _source(request), is_clear=False)


async def reveal(request: Request) -> Response:
    """Show one source with the whole URL, once that is written down."""
    source = _source(request)
    await read_form(request, changes=False)
    redis = desk_of(request).redis
    await audit.record(redis, "reveal token", who=WHO, count=1, wanted={"source": source})
    return await _show(request, source, is_clear=True)


def _source(request: Request) -> str:
    source: str = request.path_params["source"]
    if source not in SOURCES:
        raise HTTPException(404, "There is no such source.")
    return source


async def _rows(desk: Desk) -> list[dict[str, Any]]:
    return await rows_of(desk.redis, desk.settings.sender_secrets())


async def _show(request: Request, source: str, *, is_clear: bool) -> Response:
    desk = desk_of(request)
    row = next(each for each in await _rows(desk) if each["source"] == source)
    newest = [row["set_up"]] if row["set_up"] else []
    return page(
        request,
        "sender.html",
        title=source,
        row=row,
        check=CHECKS[row["signature"]["check"]],
        hint=hint_of(row),
        set_ups=[*newest, *row["earlier_set_ups"]],
        hook=_hook(desk.settings, source, is_clear=is_clear),
        is_clear=is_clear,
        is_tagged=source in TAGGED,
        is_trial=_trial_of(desk.settings) is not None,
    )


@dataclass(frozen=True, slots=True)
class _Hook:
    """Where a source delivers to: its *url*, else the sentence why there is none."""

    url: str = ""
    problem: str = ""
    #: nobody outside reaches the name of this machine
    is_here_only: bool = False


def _hook(settings: Settings, source: str, *, is_clear: bool) -> _Hook:
    try:
        base = settings.public_url or receiver_here(settings)
        url = Hooks(base, settings.tokens()).url(source, masked=not is_clear)
    except (SettingsError, HomeError, Failed) as error:
        return _Hook(problem=str(error))
    return _Hook(url, is_here_only=settings.public_url is None)


# samples ------------------------------------------------------------------------------------------------


async def send_samples(request: Request) -> Response:
    """Post the samples of one source to the trial's receiver, as their sender would."""
    source, desk = _source(request), desk_of(request)
    await read_form(request)
    trial = _trial_of(desk.settings)
    if trial is None:
        raise HTTPException(409, _NO_TRIAL)
    await audit.record(desk.redis, "send samples", who=WHO, count=1, wanted={"source": source})
    try:
        told = await asyncio.to_thread(_send, trial, source)
    except Failed as failed:
        told = str(failed)
    return done(request, f"/senders/{source}", told)


def _send(trial: Address, source: str) -> str:
    """Post them one after the other, and tell what was answered; raises `Failed`."""
    token = token_for(parse_tokens(Home(trial.home).read_tokens() or ""), source) or ""
    target = Target(trial.receiver_url or "", token)
    sent = [post(target, sample) for sample in samples(source)]
    parts = [f"{each['name']}: {each['status']} {each['ack'] or each['detail']}" for each in sent]
    return f"Sent: {'; '.join(parts)}."


def _trial_of(settings: Settings) -> Address | None:
    """Return the trial whose data this console shows; None where it is not one's.

    As a child of the trial it was told the trial's own home, and Redis by its address; else it finds both as every
    command does. A trial that runs beside the relay of REDIS_URL is somebody else's.
    """
    home = Home(settings.relay_home)
    try:
        if settings.redis_url is None:
            running = home.running()
        else:
            running = Home(home.path.parent).running()
            if running and (running.home, running.url) != (
                home.path,
                settings.redis_url.get_secret_value(),
            ):
                return None
        has_token = running is not None and Home(running.home).read_tokens() is not None
    except HomeError:
        return None
    return running if running and running.trial and running.receiver_url and has_token else None


async def send_drill(request: Request) -> Response:
    """Post a sample of one source that ends where it is read, and tell what was read of it."""
    source, desk = _source(request), desk_of(request)
    await read_form(request)
    await audit.record(desk.redis, "drill", who=WHO, count=1, wanted={"source": source})
    try:
        told = await drill(desk.redis, desk.settings, source)
    except Failed as failed:
        told = str(failed)
    return done(request, f"/senders/{source}", told)


routes = [
    Route("/senders", show_all, methods=["GET"]),
    Route("/senders/{source}", show_one, methods=["GET"]),
    Route("/senders/{source}/url", reveal, methods=["POST"]),
    Route("/senders/{source}/sample", send_samples, methods=["POST"]),
    Route("/senders/{source}/drill", send_drill, methods=["POST"]),
]

"""Log in with CONSOLE_TOKEN, and log out."""

from __future__ import annotations

import logging

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from console.web.desk import desk_of
from console.web.forms import read_form, word
from console.web.rendering import keep, page
from console.web.replay import WHO
from console.web.sessions import COOKIE
from pipeline import audit

log = logging.getLogger(__name__)

_WRONG = "This is not CONSOLE_TOKEN."
_ENDED = "The session has ended, and nothing was changed: log in, and repeat it."


async def ask(request: Request) -> Response:
    """Show the form."""
    if not desk_of(request).sessions.need_token:
        return RedirectResponse("/", 303)
    error = _ENDED if "ended" in request.query_params else None
    return _form(request, 200, error, _local(request.query_params.get("next", "/")))


async def log_in(request: Request) -> Response:
    """Begin a session for who shows the token; it has no form token yet, so `guard` alone asks where it comes from.

    Wrong tokens are slowed down, the right one never: else anybody could keep everybody out.
    """
    desk = desk_of(request)
    if not desk.sessions.need_token:
        return RedirectResponse("/", 303)
    form = await request.form(max_files=0, max_fields=10)
    wanted = _local(word(form, "next"))
    if desk.sessions.is_token(word(form, "token")):
        await _record(request, "log in")
        response: Response = RedirectResponse(wanted, 303)
        keep(request, response, desk.sessions.begin())
        return response
    peer = request.client.host if request.client else ""
    if wait_s := desk.attempts.wait_s(peer):
        sentence = f"Too many wrong tokens from this address: try again in {wait_s} s."
        response = _form(request, 429, sentence, wanted)
        response.headers["retry-after"] = str(wait_s)
        return response
    desk.attempts.note_wrong(peer)
    log.warning("console: a wrong token was tried")
    return _form(request, 401, _WRONG, wanted)


async def _record(request: Request, what: str) -> None:
    """Note who came or went; without Redis nobody is kept from seeing that it is away."""
    try:
        await audit.record(desk_of(request).redis, what, who=WHO, count=1)
    except (RedisError, OSError) as error:
        log.warning("console: %s not audited error=%s", what, type(error).__name__)


async def log_out(request: Request) -> Response:
    """Have the browser forget its session."""
    await read_form(request, changes=False)
    await _record(request, "log out")
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE)
    return response


def _form(request: Request, status: int, error: str | None, wanted: str) -> Response:
    return page(
        request, "log_in.html", http_status=status, title="Log in", error=error, next=wanted
    )


def _local(path: str) -> str:
    """Return *path* when it is one of ours: nobody is sent elsewhere."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_ours and path.isprintable() else "/"


routes = [
    Route("/login", ask, methods=["GET"]),
    Route("/login", log_in, methods=["POST"]),
    Route("/logout", log_out, methods=["POST"]),
]

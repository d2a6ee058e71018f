"""Log in with CONSOLE_TOKEN, and log out."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from console.web.desk import desk_of
from console.web.forms import read_form, word
from console.web.rendering import keep, page
from console.web.sessions import COOKIE

log = logging.getLogger(__name__)

_WRONG = "This is not CONSOLE_TOKEN."
_ENDED = "The session has ended, and nothing was changed: log in, and repeat it."


async def ask(request: Request) -> Response:
    """Show the form."""
    if not desk_of(request).sessions.need_token:
        return RedirectResponse("/", 303)
    error = _ENDED if "ended" in request.query_params else None
    return _form(request, 200, error)


async def log_in(request: Request) -> Response:
    """Begin a session for who shows the token; it has no form token yet, so `guard` alone asks where it comes from."""
    desk = desk_of(request)
    if not desk.sessions.need_token:
        return RedirectResponse("/", 303)
    peer = request.client.host if request.client else ""
    if wait_s := desk.attempts.wait_s(peer):
        sentence = f"Too many wrong tokens from this address: try again in {wait_s} s."
        response = _form(request, 429, sentence)
        response.headers["retry-after"] = str(wait_s)
        return response
    form = await request.form(max_files=0, max_fields=10)
    if not desk.sessions.is_token(word(form, "token")):
        desk.attempts.note_wrong(peer)
        log.warning("console: a wrong token was tried")
        return _form(request, 401, _WRONG)
    response = RedirectResponse(_local(word(form, "next")), 303)
    keep(request, response, desk.sessions.begin())
    return response


async def log_out(request: Request) -> Response:
    """Have the browser forget its session."""
    await read_form(request, changes=False)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE)
    return response


def _form(request: Request, status: int, error: str | None) -> Response:
    wanted = _local(request.query_params.get("next", "/"))
    return page(
        request, "log_in.html", http_status=status, title="Log in", error=error, next=wanted
    )


def _local(path: str) -> str:
    """Return *path* when it is one of ours: nobody is sent elsewhere."""
    parts = urlsplit(path)
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_ours and not parts.netloc and path.isprintable() else "/"


routes = [
    Route("/login", ask, methods=["GET"]),
    Route("/login", log_in, methods=["POST"]),
    Route("/logout", log_out, methods=["POST"]),
]

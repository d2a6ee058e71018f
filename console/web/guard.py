"""The guard: what every request to the console passes before a page sees it.

- Without CONSOLE_TOKEN only this machine is let in: by its address, by a `Host` that names it, and by no proxy that
  says so. Else a page elsewhere could have its visitor's browser ask for ours under a name of its own (DNS
  rebinding). A proxy on this machine that says nothing of itself still opens the page to the world: never put one
  in front without CONSOLE_TOKEN.
- A form comes from a page of ours: browsers say so (`Sec-Fetch-Site`, else `Origin`); `forms` checks its token, too.
- Nothing but a log-in, what its page needs, and whether the process lives is shown without a session. Programs may
  show CONSOLE_TOKEN as bearer under /api and at /metrics.
- No body is larger than any form of ours or of another kind, and every answer says that nothing but our own files
  may be loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.web.attempts import Attempts
from console.web.sessions import COOKIE, Session, Sessions

#: the largest form names a few hundred dead letters
MOST_BODY_BYTES = 64 * 1024
_OPEN = ("/login", "/healthz", "/static/")
_FOR_PROGRAMS = ("/api", "/metrics")
_FORM = "application/x-www-form-urlencoded"
# what proxies tell of themselves, and of whom they ask for
_OF_PROXIES = (
    *("forwarded", "via", "x-real-ip"),
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
)
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Middleware that lets in who may come in; the session is then in the request's state."""

    def __init__(self, app: ASGIApp, sessions: Sessions, attempts: Attempts) -> None:
        self._app = app
        self._sessions = sessions
        self._attempts = attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, sending = Headers(scope=scope), _with_headers(scope, send)
        session = self._session(scope, headers)
        refusal = self._refusal(scope, headers, session)
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        # where nobody logs in the first look begins a session, whose cookie `rendering` sets
        scope.setdefault("state", {})["session"] = session or self._sessions.begin()
        scope["state"]["is_new"] = session is None
        await self._app(scope, receive, sending)

    def _session(self, scope: Scope, headers: Headers) -> Session | None:
        """Return the session of the request's cookie, or of its bearer token where programs may show one."""
        given = headers.get("authorization", "")
        if is_for_programs(scope["path"]) and given[:7].lower() == "bearer ":
            return self._sessions.begin() if self._sessions.is_token(given[7:].strip()) else None
        return self._sessions.read(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))

    def _refusal(self, scope: Scope, headers: Headers, session: Session | None) -> Response | None:
        if not self._sessions.need_token and not is_local(scope, headers):
            return _refused(
                403, "Without CONSOLE_TOKEN this page is shown on its own machine only."
            )
        if scope["method"] not in _SAFE:
            if not is_from_here(headers):
                return _refused(403, "This form does not come from the console's own page.")
            length = headers.get("content-length", "")
            if not length.isdigit():
                return _refused(411, "A form has to say how long it is.")
            if len(length) > 9 or int(length) > MOST_BODY_BYTES:
                return _refused(413, f"A form has {MOST_BODY_BYTES} bytes at most.")
            # a form with files names its own charset, and some take seconds to decode
            if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
                return _refused(415, f"A form comes as {_FORM}.")
        if session is None and self._sessions.need_token and not scope["path"].startswith(_OPEN):
            return self._unknown(scope, headers)
        return None

    def _unknown(self, scope: Scope, headers: Headers) -> Response:
        """Return how to refuse who has no session: by the log-in, or by a problem where programs ask."""
        if not is_for_programs(scope["path"]):
            return _to_login(scope, headers)
        if "authorization" in headers:
            peer = scope["client"][0] if scope.get("client") else ""
            if wait_s := self._attempts.wait_s(peer):
                again = {"retry-after": str(wait_s)}
                return problem(429, "Too many wrong tokens from this address.", again)
            self._attempts.note_wrong(peer)
        return problem(401, "Show CONSOLE_TOKEN as bearer.", {"www-authenticate": "Bearer"})


def is_local(scope: Scope, headers: Headers) -> bool:
    """Tell whether the request comes from this machine, and calls it by a name that only this machine has."""
    if any(name in headers for name in _OF_PROXIES):
        return False
    client = scope.get("client")  # none where a Unix socket is listened on
    host = _split("//" + headers.get("host", "")).hostname or ""
    return (client is None or _is_loopback(client[0])) and (
        host == "localhost" or _is_loopback(host)
    )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # brackets without an address
        return urlsplit("")


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def is_from_here(headers: Headers) -> bool:
    """Tell whether a browser says that the request comes from a page of ours; programs say nothing."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or _split(origin).netloc == headers.get("host")


def _to_login(scope: Scope, headers: Headers) -> Response:
    """Return the way to the log-in, and from there to the page that was asked for, or that a form stood on."""
    if scope["method"] in _SAFE:
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        return RedirectResponse(f"/login?next={quote(_url(path, query), safe='')}", 303)
    page = _split(headers.get("referer", ""))
    # a page that was itself the answer to a form has an address that cannot be asked for
    is_ours = page.netloc == headers.get("host") and page.path != scope["path"]
    wanted = _url(page.path, page.query) if is_ours else "/"
    return RedirectResponse(f"/login?ended=1&next={quote(wanted, safe='')}", 303)


def _url(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return what went wrong as programs read it (RFC 9457)."""
    told = {"title": HTTPStatus(status).phrase, "status": status, "detail": sentence}
    return JSONResponse(told, status, headers, "application/problem+json")


def is_for_programs(path: str) -> bool:
    """Tell whether what is at *path* is read by programs."""
    return path.startswith(_FOR_PROGRAMS)


def _refused(status: int, sentence: str) -> Response:
    return PlainTextResponse(f"{HTTPStatus(status).phrase}. {sentence}\n", status)


def _with_headers(scope: Scope, send: Send) -> Send:
    is_file = scope["path"].startswith("/static/")

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            if not is_file:  # pages tell of people, and live numbers of now
                headers["cache-control"] = "no-store"
        await send(message)

    return sending

"""Rendering: from what a page knows to HTML, with everything that a sender wrote escaped.

Numbers are grouped, and set in columns by the style sheet. Times are told in UTC in a `<time>` that a script tells in
the reader's zone. A text of somebody else's may be a megabyte, run from right to left or hold controls: it is cut,
and shown in a box of its own direction.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from console.output import safe
from console.web.desk import desk_of
from console.web.forms import NAME, TOKEN
from console.web.guard import is_for_programs, problem
from console.web.sessions import COOKIE, KEPT_S, Session
from pipeline.loopback import is_loopback
from pipeline.settings import Settings

#: as much of a text as anybody reads on a page
LONGEST = 4_000
#: stands where nothing is known
UNKNOWN = "\u2013"
_SAID = "relay_console_said"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{5,18}Z?", re.ASCII)
#: one in a sentence
_MOMENT = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", re.ASCII)
_PAGES = {
    "/": "Flow",
    "/deliveries": "Deliveries",
    "/dead": "Dead letters",
    "/visitors": "Visitors",
    "/senders": "Senders",
    "/destinations": "Destinations",
    "/settings": "Settings",
}


def number(value: float) -> str:
    """Return *value* with its thousands apart."""
    return f"{value:,}".replace(",", "\u202f")


def in_words(count: int, one: str, many: str = "") -> str:
    """Return how many there are of what is called *one*: `1 letter`, `2 letters`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def duration(seconds: float | None) -> str:
    """Return *seconds* as anybody says it: 0.3 s, 12 s, 5 min, 3 h, 2 d."""
    if seconds is None:
        return UNKNOWN
    for limit, unit, name in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if seconds < 10 else 0}f}\u202f{name}"
    return f"{seconds / 86_400:.0f}\u202fd"


def size(count: float) -> str:
    """Return *count* bytes in a unit that leaves few digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.{1 if unit != 'B' and count < 10 else 0}f}\u202f{unit}"
        count /= 1000
    raise AssertionError("unreachable")


def moment(iso: str | None) -> Markup:
    """Return the ISO-8601 UTC time *iso* as a `<time>`; a text that is none is not shown."""
    if not iso or not _TIME.fullmatch(iso):
        return escape(UNKNOWN)
    told = iso.removesuffix("Z")[:19].replace("T", " ") + " UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(iso, told, told)


def tick(iso: str, told: str) -> Markup:
    """Return the ISO-8601 UTC time *iso* as a short `<time>`: *told* is `clock` for the hour, or `day`."""
    whole = iso[:19].replace("T", " ") + " UTC"
    short = iso[5:10] if told == "day" else iso[11:16]
    return Markup('<time datetime="{}" title="{}" data-short="{}">{} UTC</time>').format(
        iso, whole, told, short
    )


def foreign(text: object, longest: int = LONGEST) -> Markup:
    """Return somebody else's *text* in a box of its own direction, cut, without controls."""
    whole = str(text)
    cut = safe(whole[:longest]) + ("…" if len(whole) > longest else "")
    return Markup("<bdi>{}</bdi>").format(escape(cut))


def timed(text: object, longest: int = LONGEST) -> Markup:
    """Return `foreign` *text* with each ISO-8601 UTC time in it as a `<time>`, told in the reader's zone."""
    return Markup(_MOMENT.sub(lambda found: moment(found[0]), foreign(text, longest)))  # noqa: S704 - escaped


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("console.web"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "counted": in_words,
        "duration": duration,
        "size": size,
        "moment": moment,
        "tick": tick,
        "foreign": foreign,
        "timed": timed,
    }
    return made


_TEMPLATES = _environment()


def page(request: Request, template: str, *, http_status: int = 200, **facts: Any) -> Response:
    """Return the page that *template* makes of *facts*."""
    desk, session = desk_of(request), request.state.session
    said = request.cookies.get(_SAID)
    is_in = not (request.state.is_new and desk.sessions.need_token)
    text = _TEMPLATES.get_template(template).render(
        **facts,
        pages=_PAGES,
        path=request.url.path,
        said=desk.sessions.said(said) if said else None,
        token_field=_token_field(desk.sessions.form_token(session)) if is_in else "",
        is_read_only=desk.settings.console_read_only,
        needs_token=desk.sessions.need_token,
        has_stand_ins=_has_stand_ins(desk.settings),
        name_field=lambda name: _name_field(desk.sessions.seal(name)),
    )
    response = HTMLResponse(text, http_status)
    if said:
        response.delete_cookie(_SAID)
    if request.state.is_new and is_in:
        keep(request, response, session)
    return response


def _has_stand_ins(settings: Settings) -> bool:
    """Tell whether both vendors are on this machine, as in a trial."""
    urls = (settings.audiencelab_base_url, settings.audiencepoint_base_url)
    return all(is_loopback(url) for url in urls)


def _token_field(token: str) -> Markup:
    return Markup('<input type="hidden" name="{}" value="{}">').format(TOKEN, token)


def _name_field(sealed: str) -> Markup:
    return Markup('<input type="hidden" name="{}" value="{}">').format(NAME, sealed)


def keep(request: Request, response: Response, session: Session) -> None:
    """Have the browser keep *session*."""
    value = desk_of(request).sessions.cookie(session)
    is_secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, value, KEPT_S, httponly=True, samesite="lax", secure=is_secure)


def done(request: Request, where: str, sentence: str) -> Response:
    """Return the way back to *where* after a form was carried out; the page there tells *sentence* once."""
    response = RedirectResponse(where, 303)
    value = desk_of(request).sessions.say(sentence)
    response.set_cookie(_SAID, value, 60, httponly=True, samesite="lax")
    return response


def failure(request: Request, status: int, sentence: str) -> Response:
    """Return a page that says what went wrong and what to do; a problem where programs read."""
    if is_for_programs(request.url.path):
        return problem(status, sentence)
    return page(
        request,
        "failure.html",
        http_status=status,
        title=HTTPStatus(status).phrase,
        sentence=sentence,
    )

"""Visitors: who is looked for by an address, a hash or an id, what is known of them, and how they are forgotten.

No name is ever in an address of ours but the visitor's id: whoever looks for somebody posts it. Addresses and
numbers are veiled until a form asks for them, which the audit notes without a name. An id may be an address, so forms
carry it sealed.
"""

from __future__ import annotations

import re
from itertools import islice

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from console import person
from console.person import Known
from console.visitors import NO_UNSUBSCRIBE, PARTLY
from console.web.desk import desk_of
from console.web.errands import Busy
from console.web.forgetting import to_look_at
from console.web.forms import NAME, read_form, word
from console.web.rendering import done, page
from console.web.replay import WHO
from console.web.veil import Veil, clear, is_place, mask_field, mask_number, veil
from pipeline import audit, forgetting
from pipeline.addresses import digest

#: of addresses, fields and the like, of which a sender may tell any number
MOST = 200
_LONGEST_NAME = 400
_LONGEST_PLACE = 200
_ERRAND = "/visitors/forgetting"
# an id may be any text: one that is none of these, or a path of ours, has no address of its own
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.-]{0,127}")
_PATHS = ("find", "reveal", "forget", "forgetting", "allow")


# looking ------------------------------------------------------------------------------------------------


async def ask(request: Request) -> Response:
    """Show the form."""
    return page(request, "visitors.html", title="Visitors", who="", is_forgotten=False)


async def find(request: Request) -> Response:
    """Lead to the page of whoever the form means."""
    who = await _who(request, changes=False)
    known, is_forgotten = await person.look(desk_of(request).redis, who, MOST)
    if known is None:
        return _nobody(request, who, is_forgotten=is_forgotten)
    if where := _address_of(known):
        return RedirectResponse(where, 303)
    return _show(request, known, _veil_of(known))


async def show(request: Request) -> Response:
    """Show what is known of one visitor, veiled."""
    visitor_id = request.path_params["id"]
    if not _ID.fullmatch(visitor_id):
        raise HTTPException(404, "This is no visitor's id: look for people by the form.")
    known, is_forgotten = await person.look(desk_of(request).redis, visitor_id, MOST)
    if known is None:
        return _nobody(request, visitor_id, is_forgotten=is_forgotten)
    if (
        known.visitor.id != visitor_id
    ):  # a page has its visitor's own id, not the hash of an address
        return RedirectResponse(_address_of(known) or "/visitors", 303)
    return _show(request, known, _veil_of(known))


async def reveal(request: Request) -> Response:
    """Show one visitor in clear, once that is written down."""
    who = await _who(request, changes=False)
    desk = desk_of(request)
    known, is_forgotten = await person.look(desk.redis, who, MOST)
    if known is None:
        return _nobody(request, who, is_forgotten=is_forgotten)
    await audit.record(desk.redis, "reveal", who=WHO, count=1)
    return _show(request, known, clear)


async def _who(request: Request, *, changes: bool = True) -> str:
    """Return whom a form means: who was typed into it, or whose page it stood on."""
    form = await read_form(request, changes=changes)
    if sealed := word(form, NAME):
        if (name := desk_of(request).sessions.unseal(sealed)) is None:
            raise HTTPException(400, "This page is of another session: look for them again.")
        return name
    who = word(form, "who")
    if not who or len(who) > _LONGEST_NAME:
        raise HTTPException(400, "Who? Give an address, its SHA-256, or a UUID.")
    return who


def _address_of(known: Known) -> str | None:
    """Return the address of the visitor's page; None where the id cannot stand in one."""
    name = known.visitor.id
    return f"/visitors/{name}" if _ID.fullmatch(name) and name not in _PATHS else None


def _veil_of(known: Known) -> Veil:
    visitor = known.visitor
    fields = islice(visitor.fields.items(), MOST)
    places = (text for name, value in fields if is_place(name) for text in _texts(value)[:MOST])
    # a longer one is masked where it stands, and nobody repeats it
    short = (text for text in places if len(text) <= _LONGEST_PLACE)
    return veil(visitor.emails, visitor.phones, islice(short, MOST))


def _texts(value: str | list[str]) -> list[str]:
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


def _nobody(request: Request, who: str, *, is_forgotten: bool) -> Response:
    return page(
        request,
        "visitors.html",
        http_status=404,
        title="Nobody is known by that",
        who=who,
        is_forgotten=is_forgotten,
    )


def _show(request: Request, known: Known, veiled: Veil) -> Response:
    visitor = known.visitor
    return page(
        request,
        "visitor.html",
        title="Visitor",
        visitor=visitor,
        veiled=veiled,
        is_clear=veiled is clear,
        enrichment=person.enrichment(known),
        numbers=[each if veiled is clear else veiled(mask_number(each)) for each in visitor.phones],
        tombstones=known.tombstones[:MOST],
        addresses=list(person.addresses(known))[:MOST],
        count=known.address_count,
        scores=list(person.scores(known))[:MOST],
        fields=_fields(known, veiled),
        field_count=len(visitor.fields),
        most=MOST,
    )


def _fields(known: Known, veiled: Veil) -> list[tuple[str, str]]:
    """Return the fields of AudienceLab as a page shows them; those that somebody is reached by are masked whole."""
    rows = []
    for name, value in list(known.visitor.fields.items())[:MOST]:
        texts = _texts(value)[:MOST]
        if veiled is not clear:
            texts = [mask_field(name, text) for text in texts]
        rows.append((veiled(name), veiled(", ".join(texts))))
    return rows


# forgetting ---------------------------------------------------------------------------------------------


async def plan(request: Request) -> Response:
    """Tell what forgetting does, and ask."""
    who = await _who(request)
    desk = desk_of(request)
    known = await forgetting.find(desk.redis, who)
    if known is None:
        _check_spelling(who)
    return page(
        request,
        "forget.html",
        title="Forget this person?",
        who=who,
        is_known=known is not None,
        # by an id only the visitor who has it is meant, by an address everybody who is known by it
        is_by_id=known is not None and digest(who) not in known.digests,
        count=await to_look_at(desk.redis),
        no_unsubscribe=NO_UNSUBSCRIBE,
        partly=PARTLY,
    )


def _check_spelling(who: str) -> None:
    """Raise `HTTPException` for what can be nobody: a slip would be told as done."""
    if not forgetting.is_spelt_right(who):
        raise HTTPException(400, f"{forgetting.NOBODY}: nothing was forgotten.")


async def forget(request: Request) -> Response:
    """Begin to forget."""
    who = await _who(request)
    desk = desk_of(request)
    if await forgetting.find(desk.redis, who) is None:
        _check_spelling(who)
    try:
        await desk.forgettings.forget(who)
    except Busy as busy:
        return done(request, _ERRAND, str(busy))
    return RedirectResponse(_ERRAND, 303)


async def show_errand(request: Request) -> Response:
    """Show how far the last one has come."""
    return page(
        request,
        "forgetting.html",
        title="Forgetting",
        errand=desk_of(request).forgettings.last,
        no_unsubscribe=NO_UNSUBSCRIBE,
    )


async def allow(request: Request) -> Response:
    """Let somebody be known again by one name."""
    who = await _who(request)
    redis = desk_of(request).redis
    await audit.record(redis, "allow", who=WHO, count=1)
    lifted = await forgetting.allow(redis, who)
    sentence = f"Allowed again. {PARTLY}" if lifted else "Nobody was forgotten by that name."
    return done(request, "/visitors", sentence)


routes = [
    Route("/visitors", ask, methods=["GET"]),
    Route("/visitors/find", find, methods=["POST"]),
    Route("/visitors/reveal", reveal, methods=["POST"]),
    Route("/visitors/forget/plan", plan, methods=["POST"]),
    Route("/visitors/forget", forget, methods=["POST"]),
    Route(_ERRAND, show_errand, methods=["GET"]),
    Route("/visitors/allow", allow, methods=["POST"]),
    # what answers a form has no page of its own: who comes there by a link or a log-in finds where to look
    *(Route(f"/visitors/{path}", ask, methods=["GET"]) for path in (*_PATHS, "forget/plan")),
    Route("/visitors/{id}", show, methods=["GET"]),
]

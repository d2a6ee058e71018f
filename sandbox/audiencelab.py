"""AudienceLab's stand-in, over a small account of invented people, in two dialects.

"Observed" is what the vendor's public pages, live answers and clients show; "documented" is an
older reference that most live answers contradict. The stand-in speaks one of them at a time
(`settings`): the other's paths are not there, its keys are unknown. It refuses what the vendor
refuses, and its rows have the live service's UPPER_CASE columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox import audiencelab_audiences as audiences
from sandbox import audiencelab_enrichment as enrichment
from sandbox import audiencelab_pixels as pixels
from sandbox import audiencelab_segments as segments
from sandbox.audiencelab_rules import error, reshaped
from sandbox.desk import Answer, Asked, Desk, Desks, Handle, Refused, Transported
from sandbox.memory import Memory
from sandbox.settings import Settings


@dataclass(frozen=True, slots=True)
class Offer:
    """One call. None is a dialect that does not have it; *name* is what faults and counts say."""

    name: str
    method: str
    path: str
    observed: Handle | None = None
    documented: Handle | None = None
    is_open: bool = False


def create(desks: Desks) -> Transported:
    """Return the app; mount it under `/audiencelab`."""
    memory, settings = desks.memory, desks.settings

    def admit(request: Request) -> None:
        if not _is_right(request, desks):
            raise Refused(reshaped(error(401, "UNAUTHORIZED", "Invalid API key"), settings))

    def route(offer: Offer) -> Route:
        check = _let_in if offer.is_open else admit

        def desk(handle: Handle | None) -> Desk | None:
            if handle is None:
                return None
            return desks.open(offer.name, check, _shaped(handle, settings))

        offered = {"observed": desk(offer.observed), "documented": desk(offer.documented)}

        async def serve(request: Request) -> Response:
            spoken = offered[settings.dialect]
            return await (spoken.serve(request) if spoken else unknown_path(request))

        return Route(offer.path, serve, methods=[offer.method])

    async def unknown_path(request: Request, failure: Exception | None = None) -> Response:
        return reshaped(error(404, "NOT_FOUND", "Not found"), settings).response()

    return Transported(
        routes=[route(offer) for offer in _offers(memory, settings)],
        exception_handlers={404: unknown_path, 405: unknown_path},
    )


def _offers(memory: Memory, settings: Settings) -> list[Offer]:
    """Return every call; where two paths fit, the first does."""
    return [
        *_pixel_offers(memory, settings),
        *_audience_offers(memory, settings),
        _both("segment", "GET", "/segments/{id}", segments.segment(memory.account, settings)),
        *_enrichment_offers(memory, settings),
    ]


def _pixel_offers(memory: Memory, settings: Settings) -> list[Offer]:
    account = memory.account
    events, one = pixels.v3_events(account, settings), pixels.one(account)
    made = pixels.created(account), pixels.created_as_documented(account)
    return [
        _both("pixels", "GET", "/pixels", pixels.listed(account, settings)),
        Offer("create-pixel", "POST", "/pixels", *made),
        Offer("pixel", "GET", "/pixels/{id}", events, one),
        Offer("pixel-v4", "GET", "/pixels/{id}/v4", pixels.v4_events(account, settings)),
        _both("delete-pixel", "DELETE", "/pixels/{id}", pixels.deleted(account, settings)),
    ]


def _audience_offers(memory: Memory, settings: Settings) -> list[Offer]:
    account = memory.account
    made = audiences.created(account, settings), audiences.created_as_documented(account)
    attributes = audiences.attributes, audiences.documented_attributes
    people, one = audiences.people(account, settings), audiences.one(account)
    path = "/audiences"
    return [
        _both("audiences", "GET", path, audiences.listed(account, settings)),
        Offer("create-audience", "POST", path, *made),
        Offer("preview", "POST", f"{path}/preview", audiences.preview(account)),
        Offer("custom-audience", "POST", f"{path}/custom", audiences.custom),
        Offer("attributes", "GET", f"{path}/attributes", *attributes),
        Offer("attributes", "GET", f"{path}/attributes/{{kind}}", audiences.attributes_of_kind),
        Offer("audience", "GET", f"{path}/{{id}}", people, one),
        _both("delete-audience", "DELETE", f"{path}/{{id}}", audiences.deleted(account, settings)),
    ]


def _enrichment_offers(memory: Memory, settings: Settings) -> list[Offer]:
    account = memory.account
    listed, job = enrichment.jobs_listed(account, settings), enrichment.job(account, settings)
    made, made_otherwise = (
        enrichment.job_created(account),
        enrichment.job_created_as_documented(account),
    )
    file = enrichment.result_file(account, settings)
    jobs = "/enrichment/jobs"
    return [
        Offer("enrich", "POST", "/enrich", enrichment.one(memory)),
        Offer("enrich", "POST", "/enrich/contact", None, enrichment.contact(memory)),
        Offer("create-enrichment", "POST", "/enrichments", made),
        Offer("create-enrichment", "POST", jobs, None, made_otherwise),
        Offer("enrichments", "GET", "/enrichments", listed),
        Offer("enrichments", "GET", jobs, None, listed),
        Offer("enrichment", "GET", "/enrichments/{id}", job),
        Offer("enrichment", "GET", f"{jobs}/{{id}}", None, job),
        Offer("enrichment-file", "GET", "/results/{file}", file, file, is_open=True),
    ]


def _both(name: str, method: str, path: str, handle: Handle) -> Offer:
    return Offer(name, method, path, handle, handle)


def _shaped(handle: Handle, settings: Settings) -> Handle:
    """Return *handle* with its refusals in the shape that is set."""

    def shaped(asked: Asked) -> Answer:
        try:
            return handle(asked)
        except Refused as refused:
            raise Refused(reshaped(refused.answer, settings)) from refused

    return shaped


def _let_in(request: Request) -> None:
    """Ask for no key."""


def _is_right(request: Request, desks: Desks) -> bool:
    """Take the key from either header: one is documented, the other was in use before."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    return desks.is_key(request.headers.get("x-api-key", bearer))

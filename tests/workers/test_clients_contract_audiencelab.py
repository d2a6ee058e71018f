"""Every call of AudienceLab's client against the stand-in, in both of the stand-in's dialects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import httpx
import pytest

from sandbox import audiencelab as stand_in
from sandbox.desk import Desks
from sandbox.people import PEOPLE
from sandbox.settings import Settings
from workers.clients.audiencelab import (
    KINDS,
    VENDOR,
    AudienceLab,
    Dialects,
    EnrichmentJob,
    headers,
)
from workers.clients.errors import Misconfigured, NotFound, Unavailable
from workers.clients.http import VendorHttp

pytestmark = pytest.mark.anyio

T = TypeVar("T")
DIALECTS = ("observed", "documented")


@asynccontextmanager
async def client_of(settings: Settings, mode: str = "auto") -> AsyncIterator[AudienceLab]:
    """Give a client of a new stand-in with *settings*."""
    app = stand_in.create(Desks(key="sk_key", settings=settings))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as over:
        http = VendorHttp(VENDOR, "http://127.0.0.1", headers("sk_key"), over)
        yield AudienceLab(http, dialects=Dialects(mode))


def modes(dialect: str) -> tuple[str, str]:
    """Return the modes that a client of *dialect* works in."""
    return ("auto", dialect)


EMAIL = PEOPLE[0]["PERSONAL_EMAILS"].split(",")[0]
SEGMENT = "segment-3"


async def first(things: AsyncIterator[T]) -> T:
    """Return the first of *things*."""
    return await anext(things)


async def job_of(lab: AudienceLab) -> EnrichmentJob:
    """Have a job made, and return it when it is over."""
    made = await lab.create_enrichment_job("Readers", [{"email": EMAIL}], fields=["UUID"])
    return await lab.finished_job(made, every_s=0)


async def pixel_of(lab: AudienceLab) -> str:
    """Return the id of a pixel of the older generation."""
    return (await first(lab.pixels())).id


async def audience_of(lab: AudienceLab) -> str:
    """Return the id of an audience."""
    return (await first(lab.audiences())).id


Call = Callable[[AudienceLab], Awaitable[object]]

#: every call by its name, and whether the documented form has it
CALLS: dict[str, tuple[Call, bool]] = {
    "list_pixels": (lambda lab: lab.list_pixels(), True),
    "pixels": (lambda lab: first(lab.pixels()), True),
    "pixel": (lambda lab: _with(lab.pixel, pixel_of(lab)), True),
    "create_pixel": (lambda lab: lab.create_pixel("Inn", "https://inn.example.com"), True),
    "delete_pixel": (lambda lab: _with(lab.delete_pixel, pixel_of(lab)), True),
    "pixel_events": (
        lambda lab: _with(partial(lab.pixel_events, version="v3"), pixel_of(lab)),
        False,
    ),
    "list_audiences": (lambda lab: lab.list_audiences(), True),
    "audiences": (lambda lab: first(lab.audiences()), True),
    "audience": (lambda lab: _with(lab.audience, audience_of(lab)), True),
    "audience_records": (lambda lab: _with(lab.audience_records, audience_of(lab)), False),
    "create_audience": (lambda lab: lab.create_audience("Readers", {"city": ["Bergen"]}), True),
    "create_custom_audience": (lambda lab: lab.create_custom_audience("sea", "who sail"), False),
    "delete_audience": (lambda lab: _with(lab.delete_audience, audience_of(lab)), True),
    "attributes": (lambda lab: lab.attributes(), True),
    "attributes of a kind": (lambda lab: lab.attributes("sic"), False),
    "preview": (lambda lab: lab.preview({"city": ["Bergen"]}), False),
    "segment_page": (lambda lab: lab.segment_page(SEGMENT), True),
    "segment_rows": (lambda lab: first(lab.segment_rows(SEGMENT)), True),
    "enrich": (lambda lab: lab.enrich(email=EMAIL), True),
    "enrich by a hash": (lambda lab: lab.enrich(hem_sha256="0" * 64), False),
    "enrich_by": (lambda lab: lab.enrich_by({"email": EMAIL}, fields=["UUID"]), True),
    "enrich_by all of some": (
        lambda lab: lab.enrich_by({"first_name": "Mara", "last_name": "Quill"}, is_or_match=False),
        False,
    ),
    "create_enrichment_job": (lambda lab: lab.create_enrichment_job("R", [{"email": EMAIL}]), True),
    "list_enrichment_jobs": (lambda lab: lab.list_enrichment_jobs(), True),
    "enrichment_job": (lambda lab: _job_again(lab), True),
    "finished_job": (job_of, True),
    "enrichment_rows": (lambda lab: _first_row(lab), True),
}


async def _with(call: Callable[[str], Awaitable[object]], own_id: Awaitable[str]) -> object:
    return await call(await own_id)


async def _job_again(lab: AudienceLab) -> object:
    return await lab.enrichment_job((await job_of(lab)).id)


async def _first_row(lab: AudienceLab) -> object:
    return await first(lab.enrichment_rows(await job_of(lab)))


def test_every_public_call_is_tried_here() -> None:
    """A call that is added to the client must be added to this file."""
    public = {name for name, each in vars(AudienceLab).items() if callable(each) and name[0] != "_"}
    assert public - {"can_enrich_by"} == {name.partition(" ")[0] for name in CALLS}


@pytest.mark.parametrize("mode", ["auto", "fixed"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("call", CALLS)
async def test_every_call_is_understood_or_said_to_be_lacking(
    call: str, dialect: str, mode: str
) -> None:
    """Each call works in each dialect that has it; elsewhere it is no wrong id, path or outage."""
    do, is_documented = CALLS[call]
    settings = Settings(dialect=dialect, polls=1)  # type: ignore[arg-type]
    async with client_of(settings, dialect if mode == "fixed" else "auto") as lab:
        if dialect == "observed" or is_documented:
            await do(lab)
            return
        with pytest.raises(Misconfigured, match="speaks the documented form only"):
            await do(lab)


async def test_a_pixel_that_is_listed_is_not_unknown() -> None:
    """Where a pixel has no events of V4, its id is not what is wrong."""
    async with client_of(Settings(dialect="documented")) as lab:
        own_id = await pixel_of(lab)
        with pytest.raises(Misconfigured, match="lists this pixel"):
            await lab.pixel_events(own_id)
        with pytest.raises(NotFound):
            await lab.pixel_events("nobody")


@pytest.mark.parametrize("mode", ["auto", "documented"])
async def test_a_job_gives_the_columns_that_are_wanted_back(mode: str) -> None:
    """Without fields all of them, in the documented form, too."""
    async with client_of(Settings(dialect="documented"), mode) as lab:
        made = await lab.create_enrichment_job("Readers", [{"email": EMAIL}], ["EMAIL"])
        job = await lab.finished_job(made, every_s=0)
        assert (await first(lab.enrichment_rows(job)))["FIRST_NAME"] == PEOPLE[0]["FIRST_NAME"]
        assert await first(lab.enrichment_rows(await job_of(lab))) == {"UUID": PEOPLE[0]["UUID"]}


async def test_what_can_be_asked_by_is_known_once_the_form_is() -> None:
    """Until something has worked all may be tried; then the documented form has addresses only."""
    async with client_of(Settings(dialect="documented")) as lab:
        assert lab.can_enrich_by("hem_sha256")
        await lab.enrich(email=EMAIL)
        assert not lab.can_enrich_by("hem_sha256")
        assert lab.can_enrich_by("email")
        assert lab.jobs_have_names
        await lab.list_enrichment_jobs()
        assert not lab.jobs_have_names
    async with client_of(Settings(dialect="documented"), "documented") as lab:
        assert not lab.can_enrich_by("phone")
    async with client_of(Settings()) as lab:
        await lab.enrich(email=EMAIL)
        assert lab.can_enrich_by("hem_sha256")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_pixels(dialect: str) -> None:
    """Listed, found, made, deleted, and then unknown."""
    for mode in modes(dialect):
        async with client_of(Settings(dialect=dialect), mode) as lab:  # type: ignore[arg-type]
            listed = [pixel async for pixel in lab.pixels(page_size=1)]
            assert [pixel.website_name for pixel in listed] == ["Shop", "Blog"]
            assert (await lab.pixel(listed[0].id)).provider_id == listed[0].provider_id
            made = await lab.create_pixel("Inn", "https://inn.example.com")
            assert made.install_url
            names = {pixel.website_name: pixel.id async for pixel in lab.pixels()}
            await lab.delete_pixel(names["Inn"])
            with pytest.raises(NotFound):
                await lab.pixel(names["Inn"])
            with pytest.raises(NotFound):
                await lab.delete_pixel(names["Inn"])


async def test_pixel_events() -> None:
    """Both generations give pages of events; there is no such call in the documented form."""
    async with client_of(Settings()) as lab:
        shop, blog = [pixel.id async for pixel in lab.pixels()]
        assert len((await lab.pixel_events(shop, version="v3")).items) == 100
        assert (await lab.pixel_events(blog)).total == 0
        with pytest.raises(NotFound):
            await lab.pixel_events("nobody")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_audiences(dialect: str) -> None:
    """Listed, found, made from filters, deleted, and then unknown."""
    for mode in modes(dialect):
        async with client_of(Settings(dialect=dialect), mode) as lab:  # type: ignore[arg-type]
            listed = [audience async for audience in lab.audiences()]
            assert {audience.name for audience in listed} == {"Buyers of lamps", "Nobody yet"}
            assert (await lab.audience(listed[0].id)).name == listed[0].name
            made = await lab.create_audience("Readers", {"city": ["Bergen"]})
            assert (await lab.audience(made)).name == "Readers"
            await lab.delete_audience(made)
            with pytest.raises(NotFound):
                await lab.audience(made)


async def test_people_of_audiences() -> None:
    """Pages of people, an empty audience, one that nobody knows, and a sample (observed)."""
    async with client_of(Settings()) as lab:
        ids = {audience.name: audience.id async for audience in lab.audiences()}
        page = await lab.audience_records(ids["Buyers of lamps"])
        assert (page.total, len(page.items)) == (120, 100)
        assert (await lab.audience_records(ids["Nobody yet"])).items == []
        with pytest.raises(NotFound):
            await lab.audience_records("nobody")
        assert (await lab.preview({"city": ["Bergen"]}, limit=3)).job_id
        assert await lab.create_custom_audience("sailing", "who sail") == "processing"
    async with client_of(Settings(dialect="documented")) as lab:
        with pytest.raises(Misconfigured, match="not with its people"):
            await lab.audience_records(ids["Buyers of lamps"])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_attributes(dialect: str) -> None:
    """What can be filtered by is told, by kind where there are kinds."""
    async with client_of(Settings(dialect=dialect)) as lab:  # type: ignore[arg-type]
        found = await lab.attributes()
    assert found
    if dialect == "observed":
        assert {each.kind for each in found} == set(KINDS)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_segments(dialect: str) -> None:
    """All pages are read; an empty segment has no rows, an unknown one is not found."""
    async with client_of(Settings(dialect=dialect)) as lab:  # type: ignore[arg-type]
        assert len([row async for row in lab.segment_rows("segment-250")]) == 250
        assert [row async for row in lab.segment_rows("segment-0")] == []
        with pytest.raises(NotFound):
            await lab.segment_page("nobody")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_segment_that_shrinks_is_read_whole(dialect: str) -> None:
    """Rows that leave at the front skip none of those that stay."""
    settings = Settings(dialect=dialect, drift=-30, drift_times=2)  # type: ignore[arg-type]
    async with client_of(settings) as lab:
        found = {str(row) async for row in lab.segment_rows("segment-500")}
        stayed = {str(row) async for row in lab.segment_rows("segment-500")}
    assert stayed <= found
    assert len(stayed) == 440


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_service_that_ignores_the_page_is_an_error(dialect: str) -> None:
    """No walk goes round in circles."""
    settings = Settings(dialect=dialect, pages="stuck")  # type: ignore[arg-type]
    async with client_of(settings) as lab:
        rows = lab.segment_rows("segment-250")
        with pytest.raises(Unavailable, match="ignores the number of the page"):
            _ = [row async for row in rows]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_enrichment(dialect: str) -> None:
    """One person at once, many by a job and its file; nobody is an answer, not an error."""
    email = PEOPLE[0]["PERSONAL_EMAILS"].split(",")[0]
    for mode in modes(dialect):
        async with client_of(Settings(dialect=dialect), mode) as lab:  # type: ignore[arg-type]
            assert (await lab.enrich(email=email))[0]["UUID"] == PEOPLE[0]["UUID"]
            assert await lab.enrich(email="nobody@example.com") == []
            made = await lab.create_enrichment_job("Readers", [{"email": email}])
            assert made in [job.id for job in (await lab.list_enrichment_jobs()).items]
            job = await lab.finished_job(made, every_s=0)
            assert job.status == "COMPLETED"
            rows = [row async for row in lab.enrichment_rows(job)]
            assert [row["UUID"] for row in rows] == [PEOPLE[0]["UUID"]]
            with pytest.raises(NotFound):
                await lab.enrichment_job("nobody")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_job_that_never_ends(dialect: str) -> None:
    """Waiting ends in words."""
    settings = Settings(dialect=dialect, job_end="never")  # type: ignore[arg-type]
    async with client_of(settings) as lab:
        made = await lab.create_enrichment_job("Readers", [{"email": "a@example.com"}])
        with pytest.raises(Unavailable, match=r"PROCESSING|IN_QUEUE"):
            await lab.finished_job(made, deadline_s=0.01, every_s=0.002)


@pytest.mark.parametrize("shape", ["object", "text", "message"])
async def test_errors_in_every_shape(shape: str) -> None:
    """An unknown form is known in each shape of error, and so is a wrong id."""
    settings = Settings(dialect="documented", error_shape=shape)  # type: ignore[arg-type]
    async with client_of(settings) as lab:
        assert (await lab.create_pixel("Inn", "https://inn.example.com")).install_url
        with pytest.raises(NotFound):
            await lab.segment_page("nobody")

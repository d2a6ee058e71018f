"""Every call of AudienceLab's client against the stand-in, in both of the stand-in's dialects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from sandbox import audiencelab as stand_in
from sandbox.faults import Faults
from sandbox.memory import Memory
from sandbox.people import PEOPLE
from sandbox.settings import Settings
from workers.clients.audiencelab import KINDS, VENDOR, AudienceLab, Dialects, headers
from workers.clients.errors import Misconfigured, NotFound, Unavailable
from workers.clients.http import VendorHttp

pytestmark = pytest.mark.anyio

DIALECTS = ("observed", "documented")


@asynccontextmanager
async def client_of(settings: Settings, mode: str = "auto") -> AsyncIterator[AudienceLab]:
    """Give a client of a new stand-in with *settings*."""
    app = stand_in.create(Memory(), Faults(), "sk_key", settings=settings)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as over:
        http = VendorHttp(VENDOR, "http://127.0.0.1", headers("sk_key"), over)
        yield AudienceLab(http, dialects=Dialects(mode))


def modes(dialect: str) -> tuple[str, str]:
    """Return the modes that a client of *dialect* works in."""
    return ("auto", dialect)


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

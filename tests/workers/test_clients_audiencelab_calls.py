"""AudienceLab's calls against recorded answers, in the form of its live service and of its reference.

A service knows the exchanges of one dialect; to anything else it says 400 "Unknown Field" or 404, as
the real one does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from redis.asyncio import Redis

from pipeline.settings import load_settings
from tests.recorded import NOT_FOUND, Service, serving
from workers.app import _opened
from workers.clients.audiencelab import (
    KINDS,
    VENDOR,
    AudienceLab,
    Dialects,
    Page,
    audiences,
    enrichment,
    headers,
    pixels,
)
from workers.clients.errors import (
    CallFailed,
    Misconfigured,
    NotFound,
    QuotaExceeded,
    Rejected,
    Unavailable,
    UnknownField,
)
from workers.clients.http import VendorHttp
from workers.clients.messages import Answer
from workers.timing import Timing

pytestmark = pytest.mark.anyio

PIXEL = "96e62502-f16d-43fa-acf7-22ff6e7f686d"
AUDIENCE = "5f0c1a52-7a0e-4b5d-9d52-1f7e3f1f0a01"
SEGMENT = "2b601488-43e0-4220-b3cd-6b5819e5b0ed"
JOB = "ca80f27b-9ae8-4351-99ac-51d5b5ebe423"
FILTERS = {"city": ["Bergen"], "businessProfile": {"jobTitle": ["Editor"]}, "age": {"minAge": 30}}


@asynccontextmanager
async def client_of(
    service: Service, dialects: Dialects | None = None
) -> AsyncIterator[AudienceLab]:
    """Give a client of *service*."""

    app = service.app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as over:
        http = VendorHttp(VENDOR, "http://vendor.example", headers("sk_key"), over)
        yield AudienceLab(http, dialects=dialects)


Call = Callable[[AudienceLab], Awaitable[Any]]

# Call by its name: what is called, and what is told of the answer.
CALLS: dict[str, tuple[Call, Callable[[Any], object], object]] = {
    "list_pixels": (
        lambda lab: lab.list_pixels(),
        lambda page: [(p.id, p.provider_id, p.website_name, p.last_sync) for p in page.items],
        [
            (
                PIXEL,
                "f36d7d73-3ac5-4a41-a024-39e8fb5df7e7",
                "test.example.com",
                "2025-12-13T22:05:02+00:00",
            )
        ],
    ),
    "pixel": (lambda lab: lab.pixel(PIXEL), lambda pixel: pixel.id, PIXEL),
    "create_pixel": (
        lambda lab: lab.create_pixel(
            "Test", "https://test.example.com/shop", "https://hooks.example.com/pixel"
        ),
        lambda pixel: (pixel.id, pixel.provider_id),
        (PIXEL, "f36d7d73-3ac5-4a41-a024-39e8fb5df7e7"),
    ),
    "delete_pixel": (lambda lab: lab.delete_pixel(PIXEL), lambda done: done, None),
    "list_audiences": (
        lambda lab: lab.list_audiences(),
        lambda page: [(a.id, a.refresh_interval, a.scheduled_refresh) for a in page.items],
        [(AUDIENCE, 30, True)],
    ),
    "audience": (lambda lab: lab.audience(AUDIENCE), lambda a: a.name, "Readers in Bergen"),
    "create_audience": (
        lambda lab: lab.create_audience("Readers", FILTERS),
        lambda new_id: new_id,
        AUDIENCE,
    ),
    "delete_audience": (lambda lab: lab.delete_audience(AUDIENCE), lambda done: done, None),
    "segment_page": (
        lambda lab: lab.segment_page(SEGMENT),
        lambda page: (page.total, [row["FIRST_NAME"] for row in page.items]),
        (1, ["Wil"]),
    ),
    "enrich": (
        lambda lab: lab.enrich_by({"email": "wil@example.com"}, fields=["EMAIL", "FIRST_NAME"]),
        lambda rows: rows,
        [{"EMAIL": "wil@example.com", "FIRST_NAME": "Wil"}],
    ),
    "create_enrichment_job": (
        lambda lab: lab.create_enrichment_job(
            "Readers", [{"Email": "wil@example.com"}], ["email"], fields=["job_title"]
        ),
        lambda new_id: new_id,
        "399e88c3-3263-4d9a-826c-437ef57f7b6c",
    ),
    "list_enrichment_jobs": (
        lambda lab: lab.list_enrichment_jobs(),
        lambda page: [(job.status, job.total) for job in page.items],
        [("COMPLETED", 1500), ("NO_DATA", 0)],
    ),
    "enrichment_job": (
        lambda lab: lab.enrichment_job(JOB),
        lambda job: (job.status, job.csv_url),
        ("COMPLETED", "gs://bucket/path/to/file.csv.gz"),
    ),
}


@pytest.mark.parametrize("mode", ["auto", "fixed"])
@pytest.mark.parametrize("dialect", ["observed", "documented"])
@pytest.mark.parametrize("call", CALLS)
async def test_every_call_is_understood_in_both_dialects(
    call: str, dialect: str, mode: str
) -> None:
    """Whichever form the service speaks, each call gives the same facts, found out or told to."""
    service = Service(dialect)
    if call == "enrich" and dialect == "observed":
        service.exchanges["POST /enrich"]["body"]["fields"] = ["EMAIL", "FIRST_NAME"]
    do, told, expected = CALLS[call]
    async with client_of(service, Dialects("auto" if mode == "auto" else dialect)) as lab:
        assert told(await do(lab)) == expected
    assert service.keys == {("sk_key", "Bearer sk_key")}


@pytest.mark.parametrize(
    "call", ["create_pixel", "create_audience", "create_enrichment_job", "list_enrichment_jobs"]
)
async def test_a_form_that_worked_is_the_first_next_time(call: str) -> None:
    """The unknown form is paid for once, and who wants to is told what was learned."""
    service, learned = Service("documented"), list[tuple[str, str]]()
    dialects = Dialects(learned=lambda *what: learned.append(what))
    async with client_of(service, dialects) as lab:
        await CALLS[call][0](lab)
        assert len(service.asked) == 2
        await CALLS[call][0](lab)
    assert len(service.asked) == 3
    assert learned == [(call, "documented")]
    assert dialects.worked == {call: "documented"}


async def test_what_was_learned_before_is_used_and_learned_anew() -> None:
    """A service that changes its form is followed: the remembered one is only the first to try."""
    dialects = Dialects(worked={"create_pixel": "documented", "enrich": "klingon"})
    assert dialects.worked == {"create_pixel": "documented"}
    service = Service("observed")
    async with client_of(service, dialects) as lab:
        await CALLS["create_pixel"][0](lab)
    assert service.asked == ["POST /pixels", "POST /pixels"]
    assert dialects.worked == {"create_pixel": "observed"}


async def test_a_fixed_dialect_tries_one_form_only() -> None:
    """Who fixes the form sees what the service says to it."""
    for fixed, speaks in (("observed", "documented"), ("documented", "observed")):
        service = Service(speaks)
        async with client_of(service, Dialects(fixed)) as lab:
            with pytest.raises(Rejected, match="does not know this form"):
                await CALLS["create_pixel"][0](lab)
        assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("dialect", "asked"),
    [
        ("auto", ["POST /enrich", "POST /enrich/contact"]),
        ("observed", ["POST /enrich"]),
        ("Documented", ["POST /enrich/contact"]),
    ],
)
async def test_the_setting_is_the_dialect_of_the_worker(
    dialect: str,
    asked: list[str],
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """AUDIENCELAB_DIALECT is what the worker's client speaks, in any case."""
    service = Service("documented")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIENCELAB_DIALECT", dialect)
    monkeypatch.setenv("AUDIENCELAB_API_KEY", "sk_key")
    with serving(service) as url:
        monkeypatch.setenv("AUDIENCELAB_BASE_URL", url)
        opened = _opened(load_settings(), redis, Timing())
        lab = await opened._audiencelab()
        assert lab is not None
        with pytest.raises(CallFailed):
            await lab.enrich(email="wil@example.com")
        await opened._stack.aclose()
    assert service.asked == asked


def test_a_dialect_is_one_of_three_words() -> None:
    """A misspelt mode is not taken for `auto`."""
    with pytest.raises(ValueError, match="observed or documented"):
        Dialects("Observed")


async def test_when_no_form_is_known_the_observed_one_is_told_about() -> None:
    """The failure names the path that live services have."""
    service = Service("observed")
    del service.exchanges["POST /enrichments"]
    async with client_of(service) as lab:
        with pytest.raises(Misconfigured, match=r"the path /enrichments .*AUDIENCELAB_BASE_URL"):
            await CALLS["create_enrichment_job"][0](lab)
    assert service.asked == ["POST /enrichments", "POST /enrichment/jobs"]


@pytest.mark.parametrize("worked", [{}, {"enrich": "documented"}])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(422, Rejected), (400, Rejected), (401, Misconfigured), (415, Misconfigured)],
)
async def test_what_the_form_that_is_known_says_is_told(
    status: int, kind: type[CallFailed], worked: dict[str, str]
) -> None:
    """A refusal by the one form that the service knows is not hidden behind the other's 404."""
    service = Service("documented")
    service.say("POST /enrich/contact", status, {"message": "this is the reason"})
    async with client_of(service, Dialects(worked=worked)) as lab:
        with pytest.raises(kind, match="this is the reason") as caught:
            await lab.enrich(email="wil@example.com")
    assert caught.value.status == status


@pytest.mark.parametrize("status", [404, 405])
async def test_a_path_or_a_method_that_is_unknown_is_another_form(status: int) -> None:
    """What a service does not know (404) or not do (405) under one form is asked for in the other, and remembered."""
    service, dialects = Service("documented"), Dialects()
    service.say("POST /enrich", status, {"message": "no"})
    async with client_of(service, dialects) as lab:
        for _ in range(2):
            await CALLS["enrich"][0](lab)
    assert service.asked == ["POST /enrich", "POST /enrich/contact", "POST /enrich/contact"]
    assert dialects.worked == {"enrich": "documented"}


@pytest.mark.parametrize("worked", [{}, {"create_enrichment_job": "documented"}])
async def test_a_refused_key_tells_more_than_an_unknown_path(worked: dict[str, str]) -> None:
    """400 "Unknown Field" of one form is about what was sent, 404 of the other about the service."""
    service = Service("documented")
    async with client_of(service, Dialects(worked=worked)) as lab:
        with pytest.raises(UnknownField):
            await lab.create_enrichment_job("Readers", [{"emailx": "wil@example.com"}])


async def test_a_second_form_that_cannot_be_tried_now_is_not_taken_for_unknown() -> None:
    """While the other form's answer is not known, nobody is told that the path is wrong."""
    service = Service("documented")
    service.say("POST /enrichment/jobs", 503, {"message": "busy"})
    async with client_of(service) as lab:
        with pytest.raises(Unavailable):
            await CALLS["create_enrichment_job"][0](lab)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": "no key"}, Misconfigured),
        (403, {"message": "Forbidden"}, Misconfigured),
        (400, {"error": {"code": "VALIDATION_ERROR", "message": "bad url"}}, Rejected),
        (429, {"message": "slow"}, Unavailable),
        (402, {"error": "no credits"}, QuotaExceeded),
        (500, {"error": "no", "status": 500}, Unavailable),
        (200, {"status": "processing"}, Unavailable),
    ],
)
async def test_only_an_unknown_form_is_asked_otherwise(
    status: int, body: object, kind: type[CallFailed]
) -> None:
    """A refusal for any other reason is not repeated: it could make a second pixel."""
    service = Service("observed")
    service.say("POST /pixels", status, body)
    async with client_of(service) as lab:
        with pytest.raises(kind):
            await CALLS["create_pixel"][0](lab)
    assert len(service.asked) == 1


async def test_calls_of_one_form_are_understood() -> None:
    """Events, records, topics, samples and single lists of attributes are observed only."""
    async with client_of(Service("observed")) as lab:
        assert [each["edid"] for each in (await lab.pixel_events(PIXEL)).items] == ["edid-0001"]
        v3 = await lab.pixel_events(PIXEL, version="v3")
        assert [each["event_type"] for each in v3.items] == ["page_view"]
        records = await lab.audience_records(AUDIENCE)
        assert [row["COMPANY_NAME_HISTORY"] for row in records.items] == ["null"]
        made = await lab.create_custom_audience("sailing", "people who sail")
        assert made == "processing"
        sample = await lab.preview({"city": ["Bergen"]}, days_back=7, limit=1)
        assert (sample.count, sample.rows) == (1204, [{"FIRST_NAME": "Wil"}])
        assert sample.field_coverage == {"FIRST_NAME": 0.9}
        sic = await lab.attributes("sic")
        assert [(a.id, a.name, a.kind) for a in sic] == [("sic-1", "The first of sic", "sic")]
        assert sic[0].other == {"b2b": True}


async def test_all_attributes_are_five_lists_or_one() -> None:
    """Without a kind everything comes, from five calls (observed) or one (documented)."""
    async with client_of(Service("observed")) as lab:
        assert [each.kind for each in await lab.attributes()] == list(KINDS)
    async with client_of(Service("documented")) as lab:
        found = await lab.attributes()
    assert [(a.name, a.kind, a.other["label"]) for a in found] == [
        ("FIRST_NAME", "personal", "First Name")
    ]


async def test_a_service_without_records_says_so() -> None:
    """Where an audience's id gives the audience itself, its people cannot be read: told so."""
    async with client_of(Service("documented")) as lab:
        with pytest.raises(Misconfigured, match="with the audience, not with its people"):
            await lab.audience_records(AUDIENCE)


async def test_filters_are_said_in_the_documented_form_only_where_they_can_be() -> None:
    """What the other form has no words for is never left out silently."""
    assert audiences.documented_filters({"notNulls": ["PHONE"]}) is None
    assert audiences.documented_filters({"city": "Bergen", "profile": {"pets": 2}}) is None
    assert audiences.documented_filters({"age": {"middle": 3}}) is None
    assert audiences.documented_filters({"age": {"maxAge": 40}, "city": "Bergen"}) == [
        {"field": "AGE", "operator": "less_than", "value": 41},
        {"field": "PERSONAL_CITY", "operator": "equals", "value": "Bergen"},
    ]
    service = Service("documented")
    async with client_of(service) as lab:
        for chosen in ({"filters": FILTERS, "days_back": 7}, {"filters": {"nullOnly": ["SIC"]}}):
            with pytest.raises(Rejected, match="does not know this form"):
                await lab.create_audience("Readers", **chosen)
    assert service.asked == ["POST /audiences", "POST /audiences"]


async def test_any_refusal_of_filters_may_be_about_their_form() -> None:
    """Both forms of a new audience have the same keys, so no "Unknown Field" can tell them apart."""
    service = Service("observed")
    service.say("POST /audiences", 400, {"error": "audience enqueue failed: <nil>"})
    async with client_of(service) as lab:
        with pytest.raises(Rejected, match="enqueue failed"):
            await lab.create_audience("Readers", FILTERS)
    assert service.asked == ["POST /audiences", "POST /audiences"]


async def test_an_array_of_filters_leaves_as_it_is() -> None:
    """Who writes the documented form gets it; with segments it cannot be said at all."""
    service = Service("documented")
    listed = service.exchanges["POST /audiences"]["body"]["filters"]
    async with client_of(service) as lab:
        assert await lab.create_audience("Readers", listed) == AUDIENCE
        with pytest.raises(ValueError, match="segments"):
            await lab.create_audience("Readers", listed, segment=["sailing"])


CHANGES: dict[str, Call] = {
    "POST /pixels": lambda lab: lab.create_pixel("Test", "https://test.example.com"),
    "POST /audiences": lambda lab: lab.create_audience("Readers", FILTERS),
    "POST /audiences/custom": lambda lab: lab.create_custom_audience("sailing", "who sail"),
    "POST /enrichments": lambda lab: lab.create_enrichment_job("Readers", [{"email": "a@b.c"}]),
    f"DELETE /pixels/{PIXEL}": lambda lab: lab.delete_pixel(PIXEL),
    f"DELETE /audiences/{AUDIENCE}": lambda lab: lab.delete_audience(AUDIENCE),
}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_that_ends_in_a_5xx_is_unclear(change: str, status: int) -> None:
    """Nobody is told that a pixel, an audience or a job was not made: it may have been, and is not tried again."""
    service = Service("observed")
    service.say(change, status, {"error": "no"})
    async with client_of(service) as lab:
        with pytest.raises(Unavailable) as caught:
            await CHANGES[change](lab)
    assert caught.value.maybe_stored
    assert service.asked == [change]


async def test_a_5xx_on_what_only_reads_is_clear() -> None:
    """Nothing was changed by it, whatever became of it."""
    service = Service("observed")
    service.say("GET /pixels?page=1&page_size=100", 503, {"error": "no"})
    async with client_of(service) as lab:
        with pytest.raises(Unavailable) as caught:
            await lab.list_pixels()
    assert not caught.value.maybe_stored


MORE: dict[str, Any] = {
    "description": "Who read",
    "webhook_url": "https://hooks.example.com/hooks/audience/abc",
}


@pytest.mark.parametrize("dialects", [Dialects(), Dialects("documented")])
async def test_a_description_leaves_in_the_form_that_has_it(dialects: Dialects) -> None:
    """The observed form, which has no place for it, is not tried."""
    service = Service("documented")
    service.exchanges["POST /audiences"]["body"] |= MORE
    async with client_of(service, dialects) as lab:
        assert await lab.create_audience("Readers", FILTERS, **MORE) == AUDIENCE
    assert service.asked == ["POST /audiences"]


@pytest.mark.parametrize("more", [{name: MORE[name]} for name in MORE])
async def test_a_description_is_never_left_out_in_silence(more: dict[str, Any]) -> None:
    """Where the form is known to have no place for it, nothing leaves; else the refusal says why."""
    service = Service("observed")
    service.say("POST /audiences", 400, {"error": "audience enqueue failed: <nil>"})
    for known in (Dialects("observed"), Dialects(worked={"create_audience": "observed"})):
        async with client_of(service, known) as lab:
            with pytest.raises(ValueError, match="leave them out"):
                await lab.create_audience("Readers", FILTERS, **more)
    async with client_of(service) as lab:
        unsaid: list[dict[str, Any]] = [{"days_back": 7}, {"segment": ["sailing"]}]
        for each in unsaid:
            with pytest.raises(ValueError, match="neither description nor webhook_url"):
                await lab.create_audience("Readers", FILTERS, **each, **more)
        with pytest.raises(ValueError, match="neither description nor webhook_url"):
            await lab.create_audience("Readers", {"nullOnly": ["SIC"]}, **more)
        assert service.asked == []
        with pytest.raises(Rejected, match=r"enqueue failed.*leave them out") as caught:
            await lab.create_audience("Readers", FILTERS, **more)
    assert "hooks" not in str(caught.value)
    assert len(service.asked) == 1


async def test_a_service_that_cannot_be_asked_by_a_hash_is_known_from_then_on() -> None:
    """The list of jobs, which has two forms, tells which form is spoken; an address is asked for in that one."""
    service = Service("documented")
    service.exchanges["GET /enrichment/jobs?page=1&page_size=1"] = service.exchanges[
        "GET /enrichment/jobs?page=1&page_size=100"
    ]
    async with client_of(service) as lab:
        with pytest.raises(Misconfigured, match="speaks the documented form only") as caught:
            await lab.enrich(hem_sha256="ab" * 32)
        # what is most likely wrong comes first
        form, _, address = caught.value.sentence.partition("; else ")
        assert "AUDIENCELAB_BASE_URL" not in form
        assert "AUDIENCELAB_BASE_URL" in address
        assert not lab.can_enrich_by("hem_sha256")
        assert len(service.asked) == 3
        await CALLS["enrich"][0](lab)
    assert service.asked[3:] == ["POST /enrich/contact"]


@pytest.mark.parametrize("status", [404, 503])
async def test_what_cannot_be_found_out_is_not_concluded(status: int) -> None:
    """A list of jobs that fails, too, or that the observed form answers, says nothing of how to enrich."""
    service = Service("observed")
    service.say("POST /enrich", 404, NOT_FOUND)
    for path in ("/enrichments", "/enrichment/jobs"):
        service.say(f"GET {path}?page=1&page_size=1", status, NOT_FOUND)
    async with client_of(service) as lab:
        for _ in range(2):
            with pytest.raises(Misconfigured, match="does not know the path /enrich "):
                await lab.enrich(hem_sha256="ab" * 32)
            assert lab.can_enrich_by("hem_sha256")
            service.say("GET /enrichments?page=1&page_size=1", 200, {"data": [], "total": 0})


class Counting(Answer):
    """An answer that counts how often it is decoded."""

    times = 0

    def decoded(self) -> object:
        """Return the body's value."""
        Counting.times += 1
        return super().decoded()


def test_a_page_is_decoded_once() -> None:
    """A page may have megabytes."""
    body = b'{"data":[{"first_name":"Wil"}],"events":[{"edid":"1"}],"total":1}'
    answer = Counting(200, {}, body)
    assert len(audiences.read_records(answer, 1, 100).items) == 1
    assert len(pixels.read_events(answer, 1, 100, "v4").items) == 1
    assert Counting.times == 2


async def test_our_own_mistakes_never_leave() -> None:
    """Empty filters and jobs, ids with a slash, pages below 1: refused here, in words."""
    service = Service("observed")
    async with client_of(service) as lab:
        for wrong in (
            lambda: lab.create_audience("Readers", {}),
            lambda: lab.create_audience("Readers", []),
            lambda: lab.enrich_by({}),
            lambda: lab.create_enrichment_job("Readers", [], ["EMAIL"]),
            lambda: lab.create_enrichment_job("Readers", [{"email": "a@example.com"}], []),
            lambda: lab.create_enrichment_job("Readers", [{"a": 1}], ["A"], operator="XOR"),
            lambda: lab.list_pixels(0),
            lambda: lab.list_pixels(1, 1001),
            lambda: lab.segment_page(SEGMENT, page_size=0),
            lambda: lab.pixel_events(PIXEL, version="v5"),
            lambda: lab.preview({"city": ["Bergen"]}, days_back=11),
            lambda: lab.pixel(""),
            lambda: lab.delete_pixel("../audiences"),
            lambda: lab.delete_audience(".."),
            lambda: lab.enrichment_job("a/b"),
        ):
            with pytest.raises(ValueError, match=r"\w"):
                await wrong()
    assert service.asked == []


async def test_an_id_cannot_change_the_path() -> None:
    """Whatever a person types stays one piece of the path."""
    service = Service("observed")
    async with client_of(service) as lab:
        with pytest.raises(NotFound):
            await lab.segment_page("a?b#c")
    assert service.asked == ["GET /segments/a%3Fb%23c?page=1&page_size=100"]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, NOT_FOUND, NotFound),
        (200, {"status": "NOT_FOUND"}, NotFound),
        (200, {"error": {"code": "NOT_FOUND", "message": "no"}}, NotFound),
        (404, "<html>404 not here</html>", Misconfigured),
        (404, "", Misconfigured),
        (405, {"message": "no"}, Misconfigured),
        (400, {"error": "invalid uuid"}, Rejected),
        (200, "<html>Sign in to the hotel network</html>", Unavailable),
        (200, '{"total_records": 3, "data": [{"UUID"', Unavailable),
        (200, {"total_records": 3, "data": None}, Unavailable),
        (200, {"data": [{"UUID": "1"}, "2"], "total": 2}, Unavailable),
        (200, {"error": "backend away", "data": []}, Unavailable),
        (200, {}, Unavailable),
    ],
)
async def test_a_wrong_id_and_half_an_answer_are_clear_errors(
    status: int, body: object, kind: type[CallFailed]
) -> None:
    """An id that nobody knows is told from a wrong path and from an answer that is none."""
    service = Service("observed")
    for path in (f"/audiences/{AUDIENCE}", f"/segments/{SEGMENT}", f"/pixels/{PIXEL}/v4"):
        service.say(f"GET {path}?page=1&page_size=100", status, body)
    async with client_of(service) as lab:
        for ask in (lab.audience_records(AUDIENCE), lab.segment_page(SEGMENT)):
            with pytest.raises(kind) as caught:
                await ask
            assert type(caught.value) is kind
            assert AUDIENCE not in caught.value.sentence


@pytest.mark.parametrize(
    "body",
    [
        {"status": "no data"},
        {"data": None},
        {"data": [], "total": 0},
        {"total_records": 0, "page": 1, "page_size": 100, "total_pages": 0, "data": []},
    ],
)
async def test_an_empty_account_has_empty_pages(body: object) -> None:
    """Nothing there is an answer, in whichever words, and a walk over it ends at once."""
    service = Service("observed")
    for path in ("/pixels", "/audiences", f"/audiences/{AUDIENCE}", "/enrichments"):
        service.say(f"GET {path}?page=1&page_size=100", 200, body)
    async with client_of(service) as lab:
        assert [pixel async for pixel in lab.pixels()] == []
        assert [audience async for audience in lab.audiences()] == []
        assert (await lab.audience_records(AUDIENCE)).items == []
        assert (await lab.list_enrichment_jobs()).items == []
    assert len(service.asked) == 4


async def test_an_id_that_no_list_has_is_not_found() -> None:
    """Where one thing is found in the list, its absence is the answer, and final."""
    service = Service("observed")
    async with client_of(service) as lab:
        for ask in (lab.pixel("other"), lab.audience("other"), lab.enrichment_job("other")):
            with pytest.raises(NotFound, match="of this id"):
                await ask
    assert all("page" in asked for asked in service.asked)
    async with client_of(Service("documented"), Dialects("documented")) as lab:
        for ask in (lab.pixel("other"), lab.audience("other"), lab.enrichment_job("other")):
            with pytest.raises(NotFound, match="of this id"):
                await ask


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (204, None, None),
        (200, {"success": True}, None),
        (200, {}, None),
        (202, {"message": "will be gone"}, None),
        (200, "null", None),
        (200, "true", None),
        (200, "OK", None),
        (200, '"deleted"', None),
        (200, [], None),
        (200, "false", Unavailable),
        (200, {"success": "false"}, Unavailable),
        (200, {"Success": 0}, Unavailable),
        (200, {"success": False}, Unavailable),
        (200, {"status": "NOT_FOUND"}, NotFound),
        (404, NOT_FOUND, NotFound),
        (200, "<html>", Unavailable),
        (200, '{"success":', Unavailable),
        (500, {"success": True}, Unavailable),
    ],
)
async def test_a_deletion_is_done_only_when_the_service_says_so(
    status: int, body: object, kind: type[CallFailed] | None
) -> None:
    """Any 2xx is done but what denies it, a proxy's page and half an answer."""
    service = Service("observed")
    service.say(f"DELETE /pixels/{PIXEL}", status, body)
    async with client_of(service) as lab:
        if kind is None:
            await lab.delete_pixel(PIXEL)
        else:
            with pytest.raises(kind):
                await lab.delete_pixel(PIXEL)


@pytest.mark.parametrize(
    ("install_url", "provider_id"),
    [
        ("https://cdn.v3.identitypxl.app/pixels/f36d7d73-3ac5/p.js", "f36d7d73-3ac5"),
        (
            "https://cdn.idpixel.app/v1/idp-analytics-69e299f5d233fe5c1d74bfbb.min.js",
            "69e299f5d233fe5c1d74bfbb",
        ),
        ("https://cdn.example.com/p.js", None),
        (None, None),
    ],
)
def test_the_id_of_events_is_in_the_install_url(
    install_url: str | None, provider_id: str | None
) -> None:
    """Events carry the provider's id, not the one of these calls."""
    assert pixels.CreatedPixel("own", install_url).provider_id == provider_id


def test_what_is_not_known_of_an_item_is_kept() -> None:
    """A new field of the vendor's is lost to nobody."""
    body = b'{"data":[{"id":7,"last_sync_status":"ok","website_name":null}],"total":"1"}'
    page = pixels.PIXELS.read_list(Answer(200, {}, body), 1, 100)
    assert page.total == 1
    assert page.items[0].id == "7"
    assert page.items[0].other == {"last_sync_status": "ok"}


def test_a_list_with_an_item_that_is_none_is_refused() -> None:
    """A row without an id is not skipped in silence."""
    for read in (
        pixels.PIXELS.read_list,
        audiences.AUDIENCES.read_list,
        enrichment.read_list,
    ):
        with pytest.raises(Unavailable):
            read(Answer(200, {}, b'{"data":[{"name":"x"}],"total":1}'), 1, 100)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("IN_QUEUE", "IN_QUEUE"),
        ("submitted", "IN_QUEUE"),
        ("in queue", "IN_QUEUE"),
        ("processing", "PROCESSING"),
        ("Completed", "COMPLETED"),
        ("no data", "NO_DATA"),
        ("NO_DATA", "NO_DATA"),
        ("failed", "FAILED"),
        ("On Hold", "On Hold"),
    ],
)
def test_a_jobs_state_has_one_spelling(word: str, state: str) -> None:
    """Known states are told alike however they are spelt; a new word stays as it came."""
    assert enrichment.state(word) == state


def test_pages_keep_what_they_tell() -> None:
    """Items can be read anew without losing where they stood."""
    page = Page([1], 2, 50, total=51, total_pages=2, has_more=False)
    assert page.of(str) == Page(["1"], 2, 50, total=51, total_pages=2, has_more=False)


@pytest.mark.parametrize(
    "body",
    [
        {"result": [{"first_name": "Wil"}]},
        {"data": {"first_name": "Wil"}},
        {"contact": [{"FIRST_NAME": "Wil"}]},
        {"FIRST_NAME": "Wil"},
    ],
)
def test_the_documented_enrichment_may_be_answered_in_any_shape(body: object) -> None:
    """Its answer is written down nowhere, so a person is looked for in the likely places."""
    answer = Answer(200, {}, orjson.dumps(body))
    assert enrichment.read_documented_enrich(answer) == [{"FIRST_NAME": "Wil"}]


@pytest.mark.parametrize("body", [{}, {"ok": True}, {"error": "no", "FIRST_NAME": "Wil"}])
def test_what_is_no_person_is_not_taken_for_one(body: object) -> None:
    """Anything unclear is the vendor's failure, not "nobody"."""
    with pytest.raises(Unavailable):
        enrichment.read_documented_enrich(Answer(200, {}, orjson.dumps(body)))


class Clock:
    """A clock that moves by what was slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        """Return the seconds slept so far."""
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass at once."""
        self.slept.append(seconds)


async def test_a_job_that_never_ends_is_given_up_in_words() -> None:
    """Waiting has an end, says how the job stands, and asked at its pace until then."""
    service, clock = Service("observed"), Clock()
    service.exchanges["GET /enrichments?page=1&page_size=1000"]["answer"]["data"][0].update(
        status="PROCESSING"
    )
    async with client_of(service) as lab:
        with pytest.raises(Unavailable, match=r"not over after 100 s \(it is PROCESSING\)"):
            await lab.finished_job(JOB, deadline_s=100, now=clock.now, sleep=clock.sleep)
    assert clock.slept == [30.0, 30.0, 30.0]


async def test_a_job_is_waited_for_through_failures() -> None:
    """A service that is away for a while, or asks for patience, does not end the wait."""
    service, clock = Service("observed"), Clock()
    line = "GET /enrichments?page=1&page_size=1000"
    recorded = service.exchanges[line]
    service.say(line, 503, {"error": "away"})

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        service.exchanges[line] = recorded

    async with client_of(service) as lab:
        job = await lab.finished_job(JOB, now=clock.now, sleep=sleep)
    assert (job.status, clock.slept) == ("COMPLETED", [30.0])


async def test_a_job_that_nobody_knows_is_not_waited_for() -> None:
    """A wrong id is told at once."""
    async with client_of(Service("observed")) as lab:
        with pytest.raises(NotFound):
            await lab.finished_job("other")

"""The calls, carried over one `VendorHttp`, each in the form that the service knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from workers.clients.audiencelab import audiences, enrichment, pixels, results, segments
from workers.clients.audiencelab.answers import VENDOR, lacking, read_done
from workers.clients.audiencelab.audiences import Attribute, Audience, Preview
from workers.clients.audiencelab.dialects import Dialect, Dialects
from workers.clients.audiencelab.enrichment import EnrichmentJob
from workers.clients.audiencelab.pages import Page, walk
from workers.clients.audiencelab.pixels import CreatedPixel, Pixel
from workers.clients.errors import (
    CallFailed,
    Misconfigured,
    NotFound,
    QuotaExceeded,
    Rejected,
    Unavailable,
)
from workers.clients.http import VendorHttp
from workers.clients.messages import Answer, RateLimit, Request

T = TypeVar("T")
Thing = TypeVar("Thing", Pixel, Audience, EnrichmentJob)
Form = Callable[[], Awaitable[T]]

#: Rows a page: within what both the vendor's pages and its older reference allow.
PAGE_SIZE = 100


class AudienceLab:
    """The calls, over one `VendorHttp`. Every failure is a `CallFailed`.

    *hash_filter* is the name under which a hashed address is asked for; it is not documented.
    *dialects* chooses the form of the calls that have two; by default it finds out. A method tells
    with which confidence its form is known: "observed" in the vendor's pages and live answers, or
    only "documented" in its older reference. An id that is empty or has a `/` is a `ValueError`;
    one that nobody knows is `NotFound`.
    """

    def __init__(
        self,
        http: VendorHttp,
        *,
        hash_filter: str = "sha256_personal_email",
        dialects: Dialects | None = None,
    ) -> None:
        self._http = http
        self._hash_filter = hash_filter
        self._dialects = dialects or Dialects()

    def _form(self, request: Request, read: Callable[[Answer], T]) -> Form[T]:
        """Return what sends *request* and reads its answer."""

        async def ask() -> T:
            return read(await self._http.send(request))

        return ask

    async def _speak(
        self,
        call: str,
        observed: Form[T],
        documented: Form[T] | None,
        *,
        differ_in_values: bool = False,
    ) -> T:
        forms = {Dialect.OBSERVED: observed}
        if documented is not None:
            forms[Dialect.DOCUMENTED] = documented
        return await self._dialects.speak(call, forms, differ_in_values=differ_in_values)

    async def _only(self, what: str, observed: Form[T]) -> T:
        """Return what a call answers that only the observed form has: *what*, in words."""
        try:
            return await observed()
        except Misconfigured as failed:
            if failed.status not in (404, 405):
                raise
            raise lacking(failed, what) from None

    async def _every(self, fetch: Callable[[int], Awaitable[Page[T]]]) -> AsyncGenerator[T]:
        """Yield what is on all pages that *fetch* gives."""
        async with aclosing(walk(fetch)) as pages:
            async for page in pages:
                for item in page.items:
                    yield item

    async def _find(self, all_of_them: AsyncGenerator[Thing], own_id: str, what: str) -> Thing:
        """Return the one whose id it is; none of a list is `NotFound`."""
        async with aclosing(all_of_them) as listed:
            async for thing in listed:
                if thing.id == own_id:
                    return thing
        raise NotFound(f"{VENDOR} lists no {what} of this id")

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the last answer that tells of a limit has told of it; None while none has."""
        return self._http.rate_limit

    # Pixels ------------------------------------------------------------------------------------

    async def list_pixels(self, page: int = 1, page_size: int = PAGE_SIZE) -> Page[Pixel]:
        """Return a page of the account's pixels (observed)."""
        answer = await self._http.send(pixels.list_request(page, page_size))
        return pixels.read_list(answer, page, page_size)

    def pixels(self, page_size: int = PAGE_SIZE) -> AsyncGenerator[Pixel]:
        """Yield all pixels; one may come twice when the list changes meanwhile."""
        return self._every(lambda page: self.list_pixels(page, page_size))

    async def pixel(self, pixel_id: str) -> Pixel:
        """Return one pixel: found in the list (observed), or asked for by its id (documented)."""
        request = pixels.get_request(pixel_id)

        async def find() -> Pixel:
            return await self._find(self.pixels(), pixel_id, pixels.PIXEL)

        return await self._speak("pixel", find, self._form(request, pixels.read_pixel))

    async def create_pixel(
        self,
        website_name: str,
        website_url: str,
        webhook_url: str | None = None,
        version: str | None = None,
    ) -> CreatedPixel:
        """Make a pixel; *version* is `v3` (the vendor's default) or `v4`, unknown when documented.

        A failure with `maybe_stored` may have made it all the same: look at the list before you try
        again.
        """
        site = (website_name, website_url, webhook_url)
        observed = pixels.create_request(*site, version)
        documented = pixels.documented_create_request(*site)
        read = pixels.read_created
        return await self._speak(
            "create_pixel",
            self._form(observed, read),
            self._form(documented, read) if version in (None, "v3") else None,
        )

    async def delete_pixel(self, pixel_id: str) -> None:
        """Delete a pixel. Answered 204 (observed) or `{"success": true}` (documented)."""
        answer = await self._http.send(pixels.delete_request(pixel_id))
        read_done(answer, f"{pixels.PIXELS_PATH}/{{id}}", pixels.PIXEL)

    async def pixel_events(
        self, pixel_id: str, page: int = 1, page_size: int = PAGE_SIZE, version: str = "v4"
    ) -> Page[dict[str, object]]:
        """Return a page of what a pixel has seen, items as its webhook delivers them (observed).

        Raises `Misconfigured` for a pixel that is listed and has no such events: it is of the other
        *version*, or the service lacks the call.
        """
        request = pixels.events_request(pixel_id, page, page_size, version)
        try:
            return pixels.read_events(await self._http.send(request), page, page_size, version)
        except NotFound as failed:
            if failed.status != 404 or not await self._has_pixel(pixel_id):
                raise
            raise lacking(pixels.no_events(version, failed), "a pixel's events") from None

    async def _has_pixel(self, pixel_id: str) -> bool:
        try:
            await self.pixel(pixel_id)
        except CallFailed:
            return False
        return True

    # Audiences ---------------------------------------------------------------------------------

    async def list_audiences(self, page: int = 1, page_size: int = PAGE_SIZE) -> Page[Audience]:
        """Return a page of the account's audiences (observed)."""
        answer = await self._http.send(audiences.list_request(page, page_size))
        return audiences.read_list(answer, page, page_size)

    def audiences(self, page_size: int = PAGE_SIZE) -> AsyncGenerator[Audience]:
        """Yield all audiences; one may come twice when the list changes meanwhile."""
        return self._every(lambda page: self.list_audiences(page, page_size))

    async def audience(self, audience_id: str) -> Audience:
        """Return one audience: found in the list (observed), or asked for by its id (documented)."""
        request = audiences.get_request(audience_id)

        async def find() -> Audience:
            return await self._find(self.audiences(), audience_id, audiences.AUDIENCE)

        return await self._speak("audience", find, self._form(request, audiences.read_audience))

    async def audience_records(
        self, audience_id: str, page: int = 1, page_size: int = PAGE_SIZE
    ) -> Page[dict[str, object]]:
        """Return a page of an audience's people, UPPER_CASE columns (observed in live answers)."""
        request = audiences.records_request(audience_id, page, page_size)
        return audiences.read_records(await self._http.send(request), page, page_size)

    async def create_audience(
        self,
        name: str,
        filters: Mapping[str, object] | Sequence[Mapping[str, object]],
        segment: Sequence[str] | None = None,
        days_back: int | None = None,
        *,
        description: str | None = None,
        webhook_url: str | None = None,
    ) -> str:
        """Make an audience and return its id.

        *filters* is an object for the observed form, `{"city": ["Bergen"], "age": {"minAge": 30}}`,
        and is said in the documented one where it can be; an array of `{field, operator, value}` is
        for the documented form only. *description* and *webhook_url* leave in the documented form
        only; the observed one has no place for them.
        """
        read = audiences.read_created
        listed = (
            audiences.documented_filters(filters) if isinstance(filters, Mapping) else list(filters)
        )
        documented = None
        # segments and days cannot be said there
        if listed is not None and segment is None and days_back is None:
            request = audiences.documented_create_request(name, listed, description, webhook_url)
            documented = self._form(request, read)
        if isinstance(filters, Mapping):
            request = audiences.create_request(name, filters, segment, days_back)
            observed = self._form(request, read)
            return await self._speak("create_audience", observed, documented, differ_in_values=True)
        if documented is None:
            raise ValueError("an array of filters goes with neither segments nor days_back")
        return await documented()

    async def create_custom_audience(self, topic: str, description: str) -> str:
        """Have an audience made about a topic; return the status, `processing` (observed)."""
        request = audiences.custom_request(topic, description)
        return await self._only("a topic", self._form(request, audiences.read_custom))

    async def delete_audience(self, audience_id: str) -> None:
        """Delete an audience. How this is answered is only documented: `{"success": true}`."""
        answer = await self._http.send(audiences.delete_request(audience_id))
        read_done(answer, f"{audiences.AUDIENCES_PATH}/{{id}}", audiences.AUDIENCE)

    async def attributes(self, kind: str | None = None) -> list[Attribute]:
        """Return what audiences can be filtered by: one of `KINDS` (observed in live answers).

        Without a kind: those of all kinds, one call each, or the one call that is documented.
        """
        read = audiences.read_attributes
        if kind is not None:
            request = audiences.attributes_request(kind)
            return await self._only("one kind of attributes", self._form(request, read))

        async def every_kind() -> list[Attribute]:
            return [found for each in audiences.KINDS for found in await self.attributes(each)]

        request = audiences.attributes_request(None)
        return await self._speak("attributes", every_kind, self._form(request, read))

    async def preview(
        self,
        filters: Mapping[str, object] | None = None,
        segment: Sequence[str] | None = None,
        *,
        days_back: int | None = None,
        limit: int | None = None,
        score: object = None,
        include_dnc: bool | None = None,
    ) -> Preview:
        """Return a sample of the people that *filters* or segments fit (observed).

        *days_back* is 1 to 10, *limit* 0 to 500 rows.
        """
        form = {
            "filters": dict(filters) if filters is not None else None,
            "segment": list(segment) if segment is not None else None,
            "days_back": days_back,
            "limit": limit,
            "score": score,
            "include_dnc": include_dnc,
        }
        request = audiences.preview_request(form)
        return await self._only("a sample", self._form(request, audiences.read_preview))

    # Segments ----------------------------------------------------------------------------------

    async def segment_page(
        self, segment_id: str, page: int = 1, page_size: int = PAGE_SIZE
    ) -> Page[dict[str, object]]:
        """Return a page of a segment's rows, newest first (observed in live answers).

        Up to 10 000 rows a page; at 3 KB a row an answer of more than 5000 is too large for us.
        """
        request = segments.page_of_request(segment_id, page, page_size)
        return segments.read_rows(await self._http.send(request), page, page_size)

    def segment_rows(
        self, segment_id: str, page_size: int = PAGE_SIZE
    ) -> AsyncGenerator[dict[str, object]]:
        """Yield all rows of a segment; some may come twice when it changes meanwhile."""
        return self._every(lambda page: self.segment_page(segment_id, page, page_size))

    # Enrichment --------------------------------------------------------------------------------

    async def enrich(
        self,
        email: str | None = None,
        hem_sha256: str | None = None,
        phone: str | None = None,
    ) -> list[dict[str, object]]:
        """Return the people behind one fact; exactly one must be given, else `ValueError`."""
        facts = {"email": email, self._hash_filter: hem_sha256, "phone": phone}
        given = {name: fact for name, fact in facts.items() if fact}
        if len(given) != 1:
            raise ValueError(f"give exactly one of email, hem_sha256 and phone, not {len(given)}")
        return await self.enrich_by(given)

    async def enrich_by(
        self,
        facts: Mapping[str, str],
        is_or_match: bool = True,
        fields: Sequence[str] | None = None,
    ) -> list[dict[str, object]]:
        """Return the people whom any (or all) of *facts* fit, UPPER_CASE columns; nobody: empty.

        Names of facts are email, phone, first_name, company_domain…; *fields* narrows the columns.
        The documented form knows an address only.
        """
        if not facts:
            raise ValueError("give at least one fact to find a person by")
        request = enrichment.enrich_request(facts, is_or_match=is_or_match, fields=fields)
        documented = None
        if set(facts) == {"email"}:
            by_address = enrichment.documented_enrich_request(facts["email"], fields)
            documented = self._form(by_address, enrichment.read_documented_enrich)
        observed = self._form(request, enrichment.read_enrich)
        if documented is None:
            return await self._only("people by anything but one address", observed)
        return await self._speak("enrich", observed, documented)

    def can_enrich_by(self, fact: str) -> bool:
        """Whether `enrich` can ask by *fact*: email, hem_sha256 or phone.

        The documented form knows an address only. While nobody knows which form the service speaks,
        all can be tried.
        """
        return fact == "email" or self._dialects.known("enrich") is not Dialect.DOCUMENTED

    async def create_enrichment_job(
        self,
        name: str,
        records: Sequence[Mapping[str, object]],
        columns: Sequence[str] = ("EMAIL",),
        operator: str = "OR",
        *,
        fields: Sequence[str] | None = None,
    ) -> str:
        """Have many people found; return the job's id.

        *records* are objects of what is known (`{"email": …}`), *columns* what they are matched by,
        *operator* `OR` or `AND`, *fields* the columns that are wanted back, else all. The observed
        form has no fields; the documented one has neither name nor columns nor operator.
        """
        observed = enrichment.create_request(name, records, columns, operator)
        documented = enrichment.documented_create_request(records, fields)
        path = enrichment.DOCUMENTED_JOBS_PATH
        return await self._speak(
            "create_enrichment_job",
            self._form(observed, enrichment.read_created),
            self._form(documented, lambda answer: enrichment.read_created(answer, path)),
        )

    @property
    def jobs_have_names(self) -> bool:
        """Whether a job can be found by its name: a service of the documented form hears of none."""
        calls = ("create_enrichment_job", "list_enrichment_jobs")
        return all(self._dialects.known(call) is not Dialect.DOCUMENTED for call in calls)

    async def list_enrichment_jobs(
        self, page: int = 1, page_size: int = PAGE_SIZE
    ) -> Page[EnrichmentJob]:
        """Return a page of the account's jobs."""

        def form(path: str) -> Form[Page[EnrichmentJob]]:
            request = enrichment.list_request(page, page_size, path)
            return self._form(request, lambda a: enrichment.read_list(a, page, page_size, path))

        return await self._speak(
            "list_enrichment_jobs",
            form(enrichment.JOBS_PATH),
            form(enrichment.DOCUMENTED_JOBS_PATH),
        )

    async def enrichment_job(self, job_id: str) -> EnrichmentJob:
        """Return one job: found in the list (observed), or asked for by its id (documented)."""
        request = enrichment.get_request(job_id)
        size = enrichment.MOST_JOBS

        async def listed(page: int) -> Page[EnrichmentJob]:
            answer = await self._http.send(enrichment.list_request(page, size))
            return enrichment.read_list(answer, page, size)

        async def find() -> EnrichmentJob:
            return await self._find(self._every(listed), job_id, enrichment.JOB)

        return await self._speak("enrichment_job", find, self._form(request, enrichment.read_job))

    async def finished_job(
        self,
        job_id: str,
        *,
        deadline_s: float = 3600.0,
        every_s: float = 30.0,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> EnrichmentJob:
        """Return the job when it is over: completed, failed, or nobody found.

        It is asked about every *every_s* seconds, later when the vendor asks for it; a call that
        fails for a while is repeated. Raises `Unavailable` when it is not over after *deadline_s*:
        the job goes on at the vendor's, and can be waited for again.
        """
        until = now() + deadline_s
        while True:
            wait_s, last = every_s, "it was never seen"
            try:
                job = await self.enrichment_job(job_id)
                if job.is_over:
                    return job
                last = f"it is {job.status}"
            except QuotaExceeded:
                raise
            except Unavailable as failed:
                wait_s, last = max(every_s, failed.retry_after_s or 0.0), failed.sentence
            if now() + wait_s > until:
                raise Unavailable(
                    f"{VENDOR}'s {enrichment.JOB} is not over after {deadline_s:g} s ({last})"
                )
            await sleep(wait_s)

    async def enrichment_rows(self, job: EnrichmentJob) -> AsyncGenerator[dict[str, str]]:
        """Yield the rows of a completed job's result file, UPPER_CASE columns; nobody: none.

        The file is streamed; our key is not sent along. Raises `Unavailable` while the job is not
        over and for a file that breaks off (rows that came are good), `Rejected` for one that has
        failed or whose file is refused.
        """
        match job.status:
            case enrichment.NO_DATA:
                return
            case enrichment.FAILED:
                raise Rejected(f"{VENDOR}'s {enrichment.JOB} has failed")
            case enrichment.IN_QUEUE | enrichment.PROCESSING:
                raise Unavailable(f"{VENDOR}'s {enrichment.JOB} is not over ({job.status})")
        if not job.csv_url:
            raise Unavailable(f"{VENDOR} names no result file of its {enrichment.JOB}")
        async with aclosing(results.rows(self._http.file(job.csv_url))) as rows:
            async for row in rows:
                yield row

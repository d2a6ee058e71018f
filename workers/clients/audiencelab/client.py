"""The calls, carried over one `VendorHttp`, each in the form that the service knows.

Sources: *observed* forms are of the vendor's pages (docs.audiencelab.io, and the API reference at
audiencelab.mintlify.app) and of live answers. *Documented* forms are of the older API Reference of December 2025;
what a method names after "Reference:" is its section there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from workers.clients.audiencelab import audiences, enrichment, pixels, results, segments
from workers.clients.audiencelab.answers import VENDOR, lacking
from workers.clients.audiencelab.audiences import AUDIENCES, Attribute, Audience, Preview
from workers.clients.audiencelab.dialects import Dialect, Dialects
from workers.clients.audiencelab.enrichment import EnrichmentJob
from workers.clients.audiencelab.pages import Page, walk
from workers.clients.audiencelab.pixels import PIXELS, CreatedPixel, Pixel
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
    """The calls, over one `VendorHttp`. Nothing is retried and no pace is kept: that is the caller's.

    *hash_filter* is the name under which a hashed address is asked for; it is not documented.
    *dialects* chooses the form of the calls that have two; by default it finds out. A method tells
    with which confidence its form is known: "observed" in the vendor's pages and live answers, or
    only "documented" in its older reference.

    Every call may raise `Unavailable` (try again), `QuotaExceeded` (wait for the next day), `Misconfigured`
    (key, address, or a service that lacks the call) and `Rejected` (do not send the same again); a
    method names only what it raises beside. An id is the vendor's text: one that is empty or has a `/` is
    a `ValueError`, one that nobody knows is `NotFound`. Pages count from 1; times are ISO-8601 texts
    as they came. A call that makes or deletes something and fails with `maybe_stored` (a time-out, any
    5xx, an odd success) may have done it: look at the list before you try again.
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
        """Return a page of the account's pixels, 1 to 1000 of them; `ValueError` for another size.

        `GET /pixels?page=&page_size=`: `{data: […], total_records | total, …}`. Reference: Pixels API,
        List Pixels.
        """
        answer = await self._http.send(PIXELS.list_request(page, page_size))
        return PIXELS.read_list(answer, page, page_size)

    def pixels(self, page_size: int = PAGE_SIZE) -> AsyncGenerator[Pixel]:
        """Yield all pixels, page by page as `list_pixels`; one may come twice when the list changes meanwhile.

        Raises what `walk` does. Reference: Pixels API, List Pixels.
        """
        return self._every(lambda page: self.list_pixels(page, page_size))

    async def pixel(self, pixel_id: str) -> Pixel:
        """Return one pixel: found in the list (observed), or asked for by its id (documented).

        *pixel_id* is AudienceLab's own id, not the one of events. Raises `NotFound`. Reference: Pixels API,
        Get Pixel by ID.
        """
        request = PIXELS.get_request(pixel_id)

        async def find() -> Pixel:
            return await self._find(self.pixels(), pixel_id, PIXELS.word)

        return await self._speak("pixel", find, self._form(request, PIXELS.read_one))

    async def create_pixel(
        self,
        website_name: str,
        website_url: str,
        webhook_url: str | None = None,
        version: str | None = None,
    ) -> CreatedPixel:
        """Make a pixel; return its id and its install URL.

        *website_url* is an address with scheme, *webhook_url* where its events are to be posted, None for
        nowhere; *version* is `v3` (the vendor's default) or `v4`, which the documented form cannot say.
        `POST /pixels`: `{websiteName, websiteUrl, webhookUrl?, version?}` → `{pixel_id, install_url}`
        (observed: API reference, Create Pixel), `{name, domain, webhook_url?}` → the pixel (Reference: Pixels API,
        Create Pixel).
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
        """Delete a pixel for good. Raises `NotFound`.

        `DELETE /pixels/{id}`: 204 (observed), or `{"success": true}` (Reference: Pixels API, Delete Pixel).
        """
        PIXELS.read_deleted(await self._http.send(PIXELS.delete_request(pixel_id)))

    async def pixel_events(
        self, pixel_id: str, page: int = 1, page_size: int = PAGE_SIZE, version: str = "v4"
    ) -> Page[dict[str, object]]:
        """Return a page of what a pixel has seen, items as its webhook delivers them, 1 to 1000 a page.

        `GET /pixels/{id}/v4`, or `/pixels/{id}` for *version* `v3`: `{events: […], total_records, …}`
        (observed; the reference has no such call). Raises `NotFound`, and `Misconfigured` for a pixel
        that is listed and has no such events: it is of the other *version*, or the service lacks the call.
        """
        request = pixels.events_request(pixel_id, page, page_size, version)
        try:
            return pixels.read_events(await self._http.send(request), page, page_size, version)
        except NotFound as failed:
            if failed.status != 404 or not await self._has_pixel(pixel_id):
                raise
            raise pixels.no_events(version, failed) from None

    async def _has_pixel(self, pixel_id: str) -> bool:
        try:
            await self.pixel(pixel_id)
        except CallFailed:
            return False
        return True

    # Audiences ---------------------------------------------------------------------------------

    async def list_audiences(self, page: int = 1, page_size: int = PAGE_SIZE) -> Page[Audience]:
        """Return a page of the account's audiences, 1 to 1000 of them; `ValueError` for another size.

        `GET /audiences?page=&page_size=`: `{data: […], total_records | total, …}`. Reference: Audiences API,
        List Audiences.
        """
        answer = await self._http.send(AUDIENCES.list_request(page, page_size))
        return AUDIENCES.read_list(answer, page, page_size)

    def audiences(self, page_size: int = PAGE_SIZE) -> AsyncGenerator[Audience]:
        """Yield all audiences, page by page as `list_audiences`; one may come twice when the list changes.

        Raises what `walk` does. Reference: Audiences API, List Audiences.
        """
        return self._every(lambda page: self.list_audiences(page, page_size))

    async def audience(self, audience_id: str) -> Audience:
        """Return one audience: found in the list (observed), or asked for by its id (documented).

        Raises `NotFound`. Reference: Audiences API, Get Audience by ID.
        """
        request = AUDIENCES.get_request(audience_id)

        async def find() -> Audience:
            return await self._find(self.audiences(), audience_id, AUDIENCES.word)

        return await self._speak("audience", find, self._form(request, AUDIENCES.read_one))

    async def audience_records(
        self, audience_id: str, page: int = 1, page_size: int = PAGE_SIZE
    ) -> Page[dict[str, object]]:
        """Return a page of an audience's people, UPPER_CASE columns, values as they came, 1 to 1000 a page.

        An audience that is still being made has an empty page. `GET /audiences/{id}?page=&page_size=`: `{data,
        total_records, …}` (observed in live answers; the reference answers the audience itself there,
        which is `Misconfigured`). Raises `NotFound`.
        """
        request = AUDIENCES.contents_request(audience_id, page, page_size)
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
        """Make an audience and return its id. It is filled in some minutes.

        *filters* is an object for the observed form, `{"city": ["Bergen"], "age": {"minAge": 30}}`,
        and is said in the documented one where it can be; an array of `{field, operator, value}` is
        for the documented form only. *segment* are ids, *days_back* days; only the observed form has them.
        *description* and *webhook_url* only the documented one has: what cannot be said in one form is never left
        out, and what can be said in none is a `ValueError`, as are no filters at all.

        `POST /audiences`: `{name, filters: {…}, segment?, days_back?}` → `{audienceId}` (observed), `{name,
        filters: […], description?, webhook_url?}` → the audience (Reference: Audiences API, Create Audience).
        """
        observed: Form[str] | None = None
        documented: Form[str] | None = None
        read, more = audiences.read_created, (description, webhook_url)
        has_more = any(each is not None for each in more)
        if isinstance(filters, Mapping) and not has_more:
            request = audiences.create_request(name, filters, segment, days_back)
            observed = self._form(request, read)
        listed = audiences.in_documented_form(filters)
        if listed is not None and segment is None and days_back is None:
            request = audiences.documented_create_request(name, listed, *more)
            documented = self._form(request, read)
        if observed is not None:
            return await self._speak("create_audience", observed, documented, differ_in_values=True)
        if documented is None:
            raise ValueError(audiences.SAID_IN_NO_FORM)
        if has_more and self._dialects.known("create_audience") is Dialect.OBSERVED:
            raise ValueError(audiences.SAID_ON_THE_DASHBOARD)
        return await self._told_why(documented) if has_more else await documented()

    async def _told_why(self, documented: Form[T]) -> T:
        """Return what *documented* gives; a refusal tells that the observed form could not be tried."""
        try:
            return await documented()
        except Rejected as failed:
            failed.add(f"perhaps because {audiences.SAID_ON_THE_DASHBOARD}")
            raise

    async def create_custom_audience(self, topic: str, description: str) -> str:
        """Have an audience made about a topic; return the status, `processing`.

        *description* says in words who they are. `POST /audiences/custom`: `{topic, description}` → `{status}`
        (observed; the reference has no such call: `Misconfigured` there).
        """
        request = audiences.custom_request(topic, description)
        return await self._only("a topic", self._form(request, audiences.read_custom))

    async def delete_audience(self, audience_id: str) -> None:
        """Delete an audience for good. Raises `NotFound`.

        `DELETE /audiences/{id}`: `{"success": true}` (Reference: Audiences API, Delete Audience; any other 2xx that
        does not deny it is taken, too).
        """
        AUDIENCES.read_deleted(await self._http.send(AUDIENCES.delete_request(audience_id)))

    async def attributes(self, kind: str | None = None) -> list[Attribute]:
        """Return what audiences can be filtered by: of one kind of `KINDS`, or of all.

        `GET /audiences/attributes/{kind}` (observed in live answers): one call, for all kinds one call each. Without
        a kind also `GET /audiences/attributes` (Reference: Audiences API, Get Audience Attributes).
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
        """Return a sample of the people that *filters* or segments fit: a count, and rows with UPPER_CASE columns.

        *filters* are as for `create_audience`. *days_back* is 1 to 10 days, *limit* 0 to 500 rows, `ValueError`
        otherwise. `POST /audiences/preview` → `{job_id, count, result, field_coverage}` (observed;
        the reference has no such call: `Misconfigured` there).
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
        """Return a page of a segment's rows, newest first, UPPER_CASE columns, values as they came.

        *segment_id* comes from Studio: no call lists segments. *page_size* is 1 to 10 000 rows, else `ValueError`; at
        3 KB a row an answer of more than 5000 is too large for us. `GET /segments/{id}?page=&page_size=` →
        `{data, total_records, …}` (observed in live answers; Reference: Segments API, Get Segment Data,
        up to 100 rows). Raises `NotFound`.
        """
        request = segments.page_of_request(segment_id, page, page_size)
        return segments.read_rows(await self._http.send(request), page, page_size)

    def segment_rows(
        self, segment_id: str, page_size: int = PAGE_SIZE
    ) -> AsyncGenerator[dict[str, object]]:
        """Yield all rows of a segment, page by page as `segment_page`; some may come twice when it changes.

        Raises what `walk` does. Reference: Segments API, Get Segment Data.
        """
        return self._every(lambda page: self.segment_page(segment_id, page, page_size))

    # Enrichment --------------------------------------------------------------------------------

    async def enrich(
        self,
        email: str | None = None,
        hem_sha256: str | None = None,
        phone: str | None = None,
    ) -> list[dict[str, object]]:
        """Return the people behind one fact, UPPER_CASE columns; nobody: empty.

        *email* is a plain address, *hem_sha256* 64 hex digits, *phone* digits; exactly one must be given, else
        `ValueError`. Raises what `enrich_by` does. Reference: Enrichment API, Enrich Single Contact.
        """
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

        Names of facts are email, phone, first_name, company_domain…, none at all is a `ValueError`; *fields* narrows
        the columns. `POST /enrich`: `{filter, is_or_match, fields?}` → `{found, result: […]}` (observed). `POST
        /enrich/contact`: `{email, fields?}` (Reference: Enrichment API, Enrich Single Contact) knows an address
        only: at a service of this form any other fact is `Misconfigured`, and `can_enrich_by` knows from then on.
        """
        if not facts:
            raise ValueError("give at least one fact to find a person by")
        request = enrichment.enrich_request(facts, is_or_match=is_or_match, fields=fields)
        observed = self._form(request, enrichment.read_enrich)
        if set(facts) == {"email"}:
            by_address = enrichment.documented_enrich_request(facts["email"], fields)
            documented = self._form(by_address, enrichment.read_documented_enrich)
            return await self._speak("enrich", observed, documented)
        try:
            return await self._only("people by anything but one address", observed)
        except Misconfigured as failed:
            if failed.status in (404, 405) and self._dialects.known("enrich") is None:
                await self._find_out_form()
            raise

    async def _find_out_form(self) -> None:
        """Note it when the service speaks the documented form: by the list of jobs, which has two forms and is free."""
        try:
            await self.list_enrichment_jobs(1, 1)
        except CallFailed:
            return
        if self._dialects.known("list_enrichment_jobs") is Dialect.DOCUMENTED:
            self._dialects.learn("enrich", Dialect.DOCUMENTED)

    def can_enrich_by(self, fact: str) -> bool:
        """Whether `enrich` can ask by *fact*: email, hem_sha256 or phone.

        The documented form knows an address only. While nobody knows which form the service speaks,
        all can be tried; a fact that cannot be asked by lets the form be found out.
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
        *operator* `OR` or `AND`, *fields* the columns that are wanted back, else all; `ValueError` for no records,
        no columns, another operator. The observed form, `POST /enrichments`: `{name, operator, columns, records}` →
        `{jobId}`, has no fields; the documented one, `POST /enrichment/jobs`: `{contacts, fields?}`, has
        neither name nor columns nor operator (Reference: Enrichment API, Create Enrichment Job).
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
        """Return a page of the account's jobs, 1 to 1000 of them; `ValueError` for another size.

        `GET /enrichments` (observed), or `GET /enrichment/jobs` (Reference: Enrichment API, List Enrichment Jobs):
        `{data: [{id, name, status, csv_url, total, created_at}], …}`.
        """

        def form(path: str) -> Form[Page[EnrichmentJob]]:
            request = enrichment.list_request(page, page_size, path)
            return self._form(request, lambda a: enrichment.read_list(a, page, page_size, path))

        return await self._speak(
            "list_enrichment_jobs",
            form(enrichment.JOBS_PATH),
            form(enrichment.DOCUMENTED_JOBS_PATH),
        )

    async def enrichment_job(self, job_id: str) -> EnrichmentJob:
        """Return one job: found in the list (observed), or asked for by its id (documented).

        Raises `NotFound`. Reference: Enrichment API, Get Enrichment Job.
        """
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
        fails for a while is repeated. Raises `Unavailable` when it is not over after *deadline_s* seconds:
        the job goes on at the vendor's, and can be waited for again. Raises `NotFound`. Reference: Enrichment API,
        Get Enrichment Job.
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
        """Yield the rows of a completed job's result file, UPPER_CASE columns, texts as they came; nobody: none.

        The file, CSV packed or plain, is streamed from the job's `csv_url` (observed); our key is not sent along.
        Raises `Unavailable` while the job is not over and for a file that breaks off (rows that came
        are good), `Rejected` for a job that has failed or a file that is refused, `NotFound` for one that is gone.
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

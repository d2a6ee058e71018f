"""Enrichment: finding one person by facts at once, or many by a job with a result file.

What may go wrong: keys it does not know are refused with 400, "nobody found" may come as a 200 with
a status in words, and the same column is spelt lower-case in the vendor's pages and UPPER_CASE in
live answers. A job is made with `jobId` and listed with `id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.clients.audiencelab.answers import (
    folded,
    is_failure,
    number,
    piece,
    refused,
    text,
    upper_case,
)
from workers.clients.audiencelab.pages import Page, page_request, read_items
from workers.clients.messages import Answer, Request, json_bytes

ENRICH_PATH = "/enrich"
DOCUMENTED_ENRICH_PATH = "/enrich/contact"
JOBS_PATH = "/enrichments"
DOCUMENTED_JOBS_PATH = "/enrichment/jobs"
JOB = "enrichment job"

#: Jobs a page (observed).
MOST_JOBS = 1000

#: What the columns of a job may be; of the vendor's pages and live answers.
COLUMNS = (
    *("EMAIL", "PERSONAL_EMAIL", "BUSINESS_EMAIL", "FIRST_NAME", "LAST_NAME", "PHONE"),
    *("PERSONAL_ADDRESS", "PERSONAL_CITY", "PERSONAL_STATE", "PERSONAL_ZIP"),
    *("COMPANY_NAME", "COMPANY_DOMAIN", "COMPANY_INDUSTRY", "SHA256_PERSONAL_EMAIL"),
    *("LINKEDIN_URL", "UP_ID"),
)

#: A job's states. Words that are not among them are kept as they came.
IN_QUEUE, PROCESSING, COMPLETED = "IN_QUEUE", "PROCESSING", "COMPLETED"
NO_DATA, FAILED = "NO_DATA", "FAILED"

_NOBODY = frozenset({"not_found", "no_data", "no data"})
# Spellings seen beside the documented ones; "submitted" is the vendor's own first state.
_STATES = {"SUBMITTED": IN_QUEUE, "QUEUED": IN_QUEUE, "NODATA": NO_DATA}
_KNOWN_STATES = (IN_QUEUE, PROCESSING, COMPLETED, NO_DATA, FAILED)

# What tells a person that stands alone in an answer from anything else.
_OF_PEOPLE = frozenset({"UUID", "UP_ID", "FIRST_NAME", "LAST_NAME", "EMAIL", *COLUMNS})


@dataclass(frozen=True, slots=True)
class EnrichmentJob:
    """A job: *status* as above, *csv_url* of its result file, *total* rows, *created_at* ISO-8601."""

    id: str
    name: str | None
    status: str
    csv_url: str | None = None
    total: int | None = None
    created_at: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is completed, failed, or has found nobody."""
        return self.status in (COMPLETED, NO_DATA, FAILED)


def enrich_request(
    facts: Mapping[str, str],
    *,
    is_or_match: bool = True,
    fields: Sequence[str] | None = None,
    request_id: str | None = None,
) -> Request:
    """Return the request for people whom *facts* fit: any of them, or all of them.

    Nothing optional is sent unasked: AudienceLab refuses keys it does not know.
    """
    form: dict[str, object] = {"filter": dict(facts), "is_or_match": is_or_match}
    if fields is not None:
        form["fields"] = list(fields)
    if request_id is not None:
        form["request_id"] = request_id
    return Request("POST", ENRICH_PATH, json_bytes(form))


def read_enrich(answer: Answer) -> list[dict[str, object]]:
    """Return the people found, columns in UPPER_CASE, values as they came; nobody: empty.

    Raises the `CallFailed` that *answer* means.
    """
    if answer.is_success:
        rows = _rows({name.lower(): value for name, value in answer.members().items()})
        if rows is not None:
            return [upper_case(row) for row in rows]
    raise refused(answer, ENRICH_PATH)


def _rows(members: Mapping[str, object]) -> list[dict[str, object]] | None:
    """Return the rows of an answer's object, or None when it is not an enrichment at all."""
    if str(members.get("status", "")).lower() in _NOBODY:
        return []
    if members.get("error"):
        return None
    result = members.get("result")
    if result == [] or (not result and members.get("found") == 0):
        return []
    found = result if isinstance(result, list) else [result]
    return [row for row in found if isinstance(row, dict)] or None


def documented_enrich_request(email: str, fields: Sequence[str] | None = None) -> Request:
    """Return the documented request for one address: `{email, fields}`; without fields, all."""
    form: dict[str, object] = {"email": email}
    if fields is not None:
        form["fields"] = list(fields)
    return Request("POST", DOCUMENTED_ENRICH_PATH, json_bytes(form))


def read_documented_enrich(answer: Answer) -> list[dict[str, object]]:
    """Return the person found, who may stand under `result`, `data`, `contact`, or alone.

    The older reference does not say how it is answered, so nothing is taken for a person that has
    none of a person's columns.
    """
    members = {name.lower(): value for name, value in answer.members().items()}
    if answer.is_success and not members.get("error"):
        rows = _rows(members)
        for name in ("data", "contact"):
            if rows is None and members.get(name):
                rows = _rows({"result": members[name]})
        if rows is None and _OF_PEOPLE & {name.upper() for name in members}:
            rows = [members]
        if rows is not None:
            return [upper_case(row) for row in rows]
    raise refused(answer, DOCUMENTED_ENRICH_PATH)


def create_request(
    name: str,
    records: Sequence[Mapping[str, object]],
    columns: Sequence[str],
    operator: str = "OR",
) -> Request:
    """Return the observed request for a job; record keys leave in lower case, columns in upper.

    *columns* say what each record is matched by, *operator* `OR` or `AND` whether by any or by all.
    """
    _check(records, columns)
    if operator not in ("OR", "AND"):
        raise ValueError("the operator of an enrichment job is OR or AND")
    form = {
        "name": name,
        "operator": operator,
        "columns": [column.upper() for column in columns],
        "records": [_lower_case(record) for record in records],
    }
    return Request("POST", JOBS_PATH, json_bytes(form))


def documented_create_request(
    records: Sequence[Mapping[str, object]], fields: Sequence[str] | None = None
) -> Request:
    """Return the documented request for a job: *fields* are the columns wanted back, None for all.

    It has neither name nor operator, and finds out by itself what to match by.
    """
    form: dict[str, object] = {"contacts": [_lower_case(record) for record in records]}
    if fields is not None:
        form["fields"] = [column.upper() for column in fields]
    return Request("POST", DOCUMENTED_JOBS_PATH, json_bytes(form))


def _check(records: Sequence[object], columns: Sequence[object]) -> None:
    if not records or not columns:
        raise ValueError("an enrichment job needs records and columns")


def _lower_case(record: Mapping[str, object]) -> dict[str, object]:
    return {name.lower(): value for name, value in record.items()}


def read_created(answer: Answer, path: str = JOBS_PATH) -> str:
    """Return the new job's id: 202 `{jobId, status}` (observed); `id` is taken too."""
    members = answer.members()
    told = folded(members)
    new_id = text(told.get("jobid")) or text(told.get("id"))
    if not answer.is_success or new_id is None or is_failure(members):
        raise refused(answer, path, changes=True)
    return new_id


def list_request(page: int, page_size: int, path: str = JOBS_PATH) -> Request:
    """Return the request for a page of jobs, 1 to 1000 a page (observed)."""
    return page_request(path, page, page_size, MOST_JOBS)


def read_list(
    answer: Answer, page: int, page_size: int, path: str = JOBS_PATH
) -> Page[EnrichmentJob]:
    """Return a page of jobs, or raise the `CallFailed` that *answer* means."""
    return read_items(answer, path, page, page_size, _job)


def get_request(job_id: str) -> Request:
    """Return the request for one job: `GET /enrichment/jobs/{id}` (documented)."""
    return Request("GET", f"{DOCUMENTED_JOBS_PATH}/{piece(job_id)}")


def read_job(answer: Answer) -> EnrichmentJob:
    """Return the one job of *answer*, or raise the `CallFailed` that it means."""
    members = answer.members()
    job = _job(members)
    if job is None or not answer.is_success or members.get("error"):
        raise refused(answer, f"{DOCUMENTED_JOBS_PATH}/{{id}}", JOB)
    return job


def _job(members: Mapping[str, object]) -> EnrichmentJob | None:
    """Return a job; None for an object that is none."""
    told = folded(members)
    own_id = text(told.get("id")) or text(told.get("jobid"))
    status = text(told.get("status"))
    if own_id is None or status is None:
        return None
    return EnrichmentJob(
        own_id,
        text(told.get("name")),
        state(status),
        text(told.get("csvurl")),
        number(told.get("total")),
        text(told.get("createdat")),
    )


def state(word: str) -> str:
    """Return a job's state in its own spelling: `no data` is NO_DATA; unknown words stay."""
    spelt = "_".join(word.upper().replace("-", " ").split())
    spelt = _STATES.get(spelt, spelt)
    return spelt if spelt in _KNOWN_STATES else word

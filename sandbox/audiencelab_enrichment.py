"""AudienceLab's enrichment: of one person at once, of many as a job with a result file.

A job is moved on by being looked at, alone or in the list, and by no clock: the first look finds it
IN_QUEUE, the last that `polls` counts finds its end, those between find it PROCESSING.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from itertools import islice
from time import time
from typing import Any

from sandbox.account import Account, Job
from sandbox.audiencelab_rules import (
    LIST_SIZES,
    UNKNOWN_KEY,
    envelope,
    error,
    is_texts,
    message_of,
    optional_text,
    page_asked,
    refusal,
    text_of,
    unknown,
)
from sandbox.desk import Answer, Asked, File, Handle, Refused
from sandbox.invented import person
from sandbox.memory import Memory
from sandbox.people import COLUMNS, FILTERS, Row, people_matching
from sandbox.settings import Settings

_KEYS = ("filter", "is_or_match", "fields", "request_id")
_CONTACT_KEYS = ("email", "fields")
_JOB_KEYS = ("name", "operator", "columns", "records")
_DOCUMENTED_JOB_KEYS = ("contacts", "fields")
# What a job can be asked by; its records have these names in lower case.
JOB_COLUMNS = (
    *("EMAIL", "PERSONAL_EMAIL", "BUSINESS_EMAIL", "FIRST_NAME", "LAST_NAME", "PHONE"),
    *("PERSONAL_ADDRESS", "PERSONAL_CITY", "PERSONAL_STATE", "PERSONAL_ZIP", "COMPANY_NAME"),
    *("COMPANY_DOMAIN", "COMPANY_INDUSTRY", "SHA256_PERSONAL_EMAIL", "LINKEDIN_URL", "UP_ID"),
    "JOB_TITLE",
)
_RECORD_KEYS = {name.lower() for name in JOB_COLUMNS}
_ROWS_AT_ONCE = 1000


def one(memory: Memory) -> Handle:
    """`POST /enrich` as observed."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _KEYS)
        if not isinstance(message.get("is_or_match"), bool):
            raise refusal("is_or_match is required")
        optional_text(message, "request_id")
        _check_filter(message.get("filter"))
        return _found(message, message["filter"], memory)

    return handle


def contact(memory: Memory) -> Handle:
    """`POST /enrich/contact` as documented, where only the request is told."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _CONTACT_KEYS)
        return _found(message, {"email": text_of(message, "email")}, memory)

    return handle


def _check_filter(chosen: object) -> None:
    if not isinstance(chosen, dict) or not chosen:
        raise refusal("filter is required")
    for name, value in chosen.items():
        if name not in FILTERS:
            raise refusal(f"invalid filter field: {name.upper()}")
        if not isinstance(value, str) or not value:
            raise refusal(f"invalid filter value: {name.upper()}")


def _found(message: dict[str, Any], chosen: dict[str, str], memory: Memory) -> Answer:
    fields = message.get("fields", [])
    if not is_texts(fields):
        raise refusal("fields is an array of strings")
    names = {each.upper() for each in fields}
    people = people_matching(chosen, any_will_do=message.get("is_or_match", True))
    if names:
        people = [{k: v for k, v in row.items() if k in names} for row in people]
    memory.keep_enrich_request(message, len(people))
    echo = {"request_id": message["request_id"]} if "request_id" in message else {}
    found = {"timestamp": int(time() * 1000), "found": len(people), "result": people}
    return Answer(200, echo | found, len(people))


def job_created(account: Account) -> Handle:
    """`POST /enrichments` as observed: 202, and a job that is called `jobId` only here."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _JOB_KEYS)
        name = text_of(message, "name")
        if message.get("operator") not in ("OR", "AND"):
            raise refusal("operator is OR or AND")
        columns = message.get("columns")
        if not is_texts(columns) or not columns:
            raise refusal("columns is required: an array of strings")
        for column in columns:
            if column not in JOB_COLUMNS:
                raise refusal(f"unsupported column {column}")
        records = _records(message.get("records"), "records")
        job = _add(account, name, _rows_of(records, any_will_do=message["operator"] == "OR"))
        return Answer(202, {"jobId": job.id, "status": "IN_QUEUE"}, len(records))

    return handle


def job_created_as_documented(account: Account) -> Handle:
    """`POST /enrichment/jobs` as documented; what is answered is told nowhere."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked, _DOCUMENTED_JOB_KEYS)
        fields = message.get("fields", [])
        if not is_texts(fields):
            raise refusal("fields is an array of strings")
        contacts = _records(message.get("contacts"), "contacts")
        job = _add(account, "", _rows_of(contacts, any_will_do=True), prefix="job_")
        job.columns = [name for name in COLUMNS if name in fields] or list(COLUMNS)
        return Answer(201, {"id": job.id, "status": "IN_QUEUE"}, len(contacts))

    return handle


def _records(records: object, name: str) -> list[dict[str, str]]:
    if not isinstance(records, list) or not records:
        raise refusal(f"{name} is required and not empty")
    for each in records:
        if not isinstance(each, dict) or set(each) - _RECORD_KEYS:
            raise refusal(UNKNOWN_KEY)
        if not each or not all(isinstance(value, str) for value in each.values()):
            raise refusal(f"each of {name} has texts in it")
    return records


def _rows_of(records: Iterable[dict[str, str]], *, any_will_do: bool) -> list[Row]:
    """Return the people whom the records find, each once, in the order of the records."""
    found: dict[str, Row] = {}
    for record in records:
        chosen = {name: value for name, value in record.items() if name in FILTERS and value}
        for row in people_matching(chosen, any_will_do=any_will_do) if chosen else ():
            found.setdefault(row["UUID"], row)
    return list(found.values())


def _add(account: Account, name: str, rows: list[Row], prefix: str = "") -> Job:
    own_id = prefix + account.new_id("job")
    account.jobs[own_id] = Job(own_id, name, rows, account.new_moment())
    return account.jobs[own_id]


def jobs_listed(account: Account, settings: Settings) -> Handle:
    """`GET /enrichments`: the newest first."""

    def handle(asked: Asked) -> Answer:
        page = page_asked(asked, len(account.jobs), LIST_SIZES, settings)
        jobs = page.cut_from(list(reversed(account.jobs.values())))
        data = [_shown(job, asked, settings) for job in jobs]
        return Answer(200, envelope(page, settings, data=data), len(data))

    return handle


def job(account: Account, settings: Settings) -> Handle:
    """`GET /enrichments/{id}`: one job, as the list shows it."""

    def handle(asked: Asked) -> Answer:
        found = account.jobs.get(asked.piece("id"))
        if found is None:
            raise unknown("Job")
        return Answer(200, _shown(found, asked, settings), 1)

    return handle


def _shown(job: Job, asked: Asked, settings: Settings) -> dict[str, Any]:
    job.looks += 1
    status = _status(job, settings)
    is_done = status == "COMPLETED"
    return {
        "id": job.id,
        "name": job.name,
        "status": status,
        "csv_url": _csv_url(job, asked, settings) if is_done else None,
        "total": _count(job, settings) if is_done else 0,
        "created_at": job.created_at,
    }


def _status(job: Job, settings: Settings) -> str:
    if job.looks < settings.polls or settings.job_end == "never":
        return "IN_QUEUE" if job.looks == 1 else "PROCESSING"
    return settings.job_end or ("COMPLETED" if _count(job, settings) else "NO_DATA")


def _count(job: Job, settings: Settings) -> int:
    return len(job.rows) if settings.result_rows is None else settings.result_rows


def _csv_url(job: Job, asked: Asked, settings: Settings) -> str:
    if settings.result_file == "gs":
        return f"gs://sandbox/results/{job.id}.csv.gz"
    # The stand-in's own address: what was called, up to where it is mounted.
    here = asked.request.url.replace(path=asked.request.scope["root_path"], query="")
    return f"{here}/results/{job.id}.{settings.result_file}"


def result_file(account: Account, settings: Settings) -> Handle:
    """`GET /results/{id}.csv[.gz]`: a store of files, which is none of AudienceLab's.

    It asks for no key and refuses one: whoever shows it here has shown it to a stranger.
    """

    def handle(asked: Asked) -> Answer:
        headers = asked.request.headers
        if "authorization" in headers or "x-api-key" in headers:
            raise Refused(error(400, "KEY_SHOWN", "AudienceLab's key is no business of this store"))
        name, _, form = asked.piece("file").partition(".")
        found = account.jobs.get(name)
        if found is None or form not in ("csv", "csv.gz"):
            raise unknown("File")
        count = _count(found, settings)
        made = settings.result_rows is not None
        rows = (person(n) for n in range(count)) if made else iter(found.rows)
        table = _csv(rows, found.columns or COLUMNS)
        if form == "csv":
            return Answer(200, File(b"".join(table), "text/csv"), count)
        return Answer(200, File(b"".join(_zipped(table)), "application/gzip"), count)

    return handle


def _csv(rows: Iterator[Row], columns: Sequence[str] = COLUMNS) -> Iterator[bytes]:
    """Yield a CSV of *columns*, a thousand rows at once."""
    yield _lines([columns])
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield _lines([[row[name] for name in columns] for row in some])


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _zipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield *pieces* as one gzip file, whose bytes are the same at any time."""
    # 16 beside the window asks for gzip's head and tail.
    zipper = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for piece in pieces:
        yield zipper.compress(piece)
    yield zipper.flush()

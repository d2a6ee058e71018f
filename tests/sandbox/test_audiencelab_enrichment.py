"""Enrichment jobs of AudienceLab's stand-in: moved on by looks, ended with a file."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable
from io import StringIO
from typing import Any

import httpx
import pytest

from sandbox import faults
from sandbox.people import COLUMNS
from sandbox.settings import Settings

pytestmark = pytest.mark.anyio

ASKED: dict[str, Any] = {
    "name": "Readers",
    "operator": "OR",
    "columns": ["EMAIL", "FIRST_NAME"],
    "records": [{"email": "mara.quill@example.com"}, {"email": "nobody@example.com"}],
}


async def _made(lab: httpx.AsyncClient, **more: object) -> str:
    answer = await lab.post("/enrichments", json=ASKED | more)
    assert answer.status_code == 202
    told: dict[str, str] = answer.json()
    assert told == {"jobId": told["jobId"], "status": "IN_QUEUE"}
    return told["jobId"]


async def _look(lab: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await lab.get(f"/enrichments/{job_id}")).json()
    return found


async def _file(url: str, app: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as stranger:
        return await stranger.get(url, headers=headers)


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


async def test_a_job_is_moved_on_by_looks(lab: httpx.AsyncClient) -> None:
    """Queued at the first look, done at the third, and as it is from then on."""
    job_id = await _made(lab)
    looks = [await _look(lab, job_id) for _ in range(4)]
    statuses = [each["status"] for each in looks]
    assert statuses == ["IN_QUEUE", "PROCESSING", "COMPLETED", "COMPLETED"]
    assert [each["csv_url"] for each in looks[:2]] == [None, None]
    assert set(looks[0]) == {"id", "name", "status", "csv_url", "total", "created_at"}
    assert (looks[3]["id"], looks[3]["name"], looks[3]["total"]) == (job_id, "Readers", 1)


async def test_the_list_is_a_look_at_all_of_them(lab: httpx.AsyncClient) -> None:
    """The newest comes first, under its name, and the list moves them on as well."""
    ids = [await _made(lab, name=name) for name in ("first", "second")]
    pages = [(await lab.get("/enrichments")).json() for _ in range(3)]
    data = pages[2].pop("data")
    assert [(each["id"], each["name"]) for each in data] == [(ids[1], "second"), (ids[0], "first")]
    assert {each["status"] for each in data} == {"COMPLETED"}
    assert data[0]["created_at"] > data[1]["created_at"]
    assert pages[2] == {"total_records": 2, "page_size": 100, "page": 1, "total_pages": 1}
    assert (await lab.get("/enrichments?page_size=1001")).status_code == 400


@pytest.mark.parametrize(
    ("end", "statuses"),
    [
        ("FAILED", ["IN_QUEUE", "PROCESSING", "FAILED"]),
        ("no data", ["IN_QUEUE", "PROCESSING", "no data"]),
        ("never", ["IN_QUEUE", "PROCESSING", "PROCESSING"]),
    ],
)
async def test_a_job_ends_as_it_is_told(
    lab: httpx.AsyncClient, settings: Settings, end: str, statuses: list[str]
) -> None:
    """Failed, empty in another spelling, or never; none of these has a file."""
    settings.job_end = end
    job_id = await _made(lab)
    looks = [await _look(lab, job_id) for _ in range(3)]
    assert [each["status"] for each in looks] == statuses
    assert [(each["csv_url"], each["total"]) for each in looks] == [(None, 0)] * 3


async def test_a_job_that_finds_nobody_has_no_data(
    lab: httpx.AsyncClient, settings: Settings
) -> None:
    """An end of its own, without a file."""
    settings.polls = 1
    found = await _look(lab, await _made(lab, records=[{"email": "nobody@example.com"}]))
    assert (found["status"], found["csv_url"], found["total"]) == ("NO_DATA", None, 0)


@pytest.mark.parametrize(("operator", "found"), [("OR", 2), ("AND", 0)])
async def test_the_operator_widens_or_narrows_each_record(
    lab: httpx.AsyncClient, settings: Settings, operator: str, found: int
) -> None:
    """A record finds who meets any, or all, of what it says; a person is found once."""
    settings.polls = 1
    record = {"email": "mara.quill@example.com", "first_name": "Tobias"}
    job_id = await _made(lab, operator=operator, records=[record, record])
    assert (await _look(lab, job_id))["total"] == found


@pytest.mark.parametrize(
    ("form", "unpack"),
    [("csv.gz", lambda raw: gzip.decompress(raw).decode()), ("csv", bytes.decode)],
)
async def test_the_file_has_the_74_columns(
    lab: httpx.AsyncClient,
    app: Any,
    settings: Settings,
    form: Any,
    unpack: Callable[[bytes], str],
) -> None:
    """It is a CSV, zipped or not, at an address of its own that asks for no key."""
    settings.result_file, settings.polls = form, 1
    url = (await _look(lab, await _made(lab)))["csv_url"]
    assert url.startswith("http://sandbox/audiencelab/results/")
    assert url.endswith(f".{form}")
    answer = await _file(url, app)
    assert "Content-Encoding" not in answer.headers
    [row] = _rows(unpack(answer.content))
    assert tuple(row) == COLUMNS
    assert (row["FIRST_NAME"], row["COMPANY_NAME"]) == ("Mara", "Harbour Lamps, LLC")
    assert (await _file(url, app)).content == answer.content


@pytest.mark.parametrize("name", ["X-Api-Key", "Authorization"])
async def test_the_file_refuses_the_key(
    lab: httpx.AsyncClient, app: Any, settings: Settings, name: str
) -> None:
    """Files lie with somebody else: who sends the key there has given it away."""
    settings.polls = 1
    url = (await _look(lab, await _made(lab)))["csv_url"]
    answer = await _file(url, app, **{name: "sandbox"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "KEY_SHOWN")
    assert (await _file(f"{url}.zip", app)).status_code == 404
    assert (await _file("http://sandbox/audiencelab/results/nobody.csv", app)).status_code == 404


async def test_the_file_may_be_in_a_bucket(lab: httpx.AsyncClient, settings: Settings) -> None:
    """The vendor's page shows an address that is no link."""
    settings.result_file, settings.polls = "gs", 1
    job_id = await _made(lab)
    assert (await _look(lab, job_id))["csv_url"] == f"gs://sandbox/results/{job_id}.csv.gz"


async def test_the_file_can_have_any_number_of_rows(
    lab: httpx.AsyncClient, app: Any, settings: Settings
) -> None:
    """Invented people take the place of those found, as many as are set."""
    settings.result_rows, settings.polls = 2500, 1
    found = await _look(lab, await _made(lab))
    rows = _rows(gzip.decompress((await _file(found["csv_url"], app)).content).decode())
    assert found["total"] == len(rows) == len({row["UUID"] for row in rows}) == 2500


async def test_the_file_can_be_cut_off(
    lab: httpx.AsyncClient, app: Any, settings: Settings
) -> None:
    """Half a file is a gzip stream without its end."""
    settings.result_rows, settings.polls = 2500, 1
    url = (await _look(lab, await _made(lab)))["csv_url"]
    app.state.faults.add(faults.cut_off("enrichment-file"))
    unzip = zlib.decompressobj(wbits=31)
    unzip.decompress((await _file(url, app)).content)
    assert not unzip.eof


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": ""}, "name is required"),
        ({"operator": "or"}, "operator is OR or AND"),
        ({"columns": []}, "columns is required: an array of strings"),
        ({"columns": ["EMAIL", "LUCK"]}, "unsupported column LUCK"),
        ({"columns": ["email"]}, "unsupported column email"),
        ({"records": []}, "records is required and not empty"),
        ({"records": [{"EMAIL": "a"}]}, "Malformed JSON/Unknown Field detected: <nil>"),
        ({"records": ["a"]}, "Malformed JSON/Unknown Field detected: <nil>"),
        ({"records": [{}]}, "each of records has texts in it"),
        ({"records": [{"email": 5}]}, "each of records has texts in it"),
        ({"webhook_url": "a"}, "Malformed JSON/Unknown Field detected: <nil>"),
    ],
)
async def test_what_makes_no_job(lab: httpx.AsyncClient, more: dict[str, Any], words: str) -> None:
    """Columns are in upper case, records in lower case, and all four keys are needed."""
    answer = await lab.post("/enrichments", json=ASKED | more)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, words)
    assert (await lab.get("/enrichments")).json()["data"] == []


async def test_an_unknown_job_is_not_found(lab: httpx.AsyncClient) -> None:
    """An id that no job has is a 404."""
    assert (await lab.get("/enrichments/nobody")).status_code == 404


async def test_jobs_as_documented(lab: httpx.AsyncClient, settings: Settings) -> None:
    """Contacts and fields make a job; list and job are at paths of their own."""
    settings.dialect, settings.polls = "documented", 1
    body = {"contacts": [{"email": "mara.quill@example.com"}], "fields": ["JOB_TITLE"]}
    made = await lab.post("/enrichment/jobs", json=body)
    assert (made.status_code, made.json()["status"]) == (201, "IN_QUEUE")
    listed = (await lab.get("/enrichment/jobs")).json()
    assert set(listed) == {"data", "total"}
    job_id = made.json()["id"]
    assert (await lab.get(f"/enrichment/jobs/{job_id}")).json() == listed["data"][0]
    assert listed["data"][0]["status"] == "COMPLETED"
    assert (await lab.get("/enrichment/jobs?page_size=101")).status_code == 400
    assert (await lab.post("/enrichment/jobs", json={"contacts": []})).status_code == 400


async def test_one_contact_as_documented(lab: httpx.AsyncClient, settings: Settings) -> None:
    """An address finds its person; without one there is nothing to ask."""
    settings.dialect = "documented"
    body = {"email": "mara.quill@example.com", "fields": ["LAST_NAME"]}
    told = (await lab.post("/enrich/contact", json=body)).json()
    assert (told["found"], told["result"]) == (1, [{"LAST_NAME": "Quill"}])
    assert (await lab.post("/enrich/contact", json={"fields": []})).status_code == 400

"""The stand-in for AudienceLab speaks one dialect at a time, and errs in every shape."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sandbox.memory import Memory
from sandbox.settings import Settings

pytestmark = pytest.mark.anyio

UNKNOWN_KEY = "Malformed JSON/Unknown Field detected: <nil>"
OBSERVED_ONLY = [
    ("GET", "/pixels/pixel-5/v4"),
    ("GET", "/audiences/attributes/sic"),
    ("POST", "/audiences/preview"),
    ("POST", "/audiences/custom"),
    ("POST", "/enrich"),
    ("POST", "/enrichments"),
    ("GET", "/enrichments"),
    ("GET", "/enrichments/5"),
]
DOCUMENTED_ONLY = [
    ("POST", "/enrich/contact"),
    ("POST", "/enrichment/jobs"),
    ("GET", "/enrichment/jobs"),
    ("GET", "/enrichment/jobs/5"),
]


@pytest.mark.parametrize(
    ("dialect", "method", "path"),
    [
        *(("documented", *each) for each in OBSERVED_ONLY),
        *(("observed", *each) for each in DOCUMENTED_ONLY),
    ],
)
async def test_the_other_dialects_paths_are_not_there(
    lab: httpx.AsyncClient, settings: Settings, memory: Memory, dialect: Any, method: str, path: str
) -> None:
    """A path of the other dialect is answered as any unknown path, and counts as no call."""
    settings.dialect = dialect
    answer = await lab.request(method, path)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Not found")
    assert memory.calls.total() == 0


@pytest.mark.parametrize(
    ("dialect", "path", "body"),
    [
        ("observed", "/pixels", {"name": "Inn", "domain": "example.com"}),
        ("observed", "/pixels", {"website_name": "Inn", "website_url": "https://example.com"}),
        ("observed", "/audiences", {"name": "a", "filters": {"city": ["b"]}, "webhook_url": "c"}),
        ("observed", "/enrichments", {"contacts": [{"email": "a@example.com"}], "fields": []}),
        ("documented", "/pixels", {"websiteName": "Inn", "websiteUrl": "https://example.com"}),
        ("documented", "/audiences", {"name": "a", "filters": [], "days_back": 1}),
        ("documented", "/enrich/contact", {"filter": {"email": "a"}, "is_or_match": True}),
        ("documented", "/enrichment/jobs", {"name": "a", "operator": "OR"}),
    ],
)
async def test_the_other_dialects_keys_are_unknown(
    lab: httpx.AsyncClient, settings: Settings, dialect: Any, path: str, body: object
) -> None:
    """A request in the other form is refused in the vendor's words."""
    settings.dialect = dialect
    answer = await lab.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, UNKNOWN_KEY)


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("object", {"error": {"code": "NOT_FOUND", "message": "Pixel not found", "details": {}}}),
        ("text", {"error": "Pixel not found", "status": 404}),
        ("message", {"message": "Pixel not found"}),
    ],
)
async def test_errors_come_in_the_shape_that_is_set(
    lab: httpx.AsyncClient, settings: Settings, shape: Any, body: object
) -> None:
    """Three shapes were seen; the same error can be had in each, also for key and path."""
    settings.error_shape = shape
    answer = await lab.get("/pixels/nobody")
    assert (answer.status_code, answer.json()) == (404, body)
    wrong_key = await lab.get("/pixels", headers={"X-API-Key": "wrong"})
    wrong_path = await lab.get("/nowhere")
    assert (wrong_key.status_code, wrong_path.status_code) == (401, 404)
    assert set(wrong_key.json()) == set(wrong_path.json()) == set(body)  # type: ignore[call-overload]


@pytest.mark.parametrize("dialect", ["observed", "documented"])
@pytest.mark.parametrize(
    "path", ["/pixels", "/audiences", "/segments/segment-1", "/pixels/pixel-5"]
)
async def test_every_call_asks_for_the_key(
    lab: httpx.AsyncClient, settings: Settings, dialect: Any, path: str
) -> None:
    """Without the key nothing is told, whichever the dialect; a bearer is as good."""
    settings.dialect = dialect
    del lab.headers["X-API-Key"]
    assert (await lab.get(path)).status_code == 401
    bearer = {"Authorization": "Bearer sandbox"}
    assert (await lab.get(path, headers=bearer)).status_code == 200

"""What the vendors' clients make of any answer: a result, or a `CallFailed` whose sentence fits a dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import orjson
from hypothesis import strategies as st

from tests.fuzz.target import Target
from tests.pipeline.mangled import ANY_JSON
from workers.clients import audiencelab, audiencepoint
from workers.clients.audiencelab import AudienceLab
from workers.clients.audiencepoint import AudiencePoint
from workers.clients.errors import LONGEST_SENTENCE, CallFailed
from workers.clients.http import VendorHttp

KEY = "key-of-nobody-0123456789"
_SAMPLES = Path(__file__).parents[1] / "samples"
_ADDRESS = "ada@example.com"
_DAY = datetime(2026, 1, 1, tzinfo=UTC)

LabCall = Callable[[AudienceLab], Awaitable[object]]
PointCall = Callable[[AudiencePoint], Awaitable[object]]

LAB: dict[str, LabCall] = {
    "list_pixels": lambda lab: lab.list_pixels(),
    "pixel": lambda lab: lab.pixel("p-1"),
    "create_pixel": lambda lab: lab.create_pixel("Inn", "https://inn.example.com"),
    "delete_pixel": lambda lab: lab.delete_pixel("p-1"),
    "pixel_events": lambda lab: lab.pixel_events("p-1"),
    "list_audiences": lambda lab: lab.list_audiences(),
    "audience": lambda lab: lab.audience("a-1"),
    "audience_records": lambda lab: lab.audience_records("a-1"),
    "create_audience": lambda lab: lab.create_audience("Guests", {"age": {"minAge": 30}}),
    "delete_audience": lambda lab: lab.delete_audience("a-1"),
    "attributes": lambda lab: lab.attributes("segments"),
    "preview": lambda lab: lab.preview(segment=["1"]),
    "segment_page": lambda lab: lab.segment_page("s-1"),
    "enrich": lambda lab: lab.enrich(email=_ADDRESS),
    "list_enrichment_jobs": lambda lab: lab.list_enrichment_jobs(),
    "create_enrichment_job": lambda lab: lab.create_enrichment_job("Job", [{"email": _ADDRESS}]),
}
POINT: dict[str, PointCall] = {
    "post_events": lambda point: point.post_events(b'{"events":[]}'),
    "subscribe": lambda point: point.subscribe([_ADDRESS]),
    "scores": lambda point: point.scores([_ADDRESS], hashed=True),
    "verify": lambda point: point.verify(_ADDRESS),
    "send_times": lambda point: point.send_times([_ADDRESS], _DAY, _DAY),
}


def targets() -> list[Target]:
    """Return one target for each vendor."""
    return [
        Target("answers of AudienceLab", _drawn(LAB), hold_audiencelab),
        Target("answers of AudiencePoint", _drawn(POINT), hold_audiencepoint),
    ]


def hold_audiencelab(call: str, answer: httpx.Response) -> None:
    """Read *answer* to a call of AudienceLab's, in the form that the client chooses."""
    _hold(
        audiencelab.VENDOR,
        audiencelab.headers(KEY),
        lambda http: LAB[call](AudienceLab(http)),
        answer,
    )


def hold_audiencepoint(call: str, answer: httpx.Response) -> None:
    """Read *answer* to a call of AudiencePoint's."""
    told = audiencepoint.headers(KEY)
    _hold(audiencepoint.VENDOR, told, lambda http: POINT[call](AudiencePoint(http)), answer)


def _hold(
    vendor: str,
    headers: Any,
    call: Callable[[VendorHttp], Awaitable[object]],
    answer: httpx.Response,
) -> None:
    async def asked() -> None:
        transport = httpx.MockTransport(lambda _: _fresh(answer))
        async with httpx.AsyncClient(transport=transport) as over:
            async with asyncio.timeout(20):
                await call(VendorHttp(vendor, "http://127.0.0.1", headers, over))

    sentence = "read"
    try:
        asyncio.run(asked())
    except CallFailed as failed:
        sentence = failed.sentence
    assert 0 < len(sentence) <= LONGEST_SENTENCE
    assert KEY not in sentence
    assert _ADDRESS not in sentence


def _fresh(answer: httpx.Response) -> httpx.Response:
    return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def _drawn(calls: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"call": st.sampled_from(sorted(calls)), "answer": _answers()})


def _answers() -> st.SearchStrategy[httpx.Response]:
    """Draw a status, headers that mean something, and a body: recorded, recorded with a part changed, any."""
    recorded = st.sampled_from(_recorded())
    near = st.builds(_changed, recorded, st.integers(0, 99), ANY_JSON)
    whole = (recorded | near | ANY_JSON).map(orjson.dumps)
    said = st.sampled_from((KEY, f"no {_ADDRESS} here", "Limit Exceeded", "Unknown Field")).map(
        lambda words: orjson.dumps({"message": words})
    )
    cut = st.tuples(whole, st.integers(0, 400)).map(lambda drawn: drawn[0][: drawn[1]])
    body = whole | whole | said | cut | st.binary(max_size=200) | st.just(b"<html>" + b"x" * 9_000)
    status = st.sampled_from((200, 200, 200, 201, 204, 400, 401, 403, 404, 422, 429, 500, 502, 504))
    text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
    headers = st.dictionaries(
        st.sampled_from(("retry-after", "x-ratelimit-reset", "date", "location", "content-type")),
        text | st.integers(-(10**20), 10**20).map(str),
        max_size=3,
    )
    return st.builds(
        partial(httpx.Response), status | st.integers(200, 599), headers=headers, content=body
    )


def _recorded() -> list[object]:
    folders = ("audiencelab-answers", "audiencepoint-answers")
    paths = sorted(chain.from_iterable((_SAMPLES / name).rglob("*.json") for name in folders))
    samples = [orjson.loads(path.read_bytes()) for path in paths]
    found = [each["answer"] for each in samples if isinstance(each, dict) and "answer" in each]
    return found or [{}]


def _changed(value: object, place: int, new: object) -> object:
    """Return *value* with *new* in one of its places, a level or two down."""
    if isinstance(value, dict) and value:
        name = sorted(value)[place % len(value)]
        inner = _changed(value[name], place // 2, new) if place % 2 else new
        return {**value, name: inner}
    if isinstance(value, list) and value:
        return [_changed(value[0], place // 2, new), *value[1:]]
    return new

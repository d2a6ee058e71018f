"""The receiver of signed webhooks takes what Standard Webhooks allows, and nothing else."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from starlette.applications import Starlette

from sandbox import crm, faults
from sandbox.app import create
from sandbox.memory import Memory

pytestmark = pytest.mark.anyio

BODY = b'{"type":"score.changed","data":{"score":5}}'
# From the standard's own examples: key, id, time, body and the signature that they make.
EXAMPLE_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EXAMPLE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
EXAMPLE_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.fixture
async def outside(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client without any key."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        yield client


def _headers(
    raw: bytes = BODY, *, webhook_id: str = "msg_1", ago_s: int = 0, key: str = crm.KEY
) -> dict[str, str]:
    timestamp = str(int(time.time()) - ago_s)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": crm.signature(key, webhook_id, timestamp, raw),
    }


def test_the_signature_is_the_standards() -> None:
    """The standard's own example comes to its own signature."""
    assert crm.signature(EXAMPLE_KEY, *EXAMPLE) == EXAMPLE_SIGNATURE


async def test_a_signed_webhook_is_kept(outside: httpx.AsyncClient, memory: Memory) -> None:
    """Its id, its time and its body as it came; the same id again is counted as repeated."""
    headers = _headers()
    for _ in range(2):
        answer = await outside.post("/crm", content=BODY, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
    kept = (await outside.get("/seen/crm")).json()
    told = {"id": "msg_1", "timestamp": headers["webhook-timestamp"], "body": BODY.decode()}
    assert kept == [told, told]
    counters = memory.counters()
    assert [counters[f"crm_{name}"] for name in ("calls", "accepted", "repeated")] == [2, 2, 1]
    assert counters["refused"] == 0


async def test_one_right_signature_of_several_will_do(outside: httpx.AsyncClient) -> None:
    """While a key is changed two signatures stand side by side, and unknown kinds are skipped."""
    headers = _headers()
    wrong = _headers(key=EXAMPLE_KEY)["webhook-signature"]
    headers["webhook-signature"] = f"v1a,abc {wrong} {headers['webhook-signature']}"
    assert (await outside.post("/crm", content=BODY, headers=headers)).status_code == 204


@pytest.mark.parametrize("gone", ["webhook-id", "webhook-timestamp", "webhook-signature"])
async def test_a_webhook_without_a_header_is_refused(
    outside: httpx.AsyncClient, memory: Memory, gone: str
) -> None:
    """All three are needed."""
    headers = {name: value for name, value in _headers().items() if name != gone}
    assert (await outside.post("/crm", content=BODY, headers=headers)).status_code == 400
    assert memory.full("crm") == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: _headers(key=EXAMPLE_KEY),
        lambda: _headers(b"another body"),
        lambda: _headers() | {"webhook-id": "msg_2"},
        lambda: _headers(ago_s=301),
        lambda: _headers(ago_s=-400),
        lambda: _headers() | {"webhook-timestamp": "1"},
        lambda: _headers() | {"webhook-signature": "nonsense"},
        lambda: {
            name: value.replace("v1,", "v2,") if name == "webhook-signature" else value
            for name, value in _headers().items()
        },
    ],
    ids=["key", "body", "id", "past", "future", "time", "signature", "version"],
)
async def test_a_wrong_signature_or_time_is_unauthentic(
    outside: httpx.AsyncClient, memory: Memory, wrong: Callable[[], dict[str, str]]
) -> None:
    """Another key, body, id or version, or a time five minutes away: 401 and nothing kept."""
    # made here and not with the list: they are about the time of the call
    assert (await outside.post("/crm", content=BODY, headers=wrong())).status_code == 401
    assert memory.counters()["crm_accepted"] == 0


async def test_a_time_that_is_none_is_refused(outside: httpx.AsyncClient) -> None:
    """The time counts seconds in digits."""
    for wrong in ("2026-03-01T00:00:00", "-5", "1" * 12):
        headers = _headers() | {"webhook-timestamp": wrong}
        assert (await outside.post("/crm", content=BODY, headers=headers)).status_code == 400


async def test_another_key_can_be_set(app: Starlette) -> None:
    """The sandbox is started with the key it is to know."""
    transport = httpx.ASGITransport(create(crm_key=EXAMPLE_KEY))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        answers = [
            (await client.post("/crm", content=BODY, headers=_headers(key=key))).status_code
            for key in (EXAMPLE_KEY, crm.KEY)
        ]
    assert answers == [204, 401]
    with pytest.raises(ValueError, match="whsec_"):
        create(crm_key="whsec_no base64")


async def test_it_fails_on_command(outside: httpx.AsyncClient, app: Starlette) -> None:
    """A failing answer keeps nothing unless it is to be kept first."""
    app.state.faults.add(faults.broken("crm", times=1), faults.stored_then_504("crm", times=1))
    statuses = [
        (await outside.post("/crm", content=BODY, headers=_headers())).status_code for _ in range(3)
    ]
    assert statuses == [500, 504, 204]
    assert len(app.state.memory.told) == 2

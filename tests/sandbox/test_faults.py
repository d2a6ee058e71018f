"""The stand-ins fail as they are told, over real connections where the connection is what fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox import faults
from sandbox.addresses import hash_of
from sandbox.app import create
from sandbox.faults import Fault
from tests.vendors import KEY, Sandbox, running_sandbox, sandbox_in_thread

HEADERS = {"X-API-Key": KEY}
CALLS = {
    "events": ("POST", "/audiencepoint/v1/events"),
    "list-subscription": ("POST", "/audiencepoint/v1/list-subscription"),
    "scores": ("POST", "/audiencepoint/v1/scores"),
    "email-verification": ("GET", "/audiencepoint/v1/email-verification"),
    "sto": ("POST", "/audiencepoint/v1/sto"),
    "enrich": ("POST", "/audiencelab/enrich"),
    "create-enrichment": ("POST", "/audiencelab/enrichments"),
    "enrichments": ("GET", "/audiencelab/enrichments"),
    "enrichment": ("GET", "/audiencelab/enrichments/1"),
    "enrichment-file": ("GET", "/audiencelab/results/1.csv"),
    "pixels": ("GET", "/audiencelab/pixels"),
    "pixel": ("GET", "/audiencelab/pixels/1"),
    "pixel-v4": ("GET", "/audiencelab/pixels/1/v4"),
    "create-pixel": ("POST", "/audiencelab/pixels"),
    "delete-pixel": ("DELETE", "/audiencelab/pixels/1"),
    "audiences": ("GET", "/audiencelab/audiences"),
    "audience": ("GET", "/audiencelab/audiences/1"),
    "create-audience": ("POST", "/audiencelab/audiences"),
    "custom-audience": ("POST", "/audiencelab/audiences/custom"),
    "delete-audience": ("DELETE", "/audiencelab/audiences/1"),
    "attributes": ("GET", "/audiencelab/audiences/attributes/sic"),
    "preview": ("POST", "/audiencelab/audiences/preview"),
    "segment": ("GET", "/audiencelab/segments/segment-1"),
    "crm": ("POST", "/crm"),
}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox under a real server."""
    with sandbox_in_thread() as running:
        yield running


def _batch(*addresses: str) -> dict[str, Any]:
    fixed = {"type": "Send", "occurred_at_utc": "2026-01-12T08:00:00", "send_id": "m-1"}
    return {"events": [{"email": each, **fixed} for each in addresses or ("a@example.com",)]}


def _post(sandbox: Sandbox, body: object, *, timeout: float = 10.0) -> httpx.Response:
    url = f"{sandbox.audiencepoint_url}/events"
    return httpx.post(url, json=body, headers=HEADERS, timeout=timeout)


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (faults.throttled("events", times=1), 429, "Too Many Requests"),
        (faults.quota_exceeded("events", times=1), 429, "Limit Exceeded"),
        (faults.broken("*", times=1), 500, "Internal server error"),
        (faults.refused_alike("events", "no"), 400, "no"),
    ],
)
def test_a_status_is_answered_and_nothing_stored(
    sandbox: Sandbox, fault: Fault, status: int, message: str
) -> None:
    """A failing status accepts nothing."""
    sandbox.faults.add(fault)
    answer = _post(sandbox, _batch())
    assert (answer.status_code, answer.json()) == (status, {"message": message})
    assert sandbox.memory.events == []


def test_a_fault_lasts_for_its_first_calls_or_until_cleared(sandbox: Sandbox) -> None:
    """A limited fault is used up, an unlimited one stays until it is lifted."""
    sandbox.faults.add(faults.broken("events", times=2), faults.refused_alike("events"))
    statuses = [_post(sandbox, _batch()).status_code for _ in range(4)]
    sandbox.faults.clear()
    assert [*statuses, _post(sandbox, _batch()).status_code] == [500, 500, 400, 400, 200]
    assert sandbox.faults.hits == 4


def test_retry_after_is_sent(sandbox: Sandbox) -> None:
    """A throttled answer carries the header it was told to."""
    sandbox.faults.add(faults.throttled("events", retry_after="7"))
    assert _post(sandbox, _batch()).headers["Retry-After"] == "7"


def test_a_text_is_sent_as_a_proxys_page(sandbox: Sandbox) -> None:
    """A body that is text comes as HTML, also with 200."""
    sandbox.faults.add(Fault(endpoint="events", status=200, body="<h1>Hello</h1>"))
    answer = _post(sandbox, _batch())
    assert (answer.status_code, answer.text) == (200, "<h1>Hello</h1>")
    assert answer.headers["Content-Type"].startswith("text/html")


def test_headers_alone_come_with_the_vendors_own_answer(sandbox: Sandbox) -> None:
    """A call that succeeds can carry headers too, as those of a limit."""
    sandbox.faults.add(Fault(endpoint="events", headers={"X-RateLimit-Remaining": "0"}, times=1))
    answers = [_post(sandbox, _batch()) for _ in range(2)]
    assert [each.headers.get("X-RateLimit-Remaining") for each in answers] == ["0", None]
    assert [set(each.json()) for each in answers] == [{"SequenceNumber", "ShardId"}] * 2


def test_half_an_answer_as_if_it_were_all(sandbox: Sandbox) -> None:
    """The body is cut in the middle and says that it is whole; the batch was stored."""
    sandbox.faults.add(faults.cut_off("events", times=1))
    half, whole = (_post(sandbox, _batch()) for _ in range(2))
    assert half.status_code == 200
    assert len(half.content) == len(whole.content) // 2
    assert half.text.startswith('{"SequenceNumber":"')
    assert len(sandbox.memory.batches) == 2


def test_half_an_answer_and_the_connections_end(sandbox: Sandbox) -> None:
    """The client has read the head and half of the body when the connection ends."""
    sandbox.faults.add(faults.cut_off("events", "connection", times=1))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        _post(sandbox, _batch())
    assert len(sandbox.memory.batches) == 1
    assert _post(sandbox, _batch()).status_code == 200


@pytest.mark.parametrize("endpoint", [each for each in faults.ENDPOINTS if each != "*"])
def test_every_endpoint_has_a_name_for_faults(sandbox: Sandbox, endpoint: str) -> None:
    """What is told to fail fails under its name, and is counted under it."""
    method, path = CALLS[endpoint]
    sandbox.faults.add(faults.broken(endpoint))
    answer = httpx.request(
        method,
        sandbox.url + path,
        headers={"Content-Type": "application/json"} | ({} if "results" in path else HEADERS),
    )
    assert answer.status_code == 500
    assert sandbox.memory.calls == {(endpoint, 500): 1}


def test_store_then_504_makes_the_retry_a_repetition(sandbox: Sandbox) -> None:
    """The batch is stored though the answer says otherwise, so the retry is stored again."""
    sandbox.faults.add(faults.stored_then_504("events", times=1))
    assert [_post(sandbox, _batch()).status_code for _ in range(2)] == [504, 200]
    assert sandbox.memory.counters()["batches"] == 2
    assert sandbox.memory.counters()["repeated_batches"] == 1


def test_the_rules_come_before_a_stored_failure(sandbox: Sandbox) -> None:
    """What the rules refuse is refused, not stored, whatever failure was to follow."""
    sandbox.faults.add(faults.stored_then_504("events"))
    assert _post(sandbox, {"events": []}).status_code == 400


@pytest.mark.parametrize(("when", "stored"), [("before", 0), ("after", 1)])
def test_a_reset_tears_the_connection_down(
    sandbox: Sandbox, when: faults.Reset, stored: int
) -> None:
    """The client sees the connection die, before or after the batch was stored."""
    sandbox.faults.add(faults.reset("events", when, times=1))
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        _post(sandbox, _batch())
    assert len(sandbox.memory.batches) == stored
    assert sandbox.memory.calls["events", 0] == 1
    assert _post(sandbox, _batch()).status_code == 200


def test_a_slow_answer_is_stored_before_the_wait(sandbox: Sandbox) -> None:
    """A client that gives up on a slow answer does not know that its batch was stored."""
    sandbox.faults.add(faults.slow("events", 30.0, times=1))
    with pytest.raises(httpx.ReadTimeout):
        _post(sandbox, _batch(), timeout=0.2)
    assert len(sandbox.memory.batches) == 1


def test_poison_refuses_the_batches_that_hold_it(sandbox: Sandbox) -> None:
    """One address refuses its batch, plain or hashed; a batch without it passes."""
    sandbox.faults.add(faults.poisoned("events", "Bad@example.com"))
    sandbox.faults.add(faults.firewalled("events", "wall@example.com"))
    batches = [
        _batch("a@example.com", "bad@example.com"),
        _batch(hash_of("bad@example.com")),
        _batch("wall@example.com", "b@example.com"),
        _batch("a@example.com", "b@example.com"),
    ]
    assert [_post(sandbox, each).status_code for each in batches] == [400, 400, 403, 200]


def test_a_fault_stays_at_its_endpoint(sandbox: Sandbox) -> None:
    """A fault for one endpoint leaves the others and the other vendor alone."""
    sandbox.faults.add(faults.broken("events"))
    question = {"filter": {"email": "a@example.com"}, "is_or_match": True}
    answer = httpx.post(f"{sandbox.audiencelab_url}/enrich", json=question, headers=HEADERS)
    assert answer.status_code == 200
    assert _post(sandbox, _batch()).status_code == 500


def test_faults_are_switched_and_arrivals_read_over_http(sandbox: Sandbox) -> None:
    """A process without Python access can do all the same."""
    url = f"{sandbox.url}/faults"
    wanted = [{"endpoint": "events", "status": 503, "body": {}, "times": 1}]
    assert httpx.post(url, json=wanted).json()[0]["left"] == 1
    assert [_post(sandbox, _batch()).status_code for _ in range(2)] == [503, 200]
    assert httpx.get(url).json()[0]["left"] == 0
    assert httpx.delete(url).json() == []
    seen = httpx.get(f"{sandbox.url}/seen").json()
    assert (seen["calls"], seen["refused"], seen["events"], seen["batches"]) == (2, 1, 1, 1)
    assert httpx.get(f"{sandbox.url}/seen/events").json() == _batch()["events"]
    assert httpx.get(f"{sandbox.url}/seen/secrets").status_code == 404
    assert httpx.delete(f"{sandbox.url}/seen").json()["events"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        b"{",
        b"7",
        b'{"status": 500}',
        b'{"endpoint": "nowhere"}',
        b'{"endpoint": "events", "statsu": 500}',
        b'{"endpoint": "events", "status": "500"}',
        b'{"endpoint": "events", "reset": "later"}',
        b'{"endpoint": "events", "cut": "off"}',
        b'{"endpoint": "events", "addresses": [5]}',
        b'{"endpoint": "events", "headers": {"Retry-After": 5}}',
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(sandbox: Sandbox, wrong: bytes) -> None:
    """A mistake in a fault is told at once, not in the middle of a call."""
    answer = httpx.post(f"{sandbox.url}/faults", content=wrong)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert sandbox.faults.listed() == []


@pytest.mark.anyio
async def test_in_process_a_reset_is_an_exception() -> None:
    """Without a server there is no connection to tear down: the call raises instead."""
    app = create()
    app.state.faults.add(faults.reset("events"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        with pytest.raises(ConnectionResetError):
            await client.post("/audiencepoint/v1/events", json=_batch(), headers=HEADERS)


@pytest.mark.anyio
async def test_counting_only_keeps_no_bodies() -> None:
    """For a bench the counters move and nothing piles up."""
    async with running_sandbox(keeps_bodies=False) as sandbox, httpx.AsyncClient() as client:
        url = f"{sandbox.audiencepoint_url}/events"
        await client.post(url, json=_batch(), headers=HEADERS)
        assert sandbox.memory.counters()["events"] == 1
        assert (sandbox.memory.events, sandbox.memory.batches) == ([], [])


def test_the_process_names_its_address_first_and_says_no_addresses() -> None:
    """`python -m sandbox` prints where it listens, then one line a call with counts only."""
    command = [sys.executable, "-m", "sandbox"]
    environment = os.environ | {"SANDBOX_KEY": "another"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("sandbox: listening on ").strip()
        events = f"{url}/audiencepoint/v1/events"
        assert httpx.post(events, json=_batch(), headers=HEADERS).status_code == 403
        assert httpx.post(events, json=_batch(), headers={"X-API-Key": "another"}).is_success
        process.send_signal(signal.SIGINT)
        lines = process.stdout.read().splitlines()
    assert lines == ["sandbox: events 403 0 events", "sandbox: events 200 1 events"]

"""The stand-in for AudiencePoint accepts and refuses what the vendor would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from sandbox.addresses import hash_of
from sandbox.app import create

pytestmark = pytest.mark.anyio

EVENT: dict[str, Any] = {
    "email": "reader@example.com",
    "type": "Open",
    "occurred_at_utc": "2026-01-12T08:00:00",
    "send_id": "mailing-1",
}


@pytest.fixture
def app() -> Starlette:
    """A sandbox of its own for each test."""
    return create()


@pytest.fixture
async def vendor(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client that holds the right key."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://sandbox/audiencepoint/v1",
        headers={"X-API-Key": "sandbox"},
    ) as client:
        yield client


async def test_a_batch_is_answered_with_a_growing_number_of_56_digits(
    vendor: httpx.AsyncClient,
) -> None:
    """Every accepted batch gets one receipt, a string of 56 digits that only grows."""
    receipts = [(await vendor.post("/events", json={"events": [EVENT]})).json() for _ in range(3)]
    numbers = [receipt["SequenceNumber"] for receipt in receipts]
    assert {len(number) for number in numbers} == {56}
    assert numbers == sorted(set(numbers))
    assert {receipt["ShardId"] for receipt in receipts} == {"shardId-000000000001"}


async def test_thirty_events_are_accepted_and_kept(
    app: Starlette, vendor: httpx.AsyncClient
) -> None:
    """A batch of the documented limit is accepted, and its events and bytes are kept."""
    answer = await vendor.post("/events", json={"events": [EVENT] * 30})
    assert answer.status_code == 200
    assert app.state.memory.events == [EVENT] * 30
    assert app.state.memory.batches == [answer.request.content]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"events": []},
        {"events": EVENT},
        {"events": [EVENT] * 31},
        {"events": ["text"]},
        [EVENT],
        *({"events": [{k: v for k, v in EVENT.items() if k != gone}]} for gone in EVENT),
        *({"events": [EVENT | {name: 7}]} for name in EVENT),
        *({"events": [EVENT | {name: ""}]} for name in EVENT),
        *({"events": [EVENT | {"type": word}]} for word in ("open", "Bounce", "Delivered")),
        *(
            {"events": [EVENT | {"occurred_at_utc": time}]}
            for time in (
                "2026-01-12T08:00:00Z",
                "2026-01-12T08:00:00.1",
                "2026-01-12 08:00:00",
                "2026-01-12T08:00:00\n",
            )
        ),
        {"events": [EVENT, EVENT | {"ip_address": None}]},
        {"events": [EVENT | {"machine_open": "true"}]},
    ],
)
async def test_what_breaks_the_event_model_is_refused_as_a_whole(
    app: Starlette, vendor: httpx.AsyncClient, body: object
) -> None:
    """One wrong event, or a wrong number of them, refuses the batch with a message."""
    answer = await vendor.post("/events", json=body)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("Invalid request body")
    assert app.state.memory.counters()["events"] == 0


async def test_what_is_not_json_is_refused(vendor: httpx.AsyncClient) -> None:
    """A body that is not JSON, not typed as JSON, or over the gateway's limit is refused."""
    typed = {"Content-Type": "application/json"}
    assert (await vendor.post("/events", content=b"{", headers=typed)).status_code == 400
    assert (await vendor.post("/events", content=b"{}")).status_code == 415
    huge = b" " * (10 * 1024 * 1024 + 1)
    assert (await vendor.post("/events", content=huge, headers=typed)).status_code == 413


async def test_a_batch_that_mixes_plain_and_hashed_is_counted(
    app: Starlette, vendor: httpx.AsyncClient
) -> None:
    """Mixing is not refused, for the vendor does not say so, but it is counted."""
    hashed = EVENT | {"email": hash_of("other@example.com")}
    for events in ([EVENT, hashed], [EVENT, EVENT], [hashed, hashed]):
        assert (await vendor.post("/events", json={"events": events})).status_code == 200
    assert app.state.memory.counters()["mixed_batches"] == 1
    assert app.state.memory.counters()["largest_batch"] == 2


async def test_subscriptions_are_counted_as_a_set(
    app: Starlette, vendor: httpx.AsyncClient
) -> None:
    """An address is new once, then existing, whichever form it comes in; others are invalid."""
    first = ["a@example.com", "b@example.com", "nonsense"]
    again = [" A@example.com", hash_of("b@example.com"), "c@example.com"]
    answers = [
        (await vendor.post("/list-subscription", json={"emailAddresses": each})).json()
        for each in (first, again)
    ]
    assert answers == [
        {"new": 2, "existing": 0, "invalid": 1},
        {"new": 1, "existing": 2, "invalid": 0},
    ]
    assert app.state.memory.counters()["subscribed"] == 3


@pytest.mark.parametrize("body", [{}, {"emailAddresses": []}, {"emailAddresses": [1]}])
@pytest.mark.parametrize("path", ["/list-subscription", "/scores"])
async def test_a_call_without_addresses_is_refused(
    vendor: httpx.AsyncClient, path: str, body: object
) -> None:
    """Both calls about addresses need some."""
    assert (await vendor.post(path, json=body)).status_code == 400


async def test_more_than_thirty_subscriptions_are_accepted(
    app: Starlette, vendor: httpx.AsyncClient
) -> None:
    """No limit is stated for subscriptions, so none is enforced."""
    addresses = [f"reader{n}@example.com" for n in range(31)]
    answer = await vendor.post("/list-subscription", json={"emailAddresses": addresses})
    assert answer.json()["new"] == 31
    assert app.state.memory.counters()["largest_subscription"] == 31


async def test_scores_come_in_the_order_of_the_request(vendor: httpx.AsyncClient) -> None:
    """Scores answer a bare array in request order, all strings, addresses as asked."""
    asked = ["nobody@example.com", "nonsense", hash_of("mara.quill@example.com")]
    scores = (await vendor.post("/scores", json={"emailAddresses": asked})).json()
    assert [each["emailAddress"] for each in scores] == asked
    assert [each["matched"] for each in scores] == ["no", "invalid", "yes"]
    assert len(scores[2]) == 16
    assert all(isinstance(value, str) for value in scores[2].values())


async def test_a_selection_of_scores_leaves_the_others_out(vendor: httpx.AsyncClient) -> None:
    """With a selection, only the required fields and the selected ones are answered."""
    body: dict[str, Any] = {"emailAddresses": ["mara.quill@example.com"]}
    chosen = await vendor.post("/scores", json=body | {"scoreSelection": ["score"]})
    assert set(chosen.json()[0]) == {"emailAddress", "matched", "score"}
    wrong = await vendor.post("/scores", json=body | {"scoreSelection": ["luck"]})
    assert wrong.status_code == 400


async def test_thirty_one_questions_for_scores_are_refused(vendor: httpx.AsyncClient) -> None:
    """Scores are asked for thirty addresses at most."""
    addresses = ["a@example.com"] * 31
    assert (await vendor.post("/scores", json={"emailAddresses": addresses})).status_code == 400


@pytest.mark.parametrize("key", [None, "", "wrong", "sandboxes"])
async def test_a_wrong_key_is_forbidden(vendor: httpx.AsyncClient, key: str | None) -> None:
    """Without the right key every call is forbidden, and a bearer key is no key here."""
    headers = {"Authorization": "Bearer sandbox"} | ({} if key is None else {"X-API-Key": key})
    del vendor.headers["X-API-Key"]
    answer = await vendor.post("/events", json={"events": [EVENT]}, headers=headers)
    assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})


@pytest.mark.parametrize(("method", "path"), [("POST", "/nowhere"), ("GET", "/events")])
async def test_an_unknown_path_or_method_is_a_missing_token(
    vendor: httpx.AsyncClient, method: str, path: str
) -> None:
    """The gateway's 403 for what it does not have differs from that for a wrong key."""
    answer = await vendor.request(method, path)
    expected = (403, {"message": "Missing Authentication Token"})
    assert (answer.status_code, answer.json()) == expected

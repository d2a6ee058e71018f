"""Who shows no valid token is told why only so often; who shows one is never slowed by anybody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from httpx import ASGITransport, AsyncClient, Response
from redis.asyncio import Redis

from pipeline import books
from pipeline.settings import Settings
from receiver import strangers
from receiver.strangers import BURST, SLOTS, Strangers
from tests.patience import patient_receiver
from tests.receiver.conftest import TOKEN

pytestmark = pytest.mark.anyio

Neighbours = Callable[[str], AsyncClient]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give a clock that stands still until its one number is changed."""
    now = [1000.0]
    monkeypatch.setattr(strangers, "monotonic", lambda: now[0])
    return now


# the buckets --------------------------------------------------------------------------------------------


def test_a_bucket_empties_and_fills_again(clock: list[float]) -> None:
    """After the burst each second brings one refusal back, and no more than the burst is saved up."""
    buckets = Strangers()
    for _ in range(BURST):
        assert buckets.wait_s("192.0.2.1", []) == 0
    assert buckets.wait_s("192.0.2.1", []) == 1
    clock[0] += 1
    assert [buckets.wait_s("192.0.2.1", []) for _ in range(2)] == [0, 1]
    clock[0] += 10 * BURST
    told = [buckets.wait_s("192.0.2.1", []) for _ in range(BURST + 1)]
    assert told == [0] * BURST + [1]


@pytest.mark.usefixtures("clock")
def test_a_wrong_token_is_known_wherever_it_comes_from() -> None:
    """One token from many addresses has one bucket; another from the same addresses is told the reason."""
    buckets = Strangers()
    told = [buckets.wait_s(f"192.0.2.{n}", [b"taken-out-0123456789"]) for n in range(BURST + 1)]
    assert told == [0] * BURST + [1]
    assert buckets.wait_s("192.0.2.1", [b"another-wrong-one-01"]) == 0


@pytest.mark.usefixtures("clock")
def test_an_ipv6_host_has_one_bucket() -> None:
    """A host that changes its address within its /64 stays the same; its neighbour is another."""
    buckets = Strangers()
    told = [buckets.wait_s(f"2001:db8:0:1::{n:x}", []) for n in range(BURST + 1)]
    assert told == [0] * BURST + [1]
    assert buckets.wait_s("2001:db8:0:2::1", []) == 0


@pytest.mark.usefixtures("clock")
def test_ipv4_in_ipv6_is_told_apart() -> None:
    """A socket that listens for both families has each IPv4 peer in `::ffff:0:0/96`: they share nothing."""
    buckets = Strangers()
    assert [buckets.wait_s("::ffff:192.0.2.1", []) for _ in range(BURST + 1)][-1] == 1
    assert buckets.wait_s("::ffff:192.0.2.2", []) == 0


@pytest.mark.parametrize("address", ["", "unix:", "fe80::1%eth0", "\udcff:", "x" * 10_000])
def test_whatever_stands_for_an_address_has_a_bucket(address: str) -> None:
    """A proxy may say anything, and a socket of the file system has no address."""
    assert Strangers().wait_s(address, [b"\xff"]) == 0


def test_guessing_takes_no_memory() -> None:
    """The tables are as large after many guesses as before."""
    buckets = Strangers()
    for n in range(5_000):
        buckets.wait_s(f"10.0.{n % 250}.{n % 251}", [b"%d" % n])
    assert {len(buckets._addresses), len(buckets._tokens)} == {SLOTS}


# the receiver -------------------------------------------------------------------------------------------


@pytest.fixture
def neighbours(
    redis: Redis, make_settings: Callable[..., Settings]
) -> Callable[[], AbstractAsyncContextManager[Neighbours]]:
    """Return what starts one receiver and makes clients with an address of their own."""

    @asynccontextmanager
    async def start() -> AsyncIterator[Neighbours]:
        settings = make_settings()
        app = patient_receiver(settings)

        def at(address: str) -> AsyncClient:
            transport = ASGITransport(app, client=(address, 1))
            return AsyncClient(transport=transport, base_url="http://relay.test")

        async with app.router.lifespan_context(app):
            yield at

    return start


async def worn_out(client: AsyncClient, path: str, **options: str) -> Response:
    """Return the first answer that is 429."""
    for n in range(3 * BURST):
        answer = await client.post(path.format(n=n), content=b"[]", headers=options)
        if answer.status_code == 429:
            return answer
        assert answer.status_code in (401, 404)
    pytest.fail("never told 429")


@pytest.mark.usefixtures("clock")
async def test_one_bad_sender_locks_nobody_out(
    neighbours: Callable[[], AbstractAsyncContextManager[Neighbours]],
) -> None:
    """Behind the same address a valid token passes at once, as often as it likes; a false one hears 429 and when."""
    async with neighbours() as at:
        client = at("198.51.100.7")
        answer = await worn_out(client, "/hooks/events/guess-{n:016}")
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:audience-relay:problem:too-many-refused"
        for _ in range(2 * BURST):
            assert (await client.post(f"/hooks/events/{TOKEN}", content=b"[]")).status_code == 202
        assert (await client.get(f"/hooks/events/{TOKEN}")).status_code == 200
        # what is wrong with a valid token is still told
        assert (await client.post(f"/hooks/events/{TOKEN}", content=b"{")).status_code == 400
        elsewhere = await at("198.51.100.8").post("/hooks/events/guess-again-0000", content=b"[]")
        assert elsewhere.status_code == 401


@pytest.mark.usefixtures("clock")
async def test_a_token_that_was_taken_out_is_told_less_often(
    neighbours: Callable[[], AbstractAsyncContextManager[Neighbours]],
) -> None:
    """It is known again behind every address, and the addresses are not blamed for it."""
    async with neighbours() as at:
        told = [
            (await at(f"198.51.100.{n}").post("/hooks/brevo/taken-out-0123456789")).status_code
            for n in range(BURST + 2)
        ]
        assert told == [401] * BURST + [429] * 2
        assert (await at("198.51.100.1").post("/hooks/brevo/other-wrong-0123")).status_code == 401


@pytest.mark.usefixtures("clock")
async def test_who_waits_to_be_asked_for_a_token_is_always_asked(
    neighbours: Callable[[], AbstractAsyncContextManager[Neighbours]],
) -> None:
    """SNS shows its password only after a 401: a request without any token is never told 429."""
    async with neighbours() as at:
        client = at("198.51.100.7")
        await worn_out(client, "/hooks/nonsense-{n}")
        for _ in range(3):
            asked = await client.post("/hooks/ses", content=b"{}")
            assert (asked.status_code, asked.headers["www-authenticate"][:5]) == (401, "Basic")


async def test_no_header_makes_somebody_else_of_a_stranger(
    neighbours: Callable[[], AbstractAsyncContextManager[Neighbours]],
) -> None:
    """The address is the server's to say: what a request claims about itself changes nothing."""
    async with neighbours() as at:
        client = at("198.51.100.7")
        statuses = []
        for n in range(3 * BURST):
            claimed = f"203.0.113.{n}"
            headers = {
                "X-Forwarded-For": claimed,
                "Forwarded": f"for={claimed}",
                "X-Real-IP": claimed,
            }
            path = f"/hooks/events/guess-{n:016}"
            statuses.append((await client.post(path, headers=headers)).status_code)
        assert 429 in statuses


@pytest.mark.usefixtures("clock")
async def test_a_flood_is_counted_and_writes_no_lines(
    neighbours: Callable[[], AbstractAsyncContextManager[Neighbours]],
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`relay status` tells every wrong token, the metrics tell why; the log has the burst, and no more."""
    caplog.set_level(logging.INFO, logger="receiver.webhooks")
    async with neighbours() as at:
        client = at("198.51.100.7")
        for n in range(BURST + 40):
            await client.post(f"/hooks/events/guess-{n:016}")
        for n in range(5):
            await client.post(f"/hooks/nonsense-{n}")
        metrics = (await client.get("/metrics")).text
    assert (await books.snapshot(redis))["refused"]["token"] == BURST + 40
    assert 'relay_refused_total{cause="too-many-refused",source="events"} 40.0' in metrics
    lines = [record for record in caplog.records if "refused source" in record.getMessage()]
    assert len(lines) == BURST
    assert not any("guess" in record.getMessage() for record in caplog.records)


async def test_it_is_told_before_the_body_is_read(
    neighbours: Callable[[], AbstractAsyncContextManager[Neighbours]],
) -> None:
    """The answer comes although the body never does."""
    async with neighbours() as at:
        client = at("198.51.100.7")
        for n in range(2 * BURST):
            await client.post(f"/hooks/events/guess-{n:016}")

        async def body() -> AsyncIterator[bytes]:
            yield b"["
            await asyncio.Event().wait()

        answer = await client.post("/hooks/events/guess-again-0000", content=body())
        assert answer.status_code == 429

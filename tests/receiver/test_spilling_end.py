"""The order of what is spilled, and its end: under load, beside dead neighbours, at a start."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.home import Home
from pipeline.inbox import NotStored
from pipeline.spill import Spill, files_in, name_of
from receiver.limits import Limits
from tests.receiver.conftest import MakeClient
from tests.receiver.desk import BATCH, MANY, PATIENCE_S, Desk, delivery, stored, until

pytestmark = pytest.mark.anyio

# more than an entry of the inbox holds
SENDERS = 600


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give the home that the receivers of `make_client` have."""
    return Home(tmp_path / "home")


async def test_it_ends_while_many_wait_together(redis: Redis, home: Home) -> None:
    """Hundreds of senders who post again with each answer bring no more than is drained while they wait."""
    desk = Desk(redis, home, Limits(answer_within_s=20, redis_share=0.2))
    desk.inbox.refuses = NotStored("refused on purpose")
    desk.drain()
    is_over = asyncio.Event()

    async def post() -> None:
        while not is_over.is_set():
            one = Delivery(new_delivery_id(), "events", b"x" * 900, 1_700_000_000_000)
            if not await desk.commit.put(one):
                is_over.set()

    senders = [asyncio.create_task(post()) for _ in range(SENDERS)]
    await until(lambda: desk.spilling.left >= 2 * SENDERS)
    desk.inbox.refuses = None
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*senders)
    await desk.close()


async def test_what_a_neighbour_left_in_an_outage_comes_first(redis: Redis, home: Home) -> None:
    """Who waits for Redis looks for files of the dead meanwhile: older ones are stored before its own."""
    dead = Spill(home, MANY)
    dead.append([delivery(n).pack() for n in range(2 * BATCH)])
    desk = Desk(redis, home, Limits(answer_within_s=10))
    desk.inbox.refuses = NotStored("refused on purpose")
    desk.drain()
    await desk.put(2 * BATCH, 2 * BATCH + 3)
    await until(lambda: desk.inbox.tries > 0)
    dead.close()
    tries = desk.inbox.tries
    await until(lambda: desk.inbox.tries > tries + 1)
    desk.inbox.refuses = None
    await until(lambda: desk.spilling.reason() is None)
    await desk.close()
    assert await stored(redis) == [b"%d" % n for n in range(2 * BATCH + 3)]


async def test_nothing_is_stored_before_the_first_look(
    redis: Redis, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is known what lies there deliveries are spilled; then all of it goes in order."""
    dead = Spill(home, MANY)
    dead.append([delivery(0).pack()])
    dead.close()
    desk = Desk(redis, home, Limits(answer_within_s=20, redis_share=0.01), has_looked=False)
    goes_on, adopt = threading.Event(), desk.spill.adopt

    def hang() -> int:
        goes_on.wait(PATIENCE_S)
        return adopt()

    monkeypatch.setattr(desk.spill, "adopt", hang)
    desk.drain()
    assert await desk.put(1, 2) == [True]
    goes_on.set()
    await until(lambda: desk.spilling.reason() is None)
    await desk.close()
    assert await stored(redis) == [b"0", b"1"]


async def test_a_start_does_not_wait_for_the_disk(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver answers while it still looks for what lies there."""
    goes_on, has_looked = threading.Event(), threading.Event()
    adopt = Spill.adopt

    def hang(spill: Spill) -> int:
        goes_on.wait(PATIENCE_S)
        has_looked.set()
        return adopt(spill)

    monkeypatch.setattr(Spill, "adopt", hang)
    async with make_client() as client:
        assert (await client.get("/healthz")).status_code == 200
        assert not has_looked.is_set()
        goes_on.set()


async def test_every_file_is_ready_before_it_is_needed(redis: Redis, home: Home) -> None:
    """However long an outage lasts, no append has to make its file, as long as the disk makes one in between."""
    desk = Desk(redis, home, Limits(answer_within_s=10), segment_bytes=1)
    desk.inbox.refuses = NotStored("refused on purpose")
    desk.drain()
    await desk.put(0, 1)  # the first one, which the receiver prepares when it starts
    for n in range(1, 5):
        await until(lambda: desk.spill.has_spare)
        before = {name_of(path) for path in files_in(home.spill_dir)}
        await desk.put(n, n + 1)
        newest = max(path for path in files_in(home.spill_dir) if path.stat().st_size)
        assert name_of(newest) in before
    await desk.close()


async def test_the_reason_is_what_redis_says(redis: Redis, home: Home) -> None:
    """While what is drained is refused, that refusal is told; then that it goes first; then nothing."""
    desk = Desk(redis, home, Limits(answer_within_s=10))
    desk.inbox.refuses = NotStored("READONLY You can't write against a read only replica.")
    desk.drain()
    await desk.put(0, 1)
    await until(lambda: "READONLY" in (desk.spilling.reason() or ""))
    desk.inbox.refuses = None
    await until(lambda: desk.spilling.reason() is None)
    await desk.close()

"""Spilling: while Redis is away deliveries are kept on disk, and arrive in order, once, when it is back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from httpx import AsyncClient, Response
from redis.asyncio import Redis

from console.redis_server import EmbeddedRedis
from pipeline import books, heartbeats
from pipeline.deliveries import Delivery
from pipeline.home import Home
from pipeline.inbox import NoAnswer, NotStored
from pipeline.outcomes import Stage
from pipeline.spill import Spill, survey
from receiver import spill_drain
from receiver.limits import Limits
from tests.receiver.conftest import TOKEN, MakeClient
from tests.receiver.desk import BATCH, MANY, PATIENCE_S, Desk, delivery, stored, until

pytestmark = pytest.mark.anyio

HOOK = f"/hooks/events/{TOKEN}"


async def post(client: AsyncClient, n: int) -> Response:
    """Post number *n*."""
    return await client.post(HOOK, content=b"[%d]" % n)


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    """Give a server of this test's own, which it may stop and start; it runs."""
    binary = os.environ.get("TEST_REDIS_SERVER")
    home = Path(tempfile.mkdtemp(prefix="relay-"))
    with EmbeddedRedis(home, Path(binary) if binary else None, appendfsync="no") as server:
        yield server
    shutil.rmtree(home)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give the home that the receivers of `make_client` have."""
    return Home(tmp_path / "home")


def is_drained(home: Home) -> Callable[[], bool]:
    """Return a check: nothing is left in the spill."""
    return lambda: survey(home).deliveries == 0


# the whole receiver -------------------------------------------------------------------------------------


async def test_redis_goes_and_comes_back(
    make_client: MakeClient, server: EmbeddedRedis, home: Home
) -> None:
    """What is posted meanwhile is `spilled`, with each source's own status; all arrives in order, once."""
    async with make_client(redis_url=server.url) as client:
        first = [await post(client, n) for n in range(3)]
        server.stop()
        meanwhile = [await post(client, n) for n in range(3, 9)]
        mail = await client.post(
            f"/hooks/sendgrid/{TOKEN}", content=b"[]", headers={"x-request-id": "r-1"}
        )
        assert survey(home).deliveries == 7
        server.start()
        await until(is_drained(home))
        later = await post(client, 9)
        numbers = (await client.get("/metrics")).text
    assert [answer.headers["relay-ack"] for answer in first] == ["stored"] * 3
    assert [answer.status_code for answer in meanwhile] == [202] * 6
    assert [answer.headers["relay-ack"] for answer in meanwhile] == ["spilled"] * 6
    assert len({answer.json()["id"] for answer in meanwhile}) == 6
    assert (mail.status_code, mail.headers["relay-ack"]) == (200, "spilled")
    assert mail.headers["x-request-id"] == "r-1"
    assert later.headers["relay-ack"] == "stored"
    for line in ("relay_spilled_deliveries_total 7.0", "relay_drained_deliveries_total 7.0"):
        assert line in numbers
    async with Redis.from_url(server.url) as redis:
        posted = [b"[%d]" % n for n in range(10)]
        assert await stored(redis) == [*posted[:9], b"[]", posted[9]]
        told = await books.snapshot(redis, home)
    assert (told["stages"]["unpack"]["in"], told["balanced"]) == (11, True)


async def test_a_receiver_may_start_before_redis(
    make_client: MakeClient, server: EmbeddedRedis, home: Home
) -> None:
    """Until the inbox can be opened everything is spilled; only what would be a dead letter is refused."""
    server.stop()
    async with make_client(redis_url=server.url) as client:
        answers = [await post(client, n) for n in range(3)]
        assert (await client.post(HOOK, content=b"not json")).status_code == 503
        server.start()
        await until(is_drained(home))
    assert [answer.headers["relay-ack"] for answer in answers] == ["spilled"] * 3
    async with Redis.from_url(server.url) as redis:
        assert await stored(redis) == [b"[0]", b"[1]", b"[2]"]


async def test_a_full_redis_is_spared(make_client: MakeClient, redis: Redis, home: Home) -> None:
    """From 85 % on deliveries are spilled, and none is stored before there is room again."""
    await heartbeats.beat(redis, "one")
    await redis.setrange(
        "ballast", 30 << 20, b"x"
    )  # so that the last 15 % would hold a few deliveries
    used = int((await redis.info("memory"))["used_memory"])
    before = (await redis.config_get("maxmemory"))["maxmemory"]
    async with make_client() as client:
        try:
            await redis.config_set("maxmemory", int(used / 0.86))
            ready = await client.get("/readyz")  # looks at once, not with the next poll
            answers = [await post(client, n) for n in range(3)]
            await asyncio.sleep(2 * spill_drain.AGAIN_S)
            assert await stored(redis) == []
            waiting = (await books.snapshot(redis, home))["stages"]["unpack"]
        finally:
            await redis.config_set("maxmemory", before)
        await until(is_drained(home))
        assert (await client.get("/readyz")).json() == {"ready": True}
    assert ready.status_code == 503
    assert ready.json()["detail"].startswith("Redis is nearly full; deliveries are kept on disk")
    assert [answer.headers["relay-ack"] for answer in answers] == ["spilled"] * 3
    assert (waiting["in"], waiting["waiting"]) == (3, 3)
    assert await stored(redis) == [b"[0]", b"[1]", b"[2]"]


async def test_beyond_the_limit_it_is_503(make_client: MakeClient, home: Home) -> None:
    """What does not fit any more is refused with `Retry-After`; what was spilled stays."""
    async with make_client(redis_url="redis://127.0.0.1:1/0", spill_max_bytes=300) as client:
        answers = [await post(client, n) for n in range(9)]
    kept = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert (len(kept) + len(refused), bool(kept), bool(refused)) == (9, True, True)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert survey(home).deliveries == len(kept)
    assert survey(home).used_bytes <= 300


async def test_the_next_receiver_takes_over(
    make_client: MakeClient, redis: Redis, home: Home
) -> None:
    """What a receiver leaves behind goes first with the next one, also with one that spills nothing itself."""
    async with make_client(redis_url="redis://127.0.0.1:1/0") as client:
        for n in range(2):
            await post(client, n)
    async with make_client(spill_max_bytes=0) as client:
        await until(is_drained(home))
        await post(client, 2)
    assert await stored(redis) == [b"[0]", b"[1]", b"[2]"]


async def test_a_running_receiver_adopts(
    make_client: MakeClient, redis: Redis, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files whose owner has died are drained by whoever is there."""
    monkeypatch.setattr(spill_drain, "ADOPT_EVERY_S", 0.01)
    async with make_client():
        dead = Spill(home, MANY)
        dead.append([delivery(1).pack()])
        await asyncio.sleep(0.05)
        assert await stored(redis) == []
        dead.close()
        await until(is_drained(home))
    assert await stored(redis) == [b"1"]


# the drain ----------------------------------------------------------------------------------------------


@pytest.fixture
async def desk(redis: Redis, home: Home) -> AsyncIterator[Desk]:
    """Give one whose limits a busy machine does not reach; nothing is drained yet."""
    desk = Desk(redis, home, Limits(answer_within_s=10))
    yield desk
    await desk.close()


async def test_nothing_overtakes_what_is_spilled(desk: Desk) -> None:
    """Once something is spilled all that follows is, without asking Redis; the first that is not waits for the rest."""
    desk.inbox.refuses = NotStored("refused on purpose")
    assert await desk.put(0, 3 * BATCH) == [True] * 3 * BATCH
    desk.inbox.refuses = None
    asked = len(desk.inbox.times)
    assert await desk.put(3 * BATCH, 3 * BATCH + 5) == [True] * 5
    assert len(desk.inbox.times) == asked
    desk.inbox.most = 1
    desk.drain()
    last = 3 * BATCH + 5
    while await desk.put(last, last + 1) == [True]:
        last += 1
    assert desk.spilling.left == 0
    assert desk.inbox.pieces >= 4
    assert await stored(desk.redis) == [b"%d" % n for n in range(last + 1)]


async def test_a_last_batch_that_does_not_come_is_not_overtaken(desk: Desk) -> None:
    """A flush waits only a moment for the rest of the spill; when that is not stored, it is spilled behind it."""
    desk.commit._redis_within_s = 0.04
    desk.inbox.refuses = NotStored("refused on purpose")
    assert await desk.put(0, 2 * BATCH) == [True] * 2 * BATCH
    desk.inbox.refuses, desk.inbox.most, desk.inbox.holds_at = None, 1, 1
    desk.drain()
    await until(lambda: desk.spilling.left == BATCH)
    assert await desk.put(2 * BATCH, 2 * BATCH + 1) == [True]
    desk.inbox.gate.set()
    await until(lambda: desk.spilling.left == 0)
    assert await stored(desk.redis) == [b"%d" % n for n in range(2 * BATCH + 1)]


async def test_what_redis_may_have_stored_comes_twice_at_most(desk: Desk) -> None:
    """A flush whose answer is lost is spilled: nothing is lost, only it comes twice, and the books say so."""
    desk.inbox.loses = NoAnswer("lost on purpose")
    assert await desk.put(0, 5) == [True] * 5
    desk.inbox.loses = None
    desk.drain()
    await until(lambda: desk.spilling.left == 0)
    assert await desk.put(5, 7) == [False] * 2
    posted = [b"%d" % n for n in range(7)]
    assert await stored(desk.redis) == [*posted[:5], *posted]
    unpack = (await books.snapshot(desk.redis))["stages"]["unpack"]
    assert unpack["in"] == unpack["waiting"] == 12
    assert (await books.recount(desk.redis))[Stage.UNPACK]["waiting"] == 12


async def test_only_the_refused_entry_is_spilled(desk: Desk, redis: Redis) -> None:
    """Of a flush that was stored in part the rest is spilled, and each is answered for what became of it."""
    commit = desk.commit
    commit._limits = Limits(deliveries_per_entry=2, answer_within_s=10)
    whole = desk.inbox.put_entries

    async def second_fails(
        entries: Sequence[Sequence[Delivery]], within_s: float
    ) -> list[int | NotStored]:
        return [*await whole(entries[:1], within_s), *[NotStored("no")] * (len(entries) - 1)]

    desk.inbox.put_entries = second_fails  # type: ignore[method-assign]
    assert await desk.put(0, 4) == [False, False, True, True]
    desk.drain()
    await until(lambda: desk.spilling.left == 0)
    assert await stored(redis) == [b"0", b"1", b"2", b"3"]


async def test_a_death_between_storing_and_removing_doubles_nothing(
    redis: Redis, home: Home
) -> None:
    """How far a file has come is noted with what is stored: the next owner goes on from there."""
    desk = Desk(redis, home, Limits(answer_within_s=10))
    desk.inbox.refuses = NotStored("refused on purpose")
    await desk.put(0, 3 * BATCH)
    segment = desk.spill.next()
    assert segment is not None
    desk.inbox.refuses = None
    pieces = segment.pieces(0, most=BATCH, most_bytes=MANY, count=2)
    await desk.inbox.put_spilled(segment.name, pieces, 5)
    await desk.inbox.put_spilled(segment.name, pieces, 5)
    told = await books.snapshot(redis, home)
    await desk.close()
    assert told["stages"]["unpack"]["waiting"] == told["stages"]["unpack"]["in"] == 3 * BATCH
    assert told["spilled"] == BATCH

    other = Desk(redis, home)
    other.drain()
    await until(is_drained(home))
    await other.close()
    assert await stored(redis) == [b"%d" % n for n in range(3 * BATCH)]
    told = await books.snapshot(redis, home)
    assert told["stages"]["unpack"]["in"] == 3 * BATCH
    assert "spilled" not in told


# time ---------------------------------------------------------------------------------------------------


async def test_redis_and_disk_share_the_time_of_an_answer(redis: Redis, home: Home) -> None:
    """What both are waited for is what an answer may take; what Redis has not used the disk gets."""
    desk = Desk(redis, home)
    desk.inbox.uses_its_time = True
    desk.inbox.refuses = NoAnswer("late on purpose")
    waited: list[float] = []
    append = desk.spilling.append

    async def note(deliveries: Sequence[Delivery], within_s: float, why: str) -> None:
        waited.append(within_s)
        await append(deliveries, PATIENCE_S, why)

    desk.spilling.append = note  # type: ignore[method-assign]
    await asyncio.wait([desk.commit.put(delivery(1))])
    assert desk.inbox.times[0] + waited[0] <= Limits().answer_within_s + 1e-9
    await asyncio.wait([desk.commit.put(delivery(2))])
    await desk.close()
    assert len(desk.inbox.times) == 1
    assert 0.04 < waited[0] <= waited[1] <= Limits().answer_within_s


async def test_who_waits_behind_a_redis_that_hangs_is_spilled_too(
    redis: Redis, redis_server: EmbeddedRedis, home: Home
) -> None:
    """One write finds it out, and everybody behind it is kept on disk with the same append."""
    # most of it is the disk's, which may be slow
    limits = Limits(
        entries_per_flush=2, deliveries_per_entry=5, answer_within_s=10, redis_share=0.2
    )
    desk = Desk(redis, home, limits)
    await desk.put(0, 1)
    process_id = int((await redis.info("server"))["process_id"])
    os.kill(process_id, signal.SIGSTOP)
    try:
        assert await desk.put(1, 100) == [True] * 99
    finally:
        os.kill(process_id, signal.SIGCONT)
    assert len(desk.inbox.times) == 2
    desk.drain()
    await until(lambda: desk.spilling.left == 0)
    await desk.close()
    arrived = [int(body) for body in await stored(redis)]
    assert set(arrived) == set(range(100))
    # the first ten may have been stored before Redis was stopped from answering
    assert len(arrived) - 100 <= 10


async def test_a_disk_that_hangs_is_not_waited_for(
    redis: Redis, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the answer is "not stored"; what the disk keeps in the end is drained all the same."""
    desk = Desk(redis, home, Limits(answer_within_s=0.02))
    desk.inbox.refuses = NotStored("refused on purpose")
    goes_on = threading.Event()
    keep = desk.spill.append

    def hang(payloads: Sequence[bytes]) -> None:
        goes_on.wait(PATIENCE_S)
        keep(payloads)

    monkeypatch.setattr(desk.spill, "append", hang)
    for n in range(3):
        with pytest.raises(NotStored):
            await desk.commit.put(delivery(n))
    assert not desk.spilling.takes
    goes_on.set()
    desk.inbox.refuses = None
    desk.drain()
    await until(lambda: desk.metrics.drained == 1)
    await desk.close()
    assert await stored(redis) == [b"0"]

"""A disk that fails ends neither the receiver nor its start: it is told once, and tried again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

import pipeline.spill.segment
from pipeline.home import Home
from pipeline.inbox import NotStored
from pipeline.spill import Spill, survey
from receiver import spill_drain
from receiver.limits import Limits
from tests.receiver.conftest import TOKEN, MakeClient
from tests.receiver.desk import MANY, Desk, delivery, stored, until

pytestmark = pytest.mark.anyio

HOOK = f"/hooks/events/{TOKEN}"
TELLS = "spilled before may be more"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give the home that the receivers of `make_client` have."""
    return Home(tmp_path / "home")


def break_folder(home: Home) -> None:
    """Let every look at the folder fail, whoever looks: a link that leads to itself."""
    home.path.mkdir(exist_ok=True)
    home.spill_dir.symlink_to(home.spill_dir)


@pytest.mark.parametrize("limit", [1 << 20, 0])
async def test_a_folder_that_cannot_be_read_keeps_nobody_from_starting(
    make_client: MakeClient, home: Home, limit: int
) -> None:
    """Whether anything may be spilled or not: Redis takes what comes."""
    break_folder(home)
    async with make_client(spill_max_bytes=limit) as client:
        answer = await client.post(HOOK, content=b"[1]")
    assert (answer.status_code, answer.headers["relay-ack"]) == (202, "stored")


async def test_a_look_that_fails_closes_nothing(
    make_client: MakeClient,
    redis: Redis,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Deliveries are stored meanwhile, it is told once, and with the next look that succeeds files are adopted."""
    monkeypatch.setattr(spill_drain, "ADOPT_EVERY_S", 0.01)
    caplog.set_level(logging.WARNING)
    looks = 0
    adopt = Spill.adopt

    def count(spill: Spill) -> int:
        nonlocal looks
        looks += 1
        return adopt(spill)

    monkeypatch.setattr(Spill, "adopt", count)
    break_folder(home)
    async with make_client() as client:
        await until(lambda: looks >= 5)
        answers = [await client.post(HOOK, content=b"[1]")]
        home.spill_dir.unlink()
        dead = Spill(home, MANY)
        dead.append([delivery(2).pack()])
        dead.close()
        await until(lambda: survey(home).deliveries == 0)
        answers.append(await client.post(HOOK, content=b"[3]"))
    assert [answer.headers["relay-ack"] for answer in answers] == ["stored"] * 2
    assert sorted(await stored(redis)) == [b"2", b"[1]", b"[3]"]
    assert sum(TELLS in record.message for record in caplog.records) == 1


async def test_a_file_that_cannot_be_read_for_a_moment_is_not_overtaken(
    redis: Redis, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, and whatever comes meanwhile stays behind it."""
    desk, failures = Desk(redis, home, Limits(answer_within_s=10)), [3]
    _fail_reads(monkeypatch, failures)
    desk.inbox.refuses = NotStored("refused on purpose")
    assert await desk.put(0, 2) == [True] * 2
    desk.inbox.refuses = None
    desk.drain()
    await until(lambda: failures[0] < 3)
    await desk.put(2, 4)
    await until(lambda: desk.spilling.reason() is None)
    await desk.close()
    assert await stored(redis) == [b"0", b"1", b"2", b"3"]


async def test_a_file_that_can_never_be_read_is_passed_over(
    redis: Redis, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the others go on without it; it stays where it is."""
    monkeypatch.setattr(spill_drain, "READ_WITHIN_S", 0.0)
    desk, failures = Desk(redis, home, Limits(answer_within_s=10), segment_bytes=1), [1]
    _fail_reads(monkeypatch, failures)
    desk.inbox.refuses = NotStored("refused on purpose")
    for n in range(2):
        await desk.put(n, n + 1)
    desk.inbox.refuses = None
    desk.drain()
    await until(lambda: desk.spilling.reason() is None)
    assert await stored(redis) == [b"1"]
    await desk.close()
    other = Desk(redis, home)
    other.drain()
    await until(lambda: other.metrics.drained == 1)
    await other.close()
    assert await stored(redis) == [b"1", b"0"]


def _fail_reads(monkeypatch: pytest.MonkeyPatch, failures: list[int]) -> None:
    """Let the first reads of a file fail, as many as *failures* tells."""
    chunks = pipeline.spill.segment._chunks
    lock = threading.Lock()

    def read(handle: int) -> Iterator[bytes]:
        with lock:
            if failures[0]:
                failures[0] -= 1
                raise OSError(5, "Input/output error")
        return chunks(handle)

    monkeypatch.setattr(pipeline.spill.segment, "_chunks", read)

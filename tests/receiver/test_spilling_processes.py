"""Real receivers, killed and left without their Redis under load: what was acknowledged arrives, in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from console.redis_server import EmbeddedRedis
from pipeline import books, keys
from pipeline.deliveries import Delivery
from pipeline.home import Home
from pipeline.queues import fields
from pipeline.spill import survey
from tests.chaos.test_nothing_is_lost import free_port
from tests.receiver.conftest import TOKEN
from tests.receiver.desk import PATIENCE_S, until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SENDERS = 4


class Senders:
    """Each posts its numbers one after the other, each until it is acknowledged."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hooks/events/{TOKEN}"
        self.acknowledged: dict[int, list[tuple[int, str]]] = {n: [] for n in range(SENDERS)}
        self.over = asyncio.Event()
        self.again = 0

    def promised(self, promise: str) -> int:
        """Return how often *promise* was given."""
        return sum(ack == promise for acked in self.acknowledged.values() for _, ack in acked)

    async def until_more(self, promise: str, more: int) -> None:
        """Wait until *promise* was given *more* times from now on."""
        wanted = self.promised(promise) + more
        await until(lambda: self.promised(promise) >= wanted)

    async def post(self) -> None:
        """Post until it is over."""
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            await asyncio.gather(*(self._post(client, sender) for sender in range(SENDERS)))

    async def _post(self, client: httpx.AsyncClient, sender: int) -> None:
        acknowledged, number = self.acknowledged[sender], 0
        while not self.over.is_set():
            try:
                answer = await client.post(self.url, content=b"[%d,%d]" % (sender, number))
            except httpx.TransportError:
                answer = httpx.Response(503)
            if answer.is_success:
                acknowledged.append((number, answer.headers["relay-ack"]))
                number += 1
            else:
                self.again += 1
            await asyncio.sleep(0.005)


class Machine:
    """A Redis and a receiver, each a process of its own, that can be stopped, killed and started."""

    def __init__(self, folder: Path) -> None:
        binary = os.environ.get("TEST_REDIS_SERVER")
        self.redis = EmbeddedRedis(folder / "r", Path(binary) if binary else None, appendfsync="no")
        self.home = Home(folder / "h")
        self.port = free_port()
        self._receiver: subprocess.Popen[bytes] | None = None

    def start_receiver(self) -> None:
        """Start it as the Procfile does."""
        known = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment = {
            **known,
            "REDIS_URL": self.redis.url,
            "HOOK_TOKENS": TOKEN,
            "RELAY_HOME": str(self.home.path),
        }
        command = ["-m", "uvicorn", "receiver.main:app", "--port", str(self.port)]
        self._receiver = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill_receiver(self) -> None:
        """Kill it with -9."""
        if self._receiver is not None:
            self._receiver.send_signal(signal.SIGKILL)
            self._receiver.wait()

    async def arrived(self) -> dict[int, list[int]]:
        """Return what lies in the inbox: the numbers of each sender, in order."""
        text = "return redis.call('XRANGE', KEYS[1], '-', '+')"
        found: dict[int, list[int]] = {n: [] for n in range(SENDERS)}
        async with Redis.from_url(self.redis.url) as redis:
            for row in await redis.eval(text, 1, keys.queue("unpack")):
                for payload in fields(row[1])[0]:
                    sender, number = Delivery.unpack(payload).body.strip(b"[]").split(b",")
                    found[int(sender)].append(int(number))
        return found

    def is_drained(self) -> bool:
        """Tell whether nothing is spilled."""
        return survey(self.home).deliveries == 0


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Give one with a short path, so that the socket's name fits."""
    folder = Path(tempfile.mkdtemp(prefix="spill-"))
    machine = Machine(folder)
    yield machine
    machine.kill_receiver()
    machine.redis.stop()
    shutil.rmtree(folder)


@asynccontextmanager
async def posting(machine: Machine) -> AsyncIterator[Senders]:
    """Post all the time; at the end wait for the last answers."""
    senders = Senders(machine.port)
    task = asyncio.create_task(senders.post())
    try:
        yield senders
    finally:
        senders.over.set()
        await asyncio.wait_for(task, PATIENCE_S)


async def assert_all_arrived(machine: Machine, senders: Senders, *, doubled: int) -> None:
    """Hold what was acknowledged against what arrived: all of it, each sender's in order, little of it twice.

    What was sent again without having been acknowledged may be stored twice, and *doubled* more.
    """
    arrived = await machine.arrived()
    for sender, acked in senders.acknowledged.items():
        numbers = arrived[sender]
        assert {number for number, _ in acked} <= set(numbers)
        firsts = list(dict.fromkeys(numbers))
        assert firsts == sorted(firsts)
    count = sum(map(len, arrived.values()))
    assert count - sum(len(set(numbers)) for numbers in arrived.values()) <= doubled + senders.again
    async with Redis.from_url(machine.redis.url) as redis:
        told = await books.snapshot(redis, machine.home)
    assert told["stages"]["unpack"]["in"] == told["stages"]["unpack"]["waiting"] == count


async def test_redis_stops_under_load_and_comes_back(machine: Machine) -> None:
    """All arrives in each sender's order; what was acknowledged comes twice only if it was under way at a stop."""
    machine.redis.start()
    machine.start_receiver()
    async with posting(machine) as senders:
        for _ in range(2):
            await senders.until_more("stored", 20)
            await asyncio.to_thread(machine.redis.stop)
            await senders.until_more("spilled", 20)
            await asyncio.to_thread(machine.redis.start)
        await senders.until_more("stored", 20)
    await until(machine.is_drained)
    await assert_all_arrived(machine, senders, doubled=2 * SENDERS)


async def test_a_receiver_is_killed_while_it_spills_and_while_it_drains(machine: Machine) -> None:
    """kill -9 loses nothing that was acknowledged, and doubles only what no sender had an answer to."""
    machine.redis.start()
    machine.start_receiver()
    async with posting(machine) as senders:
        await senders.until_more("stored", 20)
        await asyncio.to_thread(machine.redis.stop)
        await senders.until_more("spilled", 20)
        machine.kill_receiver()
        machine.start_receiver()
        await senders.until_more("spilled", 20)
        machine.kill_receiver()
    assert survey(machine.home).deliveries >= 40
    await asyncio.to_thread(machine.redis.start)
    async with Redis.from_url(machine.redis.url) as redis:
        machine.start_receiver()
        at_start = int(await redis.hget(keys.BOOKS, "unpack:in") or 0)
        while int(await redis.hget(keys.BOOKS, "unpack:in") or 0) == at_start:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0)
    machine.kill_receiver()
    machine.start_receiver()
    await until(machine.is_drained)
    await assert_all_arrived(machine, senders, doubled=SENDERS)

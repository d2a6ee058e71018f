"""Whatever is killed with -9, at whatever moment: what was answered 2xx arrives, and the books balance.

Senders post for as long as there is killing, and the next kill comes only when events arrive again, so that
every kill meets requests, work and calls under way. Some two seconds a kill; CHAOS_SEED and CHAOS_KILLS change
what is killed when, and how often.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sized
from itertools import count
from pathlib import Path

import httpx
import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from console.redis_server import EmbeddedRedis
from pipeline import books
from pipeline.addresses import digest
from tests.vendors import KEY, Sandbox, running_sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]

ROOT = Path(__file__).parents[2]
TOKEN = "chaos-token-0123456789"
SENDERS = 16
KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "7"))
# events between two kills, at most: about a second's worth
MOST_BETWEEN = 250
# what is never reached unless something hangs: between two kills, then for the last answers and deliveries
PATIENCE_S = 120.0


class Relay:
    """Receiver, worker and Redis as real processes that come back after each kill."""

    def __init__(self, home: Path, sandbox: Sandbox) -> None:
        self.redis = EmbeddedRedis(home, appendfsync="always")
        self.port = free_port()
        self._environment = {
            **os.environ,
            "HOOK_TOKENS": TOKEN,
            "AUDIENCEPOINT_API_KEY": KEY,
            "AUDIENCEPOINT_BASE_URL": sandbox.audiencepoint_url,
            "AUDIENCELAB_API_KEY": KEY,
            "AUDIENCELAB_BASE_URL": sandbox.audiencelab_url,
            "AUDIENCEPOINT_RATE": "0",
            "FORWARD_MAX_WAIT_S": "0.1",
            "RELAY_HOME": str(home),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start one of the parts."""
        if name == "redis":
            self.redis.start()
            self._environment["REDIS_URL"] = self.redis.url
            return
        command = {
            "receiver": ["-m", "uvicorn", "receiver.main:app", "--port", str(self.port)],
            "worker": ["-m", "arq", "workers.main.WorkerSettings"],
        }[name]
        self._processes[name] = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=self._environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, name: str) -> None:
        """Kill one of the parts with -9, by its pid."""
        if name == "redis":
            pid = self.redis.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            self.redis.stop()
            return
        process = self._processes[name]
        process.kill()
        process.wait()

    def restart_what_ended(self) -> None:
        """Start again what ended by itself, as every supervisor does: arq gives up at a lost WATCH."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                self.start(name)

    def close(self) -> None:
        """End everything."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self.redis.stop()


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Run the vendors' stand-ins."""
    async with running_sandbox() as running:
        yield running


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a short path, so that the socket's name fits."""
    path = Path(tempfile.mkdtemp(prefix="chaos-"))
    yield path
    shutil.rmtree(path)


async def post_until(over: asyncio.Event, port: int, acknowledged: set[str]) -> None:
    """Post events until *over*, each until it is answered 2xx, as senders do; note which were."""
    limits = httpx.Limits(max_connections=SENDERS)
    async with httpx.AsyncClient(limits=limits, timeout=5, trust_env=False) as client:
        numbers = count()

        async def sender() -> None:
            while not over.is_set():
                address = f"person{next(numbers)}@example.com"
                event = {"email": address, "type": "Open", "send_id": "chaos"}
                body = orjson.dumps(event | {"occurred_at_utc": "2026-01-31T12:00:00"})
                while not await accepted(client, port, body):  # noqa: ASYNC110 - a sender retries
                    await asyncio.sleep(0.02)
                acknowledged.add(digest(address))

        await asyncio.gather(*(sender() for _ in range(SENDERS)))


async def accepted(client: httpx.AsyncClient, port: int, body: bytes) -> bool:
    """Post *body* once; tell whether it was answered 2xx."""
    try:
        url = f"http://127.0.0.1:{port}/hooks/events/{TOKEN}"
        return (await client.post(url, content=body)).is_success
    except httpx.TransportError:
        return False


async def waiting(url: str) -> int | None:
    """Return how much work waits, or None while Redis cannot say."""
    try:
        async with Redis.from_url(url) as redis:
            snapshot = await books.snapshot(redis)
    except (RedisError, OSError):
        return None
    assert snapshot["balanced"]
    return sum(int(stage["waiting"]) for stage in snapshot["stages"].values())


async def until_more(relay: Relay, counted: Sized, more: int) -> None:
    """Wait until there are *more* in *counted*."""
    wanted = len(counted) + more
    async with asyncio.timeout(PATIENCE_S):
        while len(counted) < wanted:
            relay.restart_what_ended()
            await asyncio.sleep(0.005)


async def kill_again_and_again(relay: Relay, acknowledged: Sized, arrived: Sized) -> None:
    """Kill one part after the other at chance moments of work, and start each again."""
    chance = random.Random(SEED)
    for _ in range(KILLS):
        await until_more(relay, acknowledged, 1)
        await until_more(relay, arrived, chance.randint(1, MOST_BETWEEN))
        victim = chance.choice(["receiver", "worker", "redis"])
        await asyncio.to_thread(relay.kill, victim)
        await asyncio.to_thread(relay.start, victim)


async def until_drained(relay: Relay) -> None:
    """Wait until nothing waits any more."""
    async with asyncio.timeout(PATIENCE_S):
        while await waiting(relay.redis.url) != 0:
            relay.restart_what_ended()
            await asyncio.sleep(0.2)


async def test_kill_9_loses_nothing_that_was_acknowledged(home: Path, sandbox: Sandbox) -> None:
    """After any kill -9 of receiver, worker or Redis every acknowledged event reaches the vendor."""
    relay, acknowledged, over = Relay(home, sandbox), set[str](), asyncio.Event()
    posting = asyncio.create_task(post_until(over, relay.port, acknowledged))
    try:
        for name in ("redis", "worker", "receiver"):
            relay.start(name)
        await kill_again_and_again(relay, acknowledged, sandbox.memory.events)
        over.set()
        await asyncio.wait_for(posting, PATIENCE_S)
        await until_drained(relay)
        async with Redis.from_url(relay.redis.url) as redis:
            snapshot = await books.snapshot(redis)
            recount = await books.recount(redis)
    finally:
        posting.cancel()
        await asyncio.wait([posting])
        relay.close()
    arrived = [event["email"] for event in sandbox.memory.events]
    assert acknowledged <= set(arrived)
    assert snapshot["balanced"]
    assert snapshot["stages"]["forward"]["dead"] == 0
    assert all(counted["waiting"] == 0 for counted in recount.values())
    # what arrived twice was in flight when somebody died, and is counted
    assert len(arrived) - len(set(arrived)) <= snapshot["maybe_duplicate"]

"""A primary that dies under load, with `ACK_POLICY=replicated`: what was answered 2xx arrives by way of the other.

Real processes, set up by the text of docs/operations.md: two Redis servers and three sentinels, two receivers, a
worker.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import orjson
import pytest

from pipeline import books
from pipeline.addresses import digest
from pipeline.connections import console_redis
from pipeline.home import Home
from pipeline.settings import Settings
from pipeline.spill import survey
from tests.chaos.test_nothing_is_lost import free_port
from tests.flow.sentinels import PATIENCE_S, FailOver, until
from tests.vendors import KEY, Sandbox
from tests.workbench import TOKEN

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SENDERS = 8
#: what is answered, or arrives, before the next thing happens
SOME = 50


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that is removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="relay-"))
    yield path
    shutil.rmtree(path)


class Relay:
    """Two receivers and a worker, started again whenever they end, as a platform does."""

    def __init__(self, folder: Path, url: str, box: Sandbox) -> None:
        self.home = Home(folder / "home")
        self.ports = [free_port(), free_port()]
        self._environment = {
            **os.environ,
            "REDIS_URL": url,
            "ACK_POLICY": "replicated",
            "HOOK_TOKENS": TOKEN,
            "AUDIENCEPOINT_API_KEY": KEY,
            "AUDIENCEPOINT_BASE_URL": box.audiencepoint_url,
            "AUDIENCEPOINT_RATE": "0",
            "FORWARD_MAX_WAIT_S": "0.1",
            "RELAY_HOME": str(self.home.path),
        }
        receiver = ["uvicorn", "receiver.main:app", "--port"]
        self._commands = [[*receiver, str(port)] for port in self.ports]
        self._commands.append(["arq", "workers.main.WorkerSettings"])
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all three."""
        self._running = [self._started(each) for each in self._commands]

    def _started(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=self._environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def keep_up(self) -> None:
        """Start again what has ended: arq gives up at a lost WATCH."""
        for place, process in enumerate(self._running):
            if process.poll() is not None:
                self._running[place] = self._started(self._commands[place])

    def close(self) -> None:
        """End all."""
        for process in self._running:
            process.kill()
            process.wait()


class Drained:
    """Tells whether nothing waits any more, in Redis or on disk."""

    def __init__(self, relay: Relay, url: str) -> None:
        self._relay = relay
        self.settings = Settings.model_validate({"redis_url": url})

    async def __call__(self) -> bool:
        """Look at both, and keep the relay up meanwhile."""
        self._relay.keep_up()
        async with console_redis(self.settings) as client:
            stages = (await books.snapshot(client))["stages"]
        waits = any(row["waiting"] for row in stages.values())
        return not waits and not survey(self._relay.home).deliveries


class Posting:
    """Senders that post to both receivers, each event until it is answered 2xx."""

    def __init__(self, ports: list[int]) -> None:
        self._urls = [f"http://127.0.0.1:{port}/hooks/events/{TOKEN}" for port in ports]
        self._over = asyncio.Event()
        self.acknowledged: dict[str, str] = {}
        self._task = asyncio.create_task(self._run())

    def promised(self, promise: str) -> int:
        """Return how often *promise* was given."""
        return Counter(self.acknowledged.values())[promise]

    async def end(self) -> None:
        """Let each sender have its last answer."""
        self._over.set()
        await asyncio.wait_for(self._task, PATIENCE_S)

    async def is_replicated_again(self) -> bool:
        """Post one event more; tell whether it is on both servers."""
        address = f"late{len(self.acknowledged)}@example.com"
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            promise = await posted(client, self._urls[0], address)
        if promise:
            self.acknowledged[digest(address)] = promise
        return promise == "replicated"

    async def close(self) -> None:
        """Stop in any case."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        numbers = count()
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:

            async def sender(url: str) -> None:
                while not self._over.is_set():
                    address = f"person{next(numbers)}@example.com"
                    while not (promise := await posted(client, url, address)):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                    self.acknowledged[digest(address)] = promise
                    await asyncio.sleep(0.01)

            await asyncio.gather(*(sender(self._urls[n % 2]) for n in range(SENDERS)))


async def posted(client: httpx.AsyncClient, url: str, address: str) -> str:
    """Post one event; return what was promised of it, or nothing."""
    event = {"email": address, "type": "Open", "send_id": "fail-over"}
    body = orjson.dumps(event | {"occurred_at_utc": "2026-01-31T12:00:00"})
    try:
        answer = await client.post(url, content=body)
    except httpx.TransportError:
        return ""
    return answer.headers["relay-ack"] if answer.is_success else ""


@pytest.mark.parametrize(
    ("end", "by_hand"),
    [
        (signal.SIGKILL, True),
        pytest.param(signal.SIGKILL, False, marks=pytest.mark.chaos),
        # its connections stay, and what waited in them is done by it before it hears that it was replaced
        pytest.param(signal.SIGSTOP, False, marks=pytest.mark.chaos),
    ],
)
async def test_nothing_is_lost_when_the_primary_is_gone(
    folder: Path, box: Sandbox, end: signal.Signals, by_hand: bool
) -> None:
    """After kill -9 of the primary, or while it hangs, all that was acknowledged arrives, and the books balance."""
    redis, posting = FailOver(folder), None
    relay = Relay(folder, redis.url, box)
    arrived = box.memory.events
    try:
        # Given
        await redis.start()
        relay.start()
        posting = Posting(relay.ports)
        sent = posting
        await until(lambda: sent.promised("replicated") >= SOME, "deliveries are replicated")
        await until(lambda: len(arrived) >= SOME, "events arrive")

        # When: what is answered without a primary lies on disk; workers go on by themselves
        redis.first.send(end)
        await until(lambda: sent.promised("spilled") >= SOME, "deliveries are spilled")
        await until(redis.has_changed, "all sentinels name the other one")
        # its supervisor starts it again, and it takes itself for the primary
        redis.first.come_back()
        if by_hand:
            await redis.turn_back()
        await sent.end()
        drained = Drained(relay, redis.url)
        await until(drained, "nothing waits any more")
        await until(sent.is_replicated_again, "a delivery is replicated again")
        await until(drained, "nothing waits any more")
        async with console_redis(drained.settings) as client:
            snapshot, recount = await books.snapshot(client), await books.recount(client)
    finally:
        if posting is not None:
            await posting.close()
        relay.close()
        redis.close()

    # Then
    assert set(posting.acknowledged) <= {event["email"] for event in arrived}
    assert snapshot["balanced"]
    assert snapshot["stages"]["forward"]["dead"] == 0
    assert not any(counted["waiting"] for counted in recount.values())

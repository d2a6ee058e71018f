"""The `relay` command in this process, against the test's Redis and an empty home."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from console.main import main
from console.redis_server import EmbeddedRedis
from pipeline import keys
from pipeline.settings import Settings
from tests.vendors import KEY, Sandbox, sandbox_in_thread


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command ended with and printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return all of stdout, read as one JSON text."""
        return orjson.loads(self.out)


Relay = Callable[..., Awaitable[Answer]]

Audited = list[tuple[str, int, dict[str, Any]]]


async def audited(redis: Redis) -> Audited:
    """Return what, count and filter of all of the audit."""
    entries = [entry for _, entry in await redis.xrange(keys.AUDIT)]
    return [(e[b"what"].decode(), int(e[b"count"]), orjson.loads(e[b"filter"])) for e in entries]


HOOK_TOKEN = "hYq3-token-of-pixels_7Kd2"
OTHER_TOKEN = "Zc81-token-of-senders_Qw0"


@pytest.fixture
def relay(
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Relay:
    """Give a function that runs `relay` with the words it is given."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("RELAY_HOME", str(tmp_path / "home"))

    async def run(*words: str) -> Answer:
        capsys.readouterr()
        # a command has an event loop of its own
        status = await asyncio.to_thread(main, words)
        printed = capsys.readouterr()
        return Answer(status, printed.out, printed.err)

    return run


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """Run a server for one test alone, which may spoil or stop it."""
    binary = os.environ.get("TEST_REDIS_SERVER")
    home = Path(tempfile.mkdtemp(prefix="relay-"))
    with EmbeddedRedis(home, Path(binary) if binary else None, appendfsync="no") as server:
        yield server
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def stand_ins() -> Iterator[Sandbox]:
    """Run the vendors' stand-ins, served on loopback, for all tests of this process."""
    with sandbox_in_thread() as running:
        yield running


@pytest.fixture
def box(stand_ins: Sandbox) -> Sandbox:
    """Give the stand-ins as they are when they have just been started."""
    stand_ins.memory.forget()
    stand_ins.faults.clear()
    stand_ins.settings.reset()
    return stand_ins


@pytest.fixture(params=["observed", "documented"])
def dialect(request: pytest.FixtureRequest, box: Sandbox) -> str:
    """Have AudienceLab's stand-in speak each of its two forms; give its name."""
    box.settings.change({"dialect": request.param})
    return str(request.param)


@pytest.fixture
def relay_at_vendors(relay: Relay, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """Give `relay` with the keys and addresses of the stand-ins, a token and a public address."""
    monkeypatch.setenv("AUDIENCELAB_API_KEY", KEY)
    monkeypatch.setenv("AUDIENCELAB_BASE_URL", box.audiencelab_url)
    monkeypatch.setenv("AUDIENCEPOINT_API_KEY", KEY)
    monkeypatch.setenv("AUDIENCEPOINT_BASE_URL", box.audiencepoint_url)
    monkeypatch.setenv("HOOK_TOKENS", f"sendgrid:{OTHER_TOKEN},{HOOK_TOKEN}")
    monkeypatch.setenv("PUBLIC_URL", "https://relay.example.com")
    return relay

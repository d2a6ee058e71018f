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

from console.main import main
from console.redis_server import EmbeddedRedis
from pipeline.settings import Settings


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

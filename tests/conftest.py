"""What every test may use: a real Redis server for each test process, and a clean client on it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from console.redis_server import EmbeddedRedis

# a machine that is slow, or stands still for 200 ms, breaks no rule
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: redis-py and arq know nothing else."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def no_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Believe no certificate: no test leaves loopback, and to read all of them costs each client 50 ms."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("SSL_CERT_FILE", raising=False)
        environment.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """Run a Redis server for this test process (each xdist worker has its own).

    TEST_REDIS_SERVER names the binary; without it the embedded server's own choice is taken.
    """
    binary = os.environ.get("TEST_REDIS_SERVER")
    # a short path, so that the socket fits; pytest's own temporary folders are long
    home = Path(tempfile.mkdtemp(prefix="relay-"))
    # fsync off: these tests prove rules, not durability, and an fsync per command would take
    # minutes
    server = EmbeddedRedis(home, Path(binary) if binary else None, appendfsync="no")
    try:
        with server:
            # a rewrite of the file, begun by the tests before, takes memory and gives it back while a test weighs
            with SyncRedis.from_url(server.url) as client:
                client.config_set("auto-aof-rewrite-percentage", 0)
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """Return the URL of the test server."""
    return redis_server.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Give an async client (bytes in replies) on an emptied server."""
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()

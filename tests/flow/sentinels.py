"""A fail-over Redis as docs/operations.md sets it up: a primary, its replica and three sentinels, each a process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from console.redis_server import binaries, identify
from tests.chaos.test_nothing_is_lost import free_port

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
#: far more than an election takes, also on a busy machine
PATIENCE_S = 90.0
#: the addresses and folders of the page, which are ours here
PRIMARY, PLACE = "192.0.2.1 6379", "/var/lib/redis"


async def until(check: Callable[[], Awaitable[bool] | bool], what: str) -> None:
    """Wait until *check* is true, while Redis cannot answer it, too."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(RedisError, OSError):
                    answer = check()
                    if answer if isinstance(answer, bool) else await answer:
                        return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"it never came to this: {what}") from None


def written_down(name: str) -> str:
    """Return the lines of the file *name* as the page has them."""
    found = re.search(rf"```conf\n# {re.escape(name)}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, f"{PAGE} does not show {name}"
    return found[1]


def binary() -> Path:
    """Return the server that the tests run on; it is a sentinel, too, with `--sentinel`."""
    if named := os.environ.get("TEST_REDIS_SERVER"):
        return Path(named)
    return next(each for each in binaries() if identify(each))


class Server:
    """One of the five, with a port and a folder of its own."""

    def __init__(self, folder: Path, lines: str, *options: str) -> None:
        folder.mkdir()
        self.port = free_port()
        self._options, self._file = options, folder / "own.conf"
        own = f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder / 'log'}\n"
        # it is written again by Redis itself: who follows whom
        self._file.write_text(own + lines.replace(PLACE, str(folder)))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on what it wrote itself last."""
        self._process = subprocess.Popen(
            [binary(), self._file, *self._options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it; of one that ends it the end is waited for."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            if number == signal.SIGKILL:
                self._process.wait()

    def come_back(self) -> None:
        """Start it again when it has ended, or let it go on."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        else:
            self.send(signal.SIGCONT)

    def client(self) -> Redis:
        """Return a client of exactly this server."""
        return Redis(port=self.port, socket_timeout=5, decode_responses=True)


class FailOver:
    """The five together."""

    def __init__(self, folder: Path) -> None:
        lines = written_down("redis.conf")
        self.servers = [Server(folder / f"redis-{n}", lines) for n in range(2)]
        watched = written_down("sentinel.conf").replace(PRIMARY, f"127.0.0.1 {self.first.port}")
        self.sentinels = [Server(folder / f"sentinel-{n}", watched, "--sentinel") for n in range(3)]
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/relay/0"

    @property
    def first(self) -> Server:
        """The primary of the beginning."""
        return self.servers[0]

    @property
    def second(self) -> Server:
        """Its replica."""
        return self.servers[1]

    async def start(self) -> None:
        """Start all and wait until they know each other."""
        for server in self.servers:
            server.start()
        async with self.second.client() as redis:
            await until(lambda: _done(redis.replicaof("127.0.0.1", self.first.port)), "it replies")
        await until(self._is_followed(self.first), "the replica follows")
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            await until(self._knows_all(sentinel), "the sentinels know each other")

    def _is_followed(self, server: Server) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            async with server.client() as redis:
                about = await redis.info("replication")
            return bool(about.get("slave0", {}).get("state") == "online")

        return check

    def _knows_all(self, sentinel: Server) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            async with sentinel.client() as redis:
                about = (await redis.sentinel_masters())["relay"]
            others, replicas = about["num-other-sentinels"], about["num-slaves"]
            return (others, replicas, about["flags"]) == (2, 1, "master")

        return check

    async def turn_back(self) -> None:
        """Make the first a replica of the second, as the sentinels do by themselves some twenty seconds later."""
        async with self.first.client() as redis:
            await until(lambda: _done(redis.replicaof("127.0.0.1", self.second.port)), "it replies")

    async def has_changed(self) -> bool:
        """Tell whether all sentinels name the second as the primary."""
        named = set()
        for sentinel in self.sentinels:
            async with sentinel.client() as redis:
                about = (await redis.sentinel_masters())["relay"]
            named.add((about["port"], about["flags"]))
        return named == {(self.second.port, "master")}

    def close(self) -> None:
        """End all."""
        for server in [*self.sentinels, *self.servers]:
            server.send(signal.SIGCONT)
            server.send(signal.SIGKILL)


async def _done(call: Awaitable[object]) -> bool:
    await call
    return True

"""Starting and ending what is measured, each a process of its own.

A server binds a free port itself and names it in its first line. The environment of a child holds only the
settings given here, and its working directory no `.env`, so a figure never depends on who measures.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from redis.asyncio import Redis as AsyncRedis

from console.redis_server import EmbeddedRedis
from pipeline.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

ROOT = Path(__file__).resolve().parent.parent
STOP_WITHIN_S = 40.0
TOKEN = "bench-token-of-nobody"
Fsync = Literal["everysec", "always", "no"]


@dataclass(frozen=True, slots=True)
class Place:
    """A run's own folder and Redis. With *profiles* each Python child writes a profile there."""

    folder: Path
    url: str
    redis_pid: int
    profiles: Path | None = None

    def client(self) -> Redis:
        """Return a client; replies are bytes."""
        return AsyncRedis.from_url(self.url)

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a child: ours without the relay's settings, then *settings*.

        Where the tests' coverage is measured, the children are not traced: a tracer would be measured too.
        """
        names = {"COVERAGE_PROCESS_CONFIG", *(name.upper() for name in Settings.model_fields)}
        inherited = {name: value for name, value in os.environ.items() if name not in names}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": self.url,
            "HOOK_TOKENS": TOKEN,
            **settings,
        }


@contextmanager
def place(
    appendfsync: Fsync = "everysec", profiles: Path | None = None, maxmemory: int = 3 * 1024**3
) -> Iterator[Place]:
    """Run a Redis of its own in a folder of its own, and remove both at the end."""
    # not under TMPDIR's long paths: the socket's path must fit
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        server = EmbeddedRedis(folder, appendfsync=appendfsync, maxmemory=maxmemory)
        with server:
            yield Place(folder, server.url, server.pid, profiles)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def empty(redis: Redis) -> None:
    """Empty Redis and its append-only file, so that no rewriting falls into a measurement."""
    await redis.flushall()
    await redis.config_set("auto-aof-rewrite-min-size", 8 * 1024**3)


@dataclass(slots=True)
class Running:
    """One child."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.process.pid

    def first_line(self) -> str:
        """Wait for the first line that the child prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        if not line:
            raise RuntimeError(f"{self.process.args!r} did not start:\n{self.last_words()}")
        return line

    def check(self) -> None:
        """Raise `RuntimeError` when the child has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args!r} ended:\n{self.last_words()}")

    def last_words(self) -> str:
        """Return the end of what the child wrote on stderr."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """End the child and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def python(
    at: Place, name: str, arguments: Sequence[str], settings: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run `python -m` with *arguments* as long as the context lasts."""
    profile: list[str] = []
    if at.profiles is not None:
        profile = ["-m", "cProfile", "-o", str(at.profiles / f"{name}.profile")]
    command = [sys.executable, *profile, "-m", *arguments]
    with program(at, name, command, settings) as child:
        yield child


@contextmanager
def program(
    at: Place, name: str, command: Sequence[str], settings: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run *command* as long as the context lasts."""
    log = at.folder / f"{name}.log"
    with log.open("wb") as errors:
        child = Running(
            subprocess.Popen(
                list(command),
                cwd=at.folder,
                env=at.environment(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Ctrl-C reaches only us; we end the children in order
                start_new_session=True,
            ),
            log,
        )
    try:
        yield child
    finally:
        child.stop()


def memory_kb(pid: int) -> tuple[int, int] | None:
    """Return what a process holds in memory now and held at most, in kB.

    None without /proc, and for a process that has ended.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if "VmRSS" not in lines:  # it has ended and was not waited for yet
        return None
    return int(lines["VmRSS"].split()[0]), int(lines["VmHWM"].split()[0])


def cpu_s(pid: int) -> float:
    """Return the seconds a process has spent computing; 0 without /proc.

    Who else runs on the machine changes it far less than it changes any rate.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

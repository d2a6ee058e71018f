"""How each kind of process speaks to Redis: the same server, three tempers.

The receiver must answer within 250 ms, so its pool never retries and gives up soon. The worker must
outlive a restart of Redis, so its pool retries for half a minute, also on a refused connection,
which is a plain `OSError`; a retried write may run twice, and the head of each script says what its second
run does. The console is used by a person, and tries a few times. Replies are bytes everywhere.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.home import Home, HomeError, Server
from pipeline.settings import Settings
from pipeline.silence import Watched

# A connection that rests notices in no other way that the network has gone silent: after 15 s of silence
# three probes, 5 s apart.
_KEEPALIVE = {
    getattr(socket, name): seconds
    for name, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
_TRANSIENT: list[type[Exception]] = [RedisConnectionError, RedisTimeoutError, OSError]
# A sentinel that does not answer must not use up the receiver's 250 ms; the next one is asked. The others can wait.
_SENTINEL_S = {"receiver": 0.1, "worker": 1.0, "console": 1.0}


class NoRedis(Exception):
    """There is no Redis to speak to. The message is a sentence for the operator."""


class Role(StrEnum):
    """Who asks for a connection."""

    RECEIVER = "receiver"
    WORKER = "worker"
    CONSOLE = "console"


def redis_url(settings: Settings) -> str:
    """Return the URL of the Redis to use: REDIS_URL, else what the running `relay up` says."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    home = Home(settings.relay_home)
    try:
        address = home.redis_address()
    except HomeError as error:
        raise NoRedis(str(error)) from error
    if address is None:
        raise NoRedis(
            f"REDIS_URL is not set and no `relay up` runs on {home.path}: set REDIS_URL,"
            " or start `relay up`."
        )
    return address


def connection_pool(settings: Settings, role: Role) -> ConnectionPool:
    """Return a pool with the manners of *role*; nothing is connected yet. Raises `NoRedis`."""
    parts = urlsplit(redis_url(settings))
    options = _manners(role)
    # only TCP knows keep-alive; redis-py's unix connection refuses the very word
    if parts.scheme != "unix":
        options |= {"socket_keepalive": True, "socket_keepalive_options": dict(_KEEPALIVE)}
    if parts.scheme == "redis+sentinel":
        pool = _sentinel_pool(parts, options, _SENTINEL_S[role])
    else:
        pool = ConnectionPool.from_url(parts.geturl(), **options)
    kind = pool.connection_class
    manners = (Watched, Quick) if role is Role.WORKER else (Quick,)
    pool.connection_class = type(f"Quick{kind.__name__}", (*manners, kind), {})
    return pool


class Quick:
    """Three steps of redis-py's asyncio connections that cost more than the commands, made cheap and safe.

    It packs commands in Python, although hiredis is installed; and before each command it asks whether the
    connection is still good by a read with a time-out of zero, which takes a turn of the event loop. A
    reader that has come to its end says the same: nothing else is left in it, because a failed command
    disconnects. Where there is a time-out it makes a task of each write, for `asyncio.wait_for`, which on
    Python 3.11 can swallow a cancellation: SIGTERM would sometimes be ignored.
    """

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter
    socket_timeout: float | None
    is_connected: bool
    connect: Callable[[], Awaitable[None]]
    check_health: Callable[[], Awaitable[None]]
    disconnect: Callable[..., Awaitable[None]]

    def pack_command(self, *args: str | bytes | float) -> list[bytes]:
        """Return the command as Redis reads it; redis-py writes some in two words, `SCRIPT LOAD`."""
        name = args[0]
        if isinstance(name, str) and " " in name:
            args = (*name.split(), *args[1:])
        return [hiredis.pack_command(args)]  # type: ignore[arg-type] # its stub means any number

    async def can_read_destructive(self) -> bool:
        """Tell whether the server has hung up, in whatever way."""
        reader = self._reader
        return reader is None or reader.at_eof() or reader.exception() is not None

    async def send_packed_command(
        self, command: Iterable[bytes] | bytes, check_health: bool = True
    ) -> None:
        """Send a command."""
        if not self.is_connected:
            await self.connect()
        elif check_health:
            await self.check_health()
        try:
            self._writer.writelines([command] if isinstance(command, bytes) else command)
            await self.until_written()
        except BaseException as error:  # what was sent by half cannot be taken back
            await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("Timeout writing to socket") from None
            # uvloop says "the handler is closed" where asyncio says that nobody is there
            if isinstance(error, OSError | RuntimeError):
                raise RedisConnectionError(f"The connection has closed: {error}") from error
            raise

    async def until_written(self) -> None:
        """Wait until what was written is on its way."""
        if self.socket_timeout is None:
            await self._writer.drain()
        else:
            async with asyncio.timeout(self.socket_timeout):
                await self._writer.drain()


class LedPool(SentinelConnectionPool):  # type: ignore[misc] # redis-py's types say nothing here
    """A pool that hangs up on the sentinels, too."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections; not only the idle ones: the end, also of those to the sentinels."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.connection_pool.disconnect()


class Led(SentinelManagedConnection):  # type: ignore[misc] # redis-py's types say nothing here
    """A connection that asks the sentinels where the master is at every try to connect.

    Redis-py's own asks once, and then tries the address it got for as long as its patience lasts: that of a dead
    master half a minute long, while the sentinels have long named another.
    """

    retry: Retry

    async def connect_to(self, address: tuple[str, int]) -> None:
        """Try *address* once; who called tries again, with what the sentinels say then."""
        patience, self.retry = self.retry, Retry(NoBackoff(), 0)
        try:
            await super().connect_to(address)
        finally:
            self.retry = patience

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Return a reply; of a server that is no master any more, nothing is believed and no word kept up."""
        try:
            return await super().read_response(*args, **options)
        except ResponseError as refusal:  # a `ReadOnlyError` redis-py has seen to
            if not is_of_a_replica(refusal):
                raise
            await self.disconnect()
            raise RedisConnectionError("The master is a replica now") from None


def is_of_a_replica(reply: object) -> bool:
    """Tell whether *reply* is the refusal of a server that only reads."""
    # Redis 6 wraps what a command inside a script says
    is_refusal = isinstance(reply, ResponseError)
    return is_refusal and (isinstance(reply, ReadOnlyError) or "-READONLY" in str(reply))


def _manners(role: Role) -> dict[str, object]:
    match role:
        case Role.RECEIVER:
            # one of the two is used up at most: a network that drops packets costs the first,
            # a server that hangs the second, and 50 ms remain for the answer
            return {
                "retry": Retry(NoBackoff(), 0),
                "socket_connect_timeout": 0.2,
                "socket_timeout": 0.2,
            }
        case Role.WORKER:
            return {
                "retry": Retry(ExponentialBackoff(cap=1, base=0.05), 30),
                "retry_on_error": list(_TRANSIENT),
                "socket_connect_timeout": 5,
                "health_check_interval": 15,
            }
        case Role.CONSOLE:
            return {
                "retry": Retry(ExponentialBackoff(cap=0.5, base=0.1), 3),
                "retry_on_error": list(_TRANSIENT),
                "socket_connect_timeout": 2,
                "socket_timeout": 30,
            }


def _sentinel_pool(
    parts: SplitResult, options: dict[str, object], within_s: float
) -> ConnectionPool:
    """Return a pool that asks the sentinels for the master at every new connection.

    User and password are the master's.
    """
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    master, _, database = parts.path.lstrip("/").partition("/")
    sentinels = [
        (host, int(port)) for host, _, port in (item.rpartition(":") for item in hosts.split(","))
    ]
    manager = Sentinel(
        sentinels, sentinel_kwargs={"socket_connect_timeout": within_s, "socket_timeout": within_s}
    )
    return LedPool(
        unquote(master),
        manager,
        connection_class=Led,
        db=int(database or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
        **options,
    )


def _client(settings: Settings, role: Role) -> Redis:
    return Redis.from_pool(connection_pool(settings, role))


def receiver_redis(settings: Settings) -> Redis:
    """Return a client that fails within 200 ms and never retries; close it with `aclose`."""
    return _client(settings, Role.RECEIVER)


def worker_redis(settings: Settings) -> Redis:
    """Return a client that outlives a restart of Redis; close it with `aclose`."""
    return _client(settings, Role.WORKER)


def console_redis(settings: Settings) -> Redis:
    """Return a client for commands that a person waits for; close it with `aclose`."""
    return _client(settings, Role.CONSOLE)


async def product_and_version(redis: Redis) -> Server:
    """Ask the server what it is; Valkey tells Redis's number first, and its own beside."""
    about = await redis.info("server")
    product = str(about.get("server_name", "redis"))
    version = str(about.get(f"{product}_version", about["redis_version"]))
    return Server.parse(f"{product} {version}") or Server(product, ())

"""The connections: a receiver gives up at once, a worker outlives a restart of Redis."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from console.redis_server import EmbeddedRedis
from pipeline.connections import (
    NoRedis,
    Role,
    connection_pool,
    console_redis,
    product_and_version,
    receiver_redis,
    worker_redis,
)
from pipeline.home import Address, Home, Server
from pipeline.settings import Settings
from tests.chaos.test_nothing_is_lost import free_port
from workers.patience import Patience

pytestmark = pytest.mark.anyio


def settings_for(home: Path, url: str | None = None) -> Settings:
    """Return settings that name *url*, whatever the environment says."""
    return Settings(redis_url=SecretStr(url) if url else None, relay_home=home)


@pytest.mark.parametrize("make", [receiver_redis, worker_redis, console_redis])
async def test_every_role_speaks_to_the_server_in_bytes(
    make: Callable[[Settings], Redis], redis_url: str, tmp_path: Path, redis: Redis
) -> None:
    """All three clients reach the same data and never decode it."""
    await redis.set("key", b"\xff")
    async with make(settings_for(tmp_path, redis_url)) as client:
        assert await client.get("key") == b"\xff"


async def test_the_address_file_is_used_when_redis_url_is_unset(
    redis_url: str, tmp_path: Path, redis: Redis
) -> None:
    """Without REDIS_URL the running `relay up` is found; without both there is a sentence."""
    settings = settings_for(tmp_path)
    with pytest.raises(NoRedis, match="REDIS_URL is not set"):
        console_redis(settings)
    home = Home(tmp_path)
    home.write_address(Address(redis_url, tmp_path))
    await redis.set("key", "value")
    async with console_redis(settings) as client:
        assert await client.get("key") == b"value"
    home.address_file.write_text("broken")
    with pytest.raises(NoRedis, match="not readable"):
        console_redis(settings)


async def test_the_receiver_does_not_retry_a_refused_connection(tmp_path: Path) -> None:
    """Where nobody listens the receiver's client fails with the first attempt."""
    attempts = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with receiver_redis(settings_for(tmp_path, f"redis://127.0.0.1:{port}")) as client:
        with pytest.raises(RedisConnectionError):
            await client.ping()
    server.close()
    assert attempts == 1


@asynccontextmanager
async def hanging() -> AsyncIterator[str]:
    """Give the URL of a server that takes every connection and then says nothing."""
    release = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    release.set()
    server.close()


async def test_the_receiver_does_not_wait_for_a_server_that_hangs(tmp_path: Path) -> None:
    """A server that takes the connection and then says nothing is given up by the client itself."""
    async with hanging() as url:
        settings = settings_for(tmp_path, url)
        async with receiver_redis(settings) as client:
            with pytest.raises((RedisTimeoutError, RedisConnectionError)):
                await client.ping()
    options = connection_pool(settings, Role.RECEIVER).connection_kwargs
    assert options["socket_timeout"] <= 0.2
    assert options["socket_connect_timeout"] <= 0.2


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("value", [b"", b"x" * 30_000_000])
async def test_nobody_waits_for_ever_for_a_server_that_hangs(
    role: Role, value: bytes, tmp_path: Path
) -> None:
    """Whoever asks gives up a connection on which nothing is answered, or nothing taken, and tries another."""
    async with hanging() as url:
        pool = connection_pool(settings_for(tmp_path, url), role)
        options = {"retry": Retry(NoBackoff(), 1), "lib_name": None, "lib_version": None}
        if role is Role.WORKER:
            assert 0 < pool.connection_class.silence_s <= 10
            pool.connection_class.silence_s = 0.05
        else:
            assert 0 < pool.connection_kwargs["socket_timeout"] <= 30
            options["socket_timeout"] = 0.05
        pool.connection_kwargs |= options
        async with Redis.from_pool(pool) as client:
            with pytest.raises((RedisTimeoutError, RedisConnectionError)):
                await client.set("key", value)


async def test_a_worker_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    """A command given while Redis is away is answered once it is back, on the same client."""
    with EmbeddedRedis(tmp_path, appendfsync="no") as server:
        async with worker_redis(settings_for(tmp_path, server.url)) as client:
            await client.set("key", "value")
            await asyncio.to_thread(server.stop)
            answer = asyncio.ensure_future(client.get("key"))
            await asyncio.sleep(0)  # the command is under way before the server comes back
            await asyncio.to_thread(server.start)
            assert await answer == b"value"


async def test_an_answer_that_has_come_is_read_however_late(redis_url: str, tmp_path: Path) -> None:
    """A worker that was busy or stood still for longer than silence may last keeps its connection."""
    pool = connection_pool(settings_for(tmp_path, redis_url), Role.WORKER)
    pool.connection_class.silence_s = 0.05
    async with Redis.from_pool(pool) as client:
        before = await client.client_id()
        task = asyncio.ensure_future(client.ping())
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop stands still
        assert await task
        assert await client.client_id() == before


def test_a_worker_tries_again_what_failed_on_the_way(tmp_path: Path) -> None:
    """A connection that is refused or goes silent is a reason to try again."""
    settings = settings_for(tmp_path, "redis://127.0.0.1:1")
    options = connection_pool(settings, Role.WORKER).connection_kwargs
    assert options["socket_keepalive"]
    assert options["health_check_interval"] > 0
    assert OSError in options["retry_on_error"]


async def test_no_cancellation_is_swallowed(redis_url: str, tmp_path: Path) -> None:
    """Whoever is cancelled in the middle of a command ends, at whatever turn of the loop: SIGTERM is obeyed."""
    async with worker_redis(settings_for(tmp_path, redis_url)) as client:
        for turns in range(1, 40):
            await client.ping()
            task = asyncio.ensure_future(client.ping())
            for _ in range(turns % 8):
                await asyncio.sleep(0)
            if task.cancel():
                await asyncio.wait([task])
                assert task.cancelled()


@pytest.mark.parametrize("role", Role)
def test_every_kind_of_url_gives_its_pool(tmp_path: Path, role: Role) -> None:
    """Socket, TLS and sentinel URLs are understood for every role, with user and password."""
    unix = connection_pool(settings_for(tmp_path, "unix:///x/y.sock?db=2"), role)
    assert issubclass(unix.connection_class, UnixDomainSocketConnection)
    assert unix.connection_kwargs["db"] == 2
    secure = connection_pool(settings_for(tmp_path, "rediss://u:p%2Fw@example.com:1/3"), role)
    assert issubclass(secure.connection_class, SSLConnection)
    assert secure.connection_kwargs["password"] == "p/w"
    url = "redis+sentinel://u:p%2Fw@192.0.2.1:1,192.0.2.2:2/main/4"
    sentinel = connection_pool(settings_for(tmp_path, url), role)
    assert isinstance(sentinel, SentinelConnectionPool)
    assert sentinel.service_name == "main"
    assert sentinel.connection_kwargs["username"] == "u"
    assert sentinel.connection_kwargs["password"] == "p/w"
    assert sentinel.connection_kwargs["db"] == 4
    hosts = [each.connection_pool.connection_kwargs for each in sentinel.sentinel_manager.sentinels]
    assert [(each["host"], each["port"]) for each in hosts] == [("192.0.2.1", 1), ("192.0.2.2", 2)]


@asynccontextmanager
async def sentinel_that_names(*ports: int) -> AsyncIterator[int]:
    """Give the port of a sentinel that names one of *ports* each time it is asked, in the end always the last."""
    left = list(ports)

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer SENTINEL MASTERS for the one master, and OK to all else."""
        while (head := await reader.readline()).startswith(b"*"):
            words = []
            for _ in range(int(head[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2].upper())
            if words[0] != b"SENTINEL":
                writer.write(b"+OK\r\n")
                continue
            fields = [
                *("name", "main", "ip", "127.0.0.1", "port", str(left[0])),
                *("flags", "master", "num-other-sentinels", "0"),
            ]
            reply = f"*1\r\n*{len(fields)}\r\n"
            reply += "".join(f"${len(each)}\r\n{each}\r\n" for each in fields)
            writer.write(reply.encode())
            if len(left) > 1:
                del left[0]
        writer.close()

    sentinel = await asyncio.start_server(lead, "127.0.0.1", 0)
    yield sentinel.sockets[0].getsockname()[1]
    assert len(left) == 1
    sentinel.close()


@pytest.fixture
def with_a_port(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Run a server that has a port, because its path is too long for a socket; give port and password."""
    binary = os.environ.get("TEST_REDIS_SERVER")
    home = tmp_path / ("long" * 30)
    with EmbeddedRedis(home, Path(binary) if binary else None, appendfsync="no") as server:
        options = Redis.from_url(server.url).connection_pool.connection_kwargs
        yield options["port"], options["password"]


async def test_a_sentinel_leads_to_its_master(tmp_path: Path, with_a_port: tuple[int, str]) -> None:
    """The pool asks a sentinel where the master is, and the command reaches that server."""
    port, password = with_a_port
    async with sentinel_that_names(port) as sentinel:
        url = f"redis+sentinel://:{password}@127.0.0.1:{sentinel}/main/0"
        async with worker_redis(settings_for(tmp_path, url)) as client:
            assert await client.set("key", "value")
            assert isinstance(client.connection_pool, SentinelConnectionPool)


async def test_a_worker_that_starts_asks_the_sentinel_at_every_try(
    tmp_path: Path, with_a_port: tuple[int, str]
) -> None:
    """While it waits for Redis it does not hold on to the dead master that was named first."""
    port, password = with_a_port
    async with sentinel_that_names(free_port(), free_port(), port) as sentinel:
        url = f"redis+sentinel://:{password}@127.0.0.1:{sentinel}/main/0"
        pool = connection_pool(settings_for(tmp_path, url), Role.WORKER)
        pool.connection_kwargs["retry"] = (
            Patience()
        )  # it has not begun: it waits as long as it takes
        async with asyncio.timeout(60), Redis.from_pool(pool) as client:
            assert await client.set("key", "value")


async def test_a_master_that_became_a_replica_is_left(
    tmp_path: Path, with_a_port: tuple[int, str]
) -> None:
    """Told by a script that a server only reads, a worker asks the sentinel anew and tries again."""
    port, password = with_a_port
    async with sentinel_that_names(port) as sentinel:
        url = f"redis+sentinel://:{password}@127.0.0.1:{sentinel}/main/0"
        async with (
            worker_redis(settings_for(tmp_path, url)) as client,
            Redis(port=port, password=password) as operator,
        ):
            write = client.register_script("return redis.call('SET', 'key', 'value')")
            assert await write()
            await operator.execute_command("REPLICAOF", "127.0.0.1", port)
            promoted = asyncio.create_task(_promoted_soon(operator, await _refused(operator)))
            assert await write() == b"OK"
            await promoted


async def _promoted_soon(operator: Redis, refused_before: int) -> None:
    """Make it a master again once it has refused a write."""
    while await _refused(operator) == refused_before:  # noqa: ASYNC110 - it is asked over the wire
        await asyncio.sleep(0.01)
    await operator.execute_command("REPLICAOF", "NO", "ONE")


async def _refused(operator: Redis) -> int:
    """Return how many scripts have failed."""
    return int((await operator.info("commandstats"))["cmdstat_evalsha"]["failed_calls"])


async def test_the_server_is_named(redis: Redis, redis_server: EmbeddedRedis) -> None:
    """Product and version are what the server's own binary says."""
    found = await product_and_version(redis)
    assert found.product in ("redis", "valkey")
    assert found.version >= (6, 2)


async def test_valkey_is_told_from_the_redis_it_says_it_is() -> None:
    """Valkey reports Redis's number for old clients; its own stands beside."""

    class Valkey:
        async def info(self, section: str) -> dict[str, str]:
            return {
                "redis_version": "7.2.4",
                "server_name": "valkey",
                "valkey_version": "8.0.1",
            }

    assert await product_and_version(Valkey()) == Server("valkey", (8, 0, 1))


# what is made cheap ---------------------------------------------------------------------------------


async def test_commands_of_two_words_are_understood(
    redis_url: str, tmp_path: Path, redis: Redis
) -> None:
    """redis-py names some commands in two words; Redis gets them as two."""
    async with worker_redis(settings_for(tmp_path, redis_url)) as client:
        assert "maxmemory" in await client.config_get("maxmemory")
        digest = await client.script_load("return ARGV[1]")
        assert await client.evalsha(digest, 0, b"\xff\r\n") == b"\xff\r\n"
        assert await client.execute_command("CLIENT GETNAME") is None


@pytest.mark.parametrize(
    "value", [b"", b"\x00\xff\r\n$3\r\n", b"x" * 3_000_000, "h\u00e9", 7, -1.5]
)
async def test_every_value_arrives_as_it_is(
    value: str | bytes | float, redis_url: str, tmp_path: Path, redis: Redis
) -> None:
    """Bytes of any kind and size, text and numbers are what redis-py would have written."""
    async with worker_redis(settings_for(tmp_path, redis_url)) as client:
        await client.set("quick", value)
        await redis.set("plain", value)
        assert await client.get("quick") == await redis.get("plain")


@pytest.mark.parametrize("transaction", [False, True])
async def test_pipelines_are_packed_command_by_command(
    transaction: bool, redis_url: str, tmp_path: Path, redis: Redis
) -> None:
    """Each command of a pipeline has its own reply, large ones among small ones."""
    async with worker_redis(settings_for(tmp_path, redis_url)) as client:
        async with client.pipeline(transaction=transaction) as pipe:
            pipe.set("a", b"\xff" * 100_000)
            pipe.strlen("a")
            pipe.config_get("maxmemory")
            pipe.echo(b"\r\n")
            replies = await pipe.execute()
        assert replies[:2] == [True, 100_000]
        assert replies[3] == b"\r\n"


@pytest.mark.parametrize("make", [receiver_redis, worker_redis, console_redis])
async def test_a_connection_the_server_closed_is_replaced_before_the_next_command(
    make: Callable[[Settings], Redis], redis_url: str, tmp_path: Path, redis: Redis
) -> None:
    """Also the receiver's client, which never retries, notices it and succeeds on a new connection."""
    async with make(settings_for(tmp_path, redis_url)) as client:
        first = await client.client_id()
        assert await redis.client_kill_filter(_id=str(first)) == 1
        assert await client.client_id() != first


async def test_a_receiver_outlives_a_restart_between_its_commands(tmp_path: Path) -> None:
    """After Redis came back the first command of a client that never retries succeeds."""
    with EmbeddedRedis(tmp_path, appendfsync="no") as server:
        async with receiver_redis(settings_for(tmp_path, server.url)) as client:
            await client.ping()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            assert await client.ping()

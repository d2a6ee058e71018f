"""RELAY_HOME: private, replaced whole, one `relay up` at a time."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.home import Address, Home, HomeError, Server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give a home that exists."""
    home = Home(tmp_path / "home")
    home.make()
    return home


def mode(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_private(home: Home) -> None:
    """The directory is 0700 and every file 0600, from whatever it was before."""
    home.path.chmod(0o755)
    home.make()
    home.make_token()
    home.write_address(Address("redis://:secret@127.0.0.1:1/0", home.path))
    home.write_version(Server("redis", (7, 0, 15)))
    assert mode(home.path) == 0o700
    for path in home.path.iterdir():
        assert mode(path) == 0o600, path.name


def test_git_does_not_see_a_home(home: Home) -> None:
    """Wherever a home lies, its token is not committed by accident."""
    assert (home.path / ".gitignore").read_text() == "*\n"


def test_a_token_is_made_once(home: Home) -> None:
    """The token is long, stays the same, and may be extended by hand, a line or comma for each."""
    assert home.read_tokens() is None
    token = home.make_token()
    assert len(token) >= 16
    assert home.make_token() == token
    home.tokens_file.write_text(f"{token}\npixel:{token}\n")
    assert home.read_tokens() == f"{token},pixel:{token}"


def test_the_address_is_found_until_it_is_removed(home: Home) -> None:
    """The address file says what runs; no file means that nothing does."""
    assert home.redis_address() is None
    address = Address("unix:///x", home.trial().path, trial=True, receiver_url="http://127.0.0.1:1")
    home.write_address(address)
    assert home.running() == address
    assert home.redis_address() == "unix:///x"
    home.remove_address()
    home.remove_address()
    assert home.running() is None


def test_an_address_does_not_show_its_password(home: Home) -> None:
    """The URL of an address may hold a password, so its repr leaves it out."""
    assert "secret" not in repr(Address("redis://:secret@127.0.0.1:1/0", home.path))


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json"])
def test_a_damaged_address_file_is_told_in_a_sentence(home: Home, text: str) -> None:
    """A file that is no address is neither a traceback nor 'nothing runs'."""
    home.address_file.write_text(text)
    with pytest.raises(HomeError, match="not readable"):
        home.running()


def test_a_home_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    """A file in the place of the directory is named."""
    (tmp_path / "home").write_text("")
    with pytest.raises(HomeError, match="cannot be used"):
        Home(tmp_path / "home").make()


def test_the_version_is_remembered(home: Home) -> None:
    """The server that wrote the data is known afterwards; nonsense is not overlooked."""
    assert home.read_version() is None
    home.write_version(Server("valkey", (8, 0, 1)))
    assert home.version_file.read_text() == "valkey 8.0.1\n"
    assert home.read_version() == Server("valkey", (8, 0, 1))
    home.version_file.write_text("something\n")
    with pytest.raises(HomeError, match="does not name a server"):
        home.read_version()


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("redis 6.2.14", Server("redis", (6, 2, 14))),
        (
            "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d",
            Server("redis", (7, 0, 15)),
        ),
        ("Valkey server v=8.0.1 sha=00000000:0 malloc=libc bits=64", Server("valkey", (8, 0, 1))),
        ("keydb 6.3", None),
        ("", None),
    ],
)
def test_a_server_is_read_from_a_file_or_from_its_own_words(
    text: str, server: Server | None
) -> None:
    """Our own file and the binaries' `--version` are both understood."""
    assert Server.parse(text) == server


def test_versions_are_compared_as_numbers() -> None:
    """7.0.9 is older than 7.0.15."""
    assert Server("redis", (7, 0, 9)).version < Server("redis", (7, 0, 15)).version


def test_only_one_holds_a_home(home: Home) -> None:
    """A second `relay up` on the same home is refused, and may run once the first has ended."""
    with home.lock(), pytest.raises(HomeError, match="Another"), Home(home.path).lock():
        pass
    with home.lock():
        pass


def test_the_lock_goes_with_its_holder(home: Home) -> None:
    """A holder killed with SIGKILL does not lock the home for ever."""
    code = (
        "import sys, pathlib; from pipeline.home import Home\n"
        "with Home(pathlib.Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, home.path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HomeError), home.lock():
            pass
        holder.kill()
    with home.lock():
        pass

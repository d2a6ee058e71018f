"""The measurements of receiving, of idling and of long runs count right, in a tiny size; how fast is never asserted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import endurance, fsynced, idle, latency, load, plot, receive
from bench.peers import installed, race
from bench.processes import Place, place
from bench.receive import RECEIVER
from bench.results import Figure, WrongCount
from bench.sizes import TINY

PEERS = Path(race.__file__).parent


@pytest.fixture
def at() -> Iterator[Place]:
    """Run a Redis for one measurement."""
    with place("no") as found:
        yield found


def names(figures: list[Figure]) -> set[str]:
    """Return what was measured."""
    assert all(figure.value >= 0 for figure in figures)
    return {figure.name for figure in figures}


@pytest.mark.anyio
async def test_peers_store_exactly_what_they_answered(at: Place) -> None:
    """The peer on arq takes its turn beside the receiver, and its queue holds a job for each answer."""
    found = await receive.in_turns(at, (RECEIVER, race.ARQ), TINY, 1)
    assert {name: len(rounds) for name, rounds in found.items()} == {
        "receiver": 1,
        race.ARQ.name: 1,
    }
    assert all(one.answered > 0 for rounds in found.values() for one in rounds)


@pytest.mark.anyio
async def test_a_peer_that_stores_nothing_ends_the_run(at: Place) -> None:
    """What answers 202 and keeps nothing is no peer."""
    liar = receive.Contender("liar", receive.NOOP.command, race.ARQ.stored)
    with pytest.raises(WrongCount, match="stored by liar: 0 instead of"):
        await receive.in_turns(at, (liar,), TINY, 1)


@pytest.mark.anyio
async def test_the_time_to_an_answer_is_told_of_both(at: Place) -> None:
    """Receiver and no-op handler get the same rate, and each has its percentiles."""
    found = names(await latency.measure(at, TINY, "no"))
    assert {"receiver p99, appendfsync no", "noop p99, appendfsync no"} <= found
    assert "p99, receiver / no-op handler, appendfsync no" in found


@pytest.mark.anyio
async def test_both_promises_are_measured() -> None:
    """A receiver of each policy takes its turn, `fsynced` on a Redis that keeps it."""
    with place("everysec") as at:
        found = names(await fsynced.measure(at, TINY))
    assert "fsynced / stored" in found


@pytest.mark.anyio
async def test_a_long_run_forwards_each_posted_event_once(at: Place) -> None:
    """Every event is another one, arrives, and what it cost is told of all three processes."""
    found = names(await endurance.measure(at, TINY))
    assert {f"{one}'s CPU for 1 000 events" for one in ("receiver", "worker", "Redis")} <= found


@pytest.mark.anyio
async def test_an_idle_relay_is_watched_and_asked(at: Place) -> None:
    """What idling costs is told, and every single event has arrived."""
    found = names(await idle.measure(at, TINY))
    assert {"all three, idle", "single event, post to arrival"} <= found


@pytest.mark.anyio
async def test_an_answer_is_timed_from_the_moment_its_request_was_due() -> None:
    """A server that stalls is charged for every request that was due meanwhile, not for one of them."""
    stall_s = 0.3

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(100):
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            if number == 0:
                await asyncio.sleep(stall_s)
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await load.post(port, b"GET / HTTP/1.1\r\n\r\n", 1, 0.3, rate=100)
    assert found["answered"] == 30
    # one connection: thirty were due while the first was held up, the middle one half as long as the first
    assert found["p50_ms"] > stall_s * 1000 / 3


@pytest.mark.anyio
async def test_each_number_is_sent_once() -> None:
    """Requests that are numbered differ in nothing but their number, wherever it stands."""
    came = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            came.append(line)
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        request = f"{load.MARK} and {load.MARK}\n".encode()
        await load.post(port, request, 3, 60, numbers=(5, 12))
    assert sorted(came) == [b"%09d and %09d\n" % (n, n) for n in range(5, 12)]


def test_the_lock_names_exact_versions_and_no_places() -> None:
    """Each package of the peers has one version and a hash; where it comes from is npm's to know."""
    lock = json.loads((PEERS / "package-lock.json").read_text())
    manifest = json.loads((PEERS / "package.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert lock["packages"][""]["dependencies"] == manifest["dependencies"]
    for name, version in manifest["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert packages[f"node_modules/{name}"]["version"] == version
    for one in packages.values():
        assert one["integrity"].startswith("sha512-")
        assert "resolved" not in one


@pytest.mark.parametrize("script", ["xadd.cjs", "bullmq.cjs"])
def test_peers_on_node_do_the_same_job(script: str) -> None:
    """Both wait for Redis before they answer, behind the token in constant time and the body cap of `app.cjs`."""
    assert re.search(r"await (redis\.xadd|queue\.add)\(", (PEERS / script).read_text())
    shared = (PEERS / "app.cjs").read_text()
    assert "timingSafeEqual(" in shared
    assert "bodyLimit: MOST_BYTES" in shared
    assert "const MOST_BYTES = 20 * 1024 * 1024" in shared


def test_peers_are_not_installed_by_looking(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without `--peers` nothing is fetched, and without Node that is said in a sentence."""
    monkeypatch.setattr(installed, "FOLDER", tmp_path / "peers")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not installed.are_installed()
    with pytest.raises(installed.NoNode, match="need Node 20 or newer"):
        installed.install()
    assert not (tmp_path / "peers").exists()


def test_the_plot_shows_each_figure_it_is_made_for() -> None:
    """Bars are as long as their figures, names are escaped, and what was not measured is left out."""
    figures = [
        {"bench": "peers", "name": f"{name}, appendfsync always", "value": value, "unit": unit}
        for name, value, unit in (
            ("receiver", 10_000.0, "requests/s"),
            ("Starlette & arq", 2_500.0, "requests/s"),
            ("receiver / Starlette & arq", 4.0, "x"),
        )
    ]
    drawn = plot.drawn({"machine": "2 cores <here>", "figures": figures})
    widths = [
        float(width) for width in re.findall(r'<rect class="\w+" x="280".*?width="(.*?)"', drawn)
    ]
    assert widths[0] == 4 * widths[1]
    assert "Starlette &amp; arq" in drawn
    assert "2 cores &lt;here&gt;" in drawn
    assert "prefers-color-scheme: dark" in drawn
    assert "everysec" not in drawn

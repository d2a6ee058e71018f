"""Receiving: requests a second of the receiver against those of a handler that only reads the body.

Both run in one uvicorn process each, take turns, and get the same requests over 64 connections. The
receiver checks the token and answers after Redis has stored the body; after every round the books must
hold exactly what was answered 2xx. On a machine that is too busy for the receiver's time limit some are
answered 503: how many is told beside the rates, and such a delivery may be stored or not.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.request import urlopen

import orjson

from bench import processes
from bench.backlog import body_of
from bench.processes import Fsync, Place
from bench.results import Figure, WrongCount, expect, middle
from bench.sizes import Sizes
from pipeline import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

    Post = Callable[[Place, int, float], "Round"]

CONNECTIONS = 64
BODY_BYTES = 900
PATH = f"/hooks/events/{processes.TOKEN}"
WARM_UP_S = 0.5
WARM_WITHIN_S = 120.0
DRAINED_WITHIN_S = 60.0
BENCH = "receive"


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of posting found: how many were answered 2xx (*spilled* of them spilled), and how many 503."""

    answered: int
    put_off: int
    per_s: float
    p99_ms: float | None
    p50_ms: float | None = None
    server_cpu_us: float = 0.0
    redis_cpu_us: float = 0.0
    spilled: int = 0


async def _in_the_books(redis: Redis) -> int:
    return int(await redis.hget(keys.BOOKS, "unpack:in") or 0)


async def _nothing(redis: Redis) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those that are compared: how it is started, and how many deliveries it has stored."""

    name: str
    command: Sequence[str]
    stored: Callable[[Redis], Awaitable[int]]
    settings: Mapping[str, str] = field(default_factory=dict)
    is_ours: bool = False
    #: it compiles what it runs often, and is slow until it has
    warms_up: bool = False

    def but(self, name: str, **settings: str) -> Contender:
        """Return the same with other *settings*."""
        return replace(self, name=name, settings=settings)


def uvicorn(app: str) -> list[str]:
    """Return how *app* is started."""
    return [sys.executable, "-m", "bench.serve", app]


NOOP = Contender("noop", uvicorn("bench.noop:app"), _nothing)
RECEIVER = Contender("receiver", uvicorn("receiver.main:app"), _in_the_books, is_ours=True)


async def measure(at: Place, sizes: Sizes, fsync: Fsync, *, wrk: bool = False) -> list[Figure]:
    """Measure; *fsync* only names the figures, the server has it already."""
    post = _with_wrk if wrk else with_load
    # wrk hangs up with requests on the way
    on_the_way = CONNECTIONS * wrk
    found = await in_turns(at, (NOOP, RECEIVER), sizes, sizes.receive_rounds, post, on_the_way)
    return list(_figures(found, f"appendfsync {fsync}{', wrk' if wrk else ''}"))


async def in_turns(
    at: Place,
    contenders: Sequence[Contender],
    sizes: Sizes,
    rounds: int,
    post: Post | None = None,
    on_the_way: int = 0,
) -> dict[str, list[Round]]:
    """Let the *contenders* take turns; return the rounds of each."""
    redis = at.client()
    found: dict[str, list[Round]] = {one.name: [] for one in contenders}
    try:
        with ExitStack() as stack:
            servers = {one.name: serve(at, stack, one) for one in contenders}
            for server in servers.values():
                if server.contender.warms_up:
                    requests = partial(with_load, numbers=(0, sizes.peer_warm_up))
                    await turn(at, redis, server, requests, WARM_WITHIN_S)
            for name, seconds in _turns(list(servers), sizes, rounds):
                one = await turn(at, redis, servers[name], post or with_load, seconds, on_the_way)
                if seconds >= sizes.receive_s:
                    found[name].append(one)
    finally:
        await redis.aclose()
    return found


@dataclass(frozen=True, slots=True)
class Server:
    """A contender that serves."""

    contender: Contender
    pid: int
    port: int


def serve(at: Place, stack: ExitStack, contender: Contender) -> Server:
    """Start *contender*; the end of *stack* ends it."""
    name, settings = contender.name, contender.settings
    if contender.command[0] == sys.executable:  # it may be profiled
        server = processes.python(at, name, contender.command[2:], settings)
    else:
        server = processes.program(at, name, contender.command, settings)
    running = stack.enter_context(server)
    made = Server(contender, running.pid, int(running.first_line()))
    _told(
        made, "relay_spill_deliveries"
    )  # it answers when it has started, which is after it listens
    return made


async def turn(
    at: Place, redis: Redis, server: Server, post: Post, seconds: float, on_the_way: int = 0
) -> Round:
    """Let *server* have its turn on an empty Redis; what it answered must be stored."""
    await processes.empty(redis)
    spilled = _told(server, "relay_spilled_deliveries_total")
    one = _with_cpu(at, server, post, seconds)
    await _drained(server)
    one = replace(one, spilled=_told(server, "relay_spilled_deliveries_total") - spilled)
    stored = await server.contender.stored(redis)
    if server.contender.is_ours:
        check_stored(stored, one, on_the_way)
    else:
        wanted = one.answered if server.contender is not NOOP else 0
        expect(f"stored by {server.contender.name}", stored, wanted)
        expect(f"put off by {server.contender.name}", one.put_off, 0)
    return one


async def _drained(server: Server) -> None:
    """Wait until Redis has what a receiver had to spill."""
    until = perf_counter() + DRAINED_WITHIN_S
    while _told(server, "relay_spill_deliveries"):
        if perf_counter() > until:
            raise WrongCount(f"spilled and not drained after {DRAINED_WITHIN_S:g} seconds")
        await asyncio.sleep(0.05)


def _told(server: Server, name: str) -> int:
    """Return a number of the receiver's own metrics."""
    if not server.contender.is_ours:
        return 0
    with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=60) as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def _with_cpu(at: Place, server: Server, post: Post, seconds: float) -> Round:
    """Post, and share the processor time among the requests."""
    before = [processes.cpu_s(pid) for pid in (server.pid, at.redis_pid)]
    one = post(at, server.port, seconds)
    after = [processes.cpu_s(pid) for pid in (server.pid, at.redis_pid)]
    requests = one.answered + one.put_off
    spent = [(b - a) * 1e6 / requests for a, b in zip(before, after, strict=True)]
    return replace(one, server_cpu_us=spent[0], redis_cpu_us=spent[1])


def _turns(names: list[str], sizes: Sizes, rounds: int) -> Iterator[tuple[str, float]]:
    for name in names:
        yield name, min(WARM_UP_S, sizes.receive_s / 2)
    for number in range(rounds):
        # who begins changes, so that a machine that slows down favours nobody
        for name in names if number % 2 == 0 else names[::-1]:
            yield name, sizes.receive_s


def check_stored(stored: int, one: Round, on_the_way: int = 0) -> None:
    """Raise `WrongCount` unless all that was answered 2xx is stored, and nothing that was never posted.

    A flush that Redis did not answer in time may be stored, and is spilled as well: then it is stored twice.
    """
    if not one.answered <= stored <= one.answered + one.put_off + one.spilled + on_the_way:
        raise WrongCount(f"stored: {stored} with {one.answered} answered and {one.put_off} put off")


def request(body: bytes) -> str:
    """Return the request that posts *body*."""
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"User-Agent: bench\r\nContent-Length: {len(body)}\r\n\r\n{body.decode()}"
    )


def with_load(at: Place, port: int, seconds: float, **more: object) -> Round:
    """Post with `bench.load`, which takes *more*."""
    task = {
        "port": port,
        "request": request(body_of(BODY_BYTES)),
        "connections": CONNECTIONS,
        "seconds": seconds,
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=orjson.dumps(task),
        stdout=subprocess.PIPE,
        env=at.environment({}),
        timeout=seconds + 60,
        check=True,
    )
    found = orjson.loads(done.stdout)
    expect("answers that are neither 2xx nor 503", found["refused"], 0)
    expect("requests without an answer", found["lost"], 0)
    answered, per_s = found["answered"], found["answered"] / found["seconds"]
    return Round(answered, found["put_off"], per_s, found["p99_ms"], found["p50_ms"])


def _with_wrk(at: Place, port: int, seconds: float) -> Round:
    binary = shutil.which("wrk")
    if binary is None:
        raise RuntimeError("wrk is not on PATH")
    script = at.folder / "post.lua"
    body = body_of(BODY_BYTES).decode()
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f"wrk.body = [==[{body}]==]\n"
    )
    done = subprocess.run(
        [
            *(binary, "--threads", "1", "--connections", str(CONNECTIONS), "--latency"),
            *("--duration", f"{max(1, round(seconds))}s", "--script", str(script)),
            f"http://127.0.0.1:{port}{PATH}",
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise WrongCount(done.stdout)
    answered = re.search(r"(\d+) requests in", done.stdout)
    per_s = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert answered and per_s  # noqa: PT018 - both are in every output of wrk
    return Round(int(answered[1]), 0, float(per_s[1]), None)


def _figures(found: dict[str, list[Round]], how: str) -> Iterator[Figure]:
    for name, rounds in found.items():
        yield middle(BENCH, f"{name}, {how}", [one.per_s for one in rounds], "requests/s")
        spent = [one.server_cpu_us for one in rounds]
        yield middle(BENCH, f"{name}'s CPU a request, {how}", spent, "µs")
    redis = [one.redis_cpu_us for one in found["receiver"]]
    yield middle(BENCH, f"Redis's CPU a request, {how}", redis, "µs")
    waits = [one.p99_ms for one in found["receiver"] if one.p99_ms is not None]
    if waits:
        yield middle(BENCH, f"receiver p99, {how}", waits, "ms")
    yield _put_off(found["receiver"], how)
    yield _spilled(found["receiver"], how)
    # each round of the receiver against its neighbour in time
    ratios = [
        ours.per_s / theirs.per_s
        for ours, theirs in zip(found["receiver"], found["noop"], strict=True)
    ]
    yield middle(BENCH, f"receiver / no-op handler, {how}", ratios, "x", at_least=1)


def _put_off(rounds: list[Round], how: str) -> Figure:
    """Return the share of all requests that were answered 503: a median would hide a bad round."""
    shares = tuple(100 * one.put_off / (one.answered + one.put_off) for one in rounds)
    put_off = sum(one.put_off for one in rounds)
    share = 100 * put_off / (put_off + sum(one.answered for one in rounds))
    return Figure(BENCH, f"put off by the receiver, {how}", share, "%", shares, at_most=0)


def _spilled(rounds: list[Round], how: str) -> Figure:
    """Return the share of what was answered 2xx that Redis did not take in time, and the disk did."""
    share = 100 * sum(one.spilled for one in rounds) / sum(one.answered for one in rounds)
    return Figure(BENCH, f"spilled by the receiver, {how}", share, "%")

"""Receiving: requests a second of the receiver against those of a handler that only reads the body.

Both run in one uvicorn process each, take turns, and get the same requests over 64 connections. The
receiver checks the token and answers after Redis has stored the body; after every round the books must
hold exactly what was answered 2xx. On a machine that is too busy for the receiver's time limit some are
answered 503: how many is told beside the rates, and such a delivery may be stored or not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import orjson

from bench import processes
from bench.backlog import body_of
from bench.processes import Fsync, Place
from bench.results import Figure, WrongCount, expect, middle
from bench.sizes import Sizes
from pipeline import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

CONNECTIONS = 64
BODY_BYTES = 900
PATH = f"/hooks/events/{processes.TOKEN}"
WARM_UP_S = 0.5
BENCH = "receive"


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of posting found: how many were answered 2xx, and how many 503."""

    answered: int
    put_off: int
    per_s: float
    p99_ms: float | None
    server_cpu_us: float = 0.0
    redis_cpu_us: float = 0.0


async def measure(at: Place, sizes: Sizes, fsync: Fsync, *, wrk: bool = False) -> list[Figure]:
    """Measure; *fsync* only names the figures, the server has it already."""
    redis = at.client()
    post = _with_wrk if wrk else _with_load
    try:
        with ExitStack() as stack:
            servers = {
                name: _serve(at, stack, name, app)
                for name, app in (("noop", "bench.noop:app"), ("receiver", "receiver.main:app"))
            }
            found: dict[str, list[Round]] = {name: [] for name in servers}
            for name, seconds in _turns(list(servers), sizes):
                await processes.empty(redis)
                one = _with_cpu(at, servers[name], partial(post, at), seconds)
                stored = await _stored(redis)
                if name == "receiver":
                    # wrk hangs up with requests on the way
                    check_stored(stored, one, on_the_way=CONNECTIONS * wrk)
                else:
                    expect(f"stored by {name}", stored, 0)
                    expect(f"put off by {name}", one.put_off, 0)
                if seconds >= sizes.receive_s:
                    found[name].append(one)
    finally:
        await redis.aclose()
    return list(_figures(found, f"appendfsync {fsync}{', wrk' if wrk else ''}"))


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two that are compared."""

    pid: int
    port: int


def _serve(at: Place, stack: ExitStack, name: str, app: str) -> Server:
    server = stack.enter_context(processes.python(at, name, ["bench.serve", app]))
    return Server(server.pid, int(server.first_line()))


def _with_cpu(
    at: Place, server: Server, post: Callable[[int, float], Round], seconds: float
) -> Round:
    """Post, and share the processor time among the requests."""
    before = [processes.cpu_s(pid) for pid in (server.pid, at.redis_pid)]
    one = post(server.port, seconds)
    after = [processes.cpu_s(pid) for pid in (server.pid, at.redis_pid)]
    requests = one.answered + one.put_off
    spent = [(b - a) * 1e6 / requests for a, b in zip(before, after, strict=True)]
    return replace(one, server_cpu_us=spent[0], redis_cpu_us=spent[1])


def _turns(names: list[str], sizes: Sizes) -> Iterator[tuple[str, float]]:
    for name in names:
        yield name, min(WARM_UP_S, sizes.receive_s / 2)
    for number in range(sizes.receive_rounds):
        # who begins changes, so that a machine that slows down favours nobody
        for name in names if number % 2 == 0 else names[::-1]:
            yield name, sizes.receive_s


async def _stored(redis: Redis) -> int:
    return int(await redis.hget(keys.BOOKS, "unpack:in") or 0)


def check_stored(stored: int, one: Round, on_the_way: int = 0) -> None:
    """Raise `WrongCount` unless all that was answered 2xx is stored, and nothing that was never posted."""
    if not one.answered <= stored <= one.answered + one.put_off + on_the_way:
        raise WrongCount(f"stored: {stored} with {one.answered} answered and {one.put_off} put off")


def _request() -> str:
    body = body_of(BODY_BYTES).decode()
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"User-Agent: bench\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def _with_load(at: Place, port: int, seconds: float) -> Round:
    task = {
        "port": port,
        "request": _request(),
        "connections": CONNECTIONS,
        "seconds": seconds,
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
    answered = found["answered"]
    return Round(answered, found["put_off"], answered / found["seconds"], found["p99_ms"])


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
    # each round of the receiver against its neighbour in time
    ratios = [
        ours.per_s / theirs.per_s
        for ours, theirs in zip(found["receiver"], found["noop"], strict=True)
    ]
    yield middle(BENCH, f"receiver / no-op handler, {how}", ratios, "x", at_least=0.9)


def _put_off(rounds: list[Round], how: str) -> Figure:
    """Return the share of all requests that were answered 503: a median would hide a bad round."""
    shares = tuple(100 * one.put_off / (one.answered + one.put_off) for one in rounds)
    put_off = sum(one.put_off for one in rounds)
    share = 100 * put_off / (put_off + sum(one.answered for one in rounds))
    return Figure(BENCH, f"put off by the receiver, {how}", share, "%", shares, at_most=0)

"""The console's pages with a million dead letters and a million visitors in Redis, against an empty one.

Two consoles of their own processes, each with a Redis of its own, answer in turns; a page is timed from the first byte
of its request on an open connection to the last of its answer, on this machine. The figures of Flow are shared for a
second, so each turn waits until they are read anew. Redis times each of its own commands meanwhile.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from statistics import median, quantiles
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from bench import crowd, processes
from bench.processes import Place, Running
from bench.results import Figure, WrongCount, expect, middle
from bench.sizes import Sizes
from console.web.gauges import FRESH_S
from pipeline import keys
from pipeline.dead_letters import kinds as kinds_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "console"
FLOW = "Flow"
WITHIN_MS = 50.0
#: a command that takes longer keeps receivers and workers waiting
LONGEST_MS = 5.0
#: Redis's log of slow commands is made to hold them all
_KEPT_COMMANDS = 100_000
#: processor time is told in hundredths of a second
_ENOUGH = 100
MOST_BYTES = 12 * 1024**3

_STAGE, _SOURCE, _REASON = crowd.RARE
_RARE = urlencode({"stage": _STAGE, "source": _SOURCE, "reason": _REASON})
#: each page's request: what is got, or what is posted to where
PAGES: Mapping[str, tuple[str, Mapping[str, str] | None]] = {
    FLOW: ("/", None),
    "Flow, the last week": ("/?range=week", None),
    "dead letters": ("/dead", None),
    "dead letters of a rare kind": (f"/dead?{_RARE}", None),
    "dead letters of a stage": ("/dead?stage=forward", None),
    "dead letters of an hour": ("/dead?since=1h", None),
    "plan for a rare kind": (
        "/dead/plan",
        {"verb": "retry", "stage": _STAGE, "source": _SOURCE, "reason": _REASON},
    ),
    "plan for all": ("/dead/plan", {"verb": "retry"}),
    "visitor by address": ("/visitors/find", {"who": "p000000001@example.com"}),
    "visitor": ("/visitors/person-000000001", None),
    "deliveries": ("/deliveries", None),
    "destinations": ("/destinations", None),
    "senders": ("/senders", None),
    "settings": ("/settings", None),
    "examination": ("/settings/examination", None),
    "metrics": ("/metrics", None),
    "api/status": ("/api/status", None),
    "api/dead": ("/api/dead", None),
}
#: an empty relay has no such visitor
_MISSING = {"visitor by address", "visitor"}


class Browser:
    """One connection to a console, with its session."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=120)
        status, text, cookie = self._ask("GET", "/visitors", None, {})
        expect("status of /visitors", status, 200)
        self._cookie = cookie.partition(";")[0]
        self._token = re.findall(r'name="form_token" value="([^"]+)"', text)[0]

    def time(self, name: str) -> tuple[int, float]:
        """Ask for the page *name*; return the status, and how many milliseconds the answer took."""
        path, fields = PAGES[name]
        form = None if fields is None else urlencode({"form_token": self._token, **fields})
        headers = {"Cookie": self._cookie}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        began = perf_counter()
        status, _, _ = self._ask("GET" if form is None else "POST", path, form, headers)
        return status, 1000 * (perf_counter() - began)

    def _ask(
        self, method: str, path: str, body: str | None, headers: Mapping[str, str]
    ) -> tuple[int, str, str]:
        self._connection.request(method, path, body, dict(headers))
        answer = self._connection.getresponse()
        text = answer.read().decode()
        return answer.status, text, answer.headers.get("set-cookie", "")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Fill a second Redis, and read every page of both in turns; *at* stays empty."""
    with processes.place("no", at.profiles, MOST_BYTES) as filled, ExitStack() as stack:
        redis, bare = filled.client(), at.client()
        try:
            await redis.config_set("appendonly", "no")  # nothing of it is needed again
            began = perf_counter()
            await crowd.fill(filled, redis, sizes.console_letters, sizes.console_visitors)
            took = perf_counter() - began
            await crowd.note_a_week(bare)
            sides = [_open(stack, filled, "filled"), _open(stack, at, "empty")]
            browsers = [browser for _, browser in sides]
            for (
                browser
            ) in browsers:  # templates, scripts and connections are made at the first look
                _read(browser, is_filled=browser is browsers[0])
            await _begin_log(redis)
            turns = []
            for number in range(sizes.console_rounds):
                await asyncio.sleep(1.1 * FRESH_S)
                turn = {}
                for browser in browsers if number % 2 else browsers[::-1]:
                    is_filled = browser is browsers[0]
                    turn[is_filled] = await asyncio.to_thread(_read, browser, is_filled=is_filled)
                turns.append((turn[True], turn[False]))
            longest = await _longest(redis)
            spent = [await asyncio.to_thread(_spent, *side) for side in sides]
            costs = [
                Figure(BENCH, f"{FLOW}, {name}, processor time of the console", cost, "ms")
                for name, cost in zip(("filled", "empty"), spent, strict=True)
            ]
            return [*_figures(turns), *costs, *await _of_redis(redis, *longest, took, sizes)]
        finally:
            await redis.aclose()
            await bare.aclose()


def _open(stack: ExitStack, at: Place, name: str) -> tuple[Running, Browser]:
    settings = {"RELAY_HOME": str(at.folder / "relay")}
    arguments = ["bench.serve", "console.main:app"]
    console = stack.enter_context(processes.python(at, f"console-{name}", arguments, settings))
    browser = Browser(int(console.first_line()))
    stack.callback(browser.close)
    return console, browser


def _read(browser: Browser, *, is_filled: bool) -> dict[str, float]:
    """Ask for every page once; return how many milliseconds each took."""
    found = {}
    for name in PAGES:
        status, found[name] = browser.time(name)
        wanted = {200, 303} if is_filled or name not in _MISSING else {404}
        if status not in wanted:
            raise WrongCount(f"{name} was answered {status}")
    return found


def _spent(console: Running, browser: Browser) -> float:
    """Return how many milliseconds the console computes for one Flow, which no other process changes."""
    before = processes.cpu_s(console.pid)
    for _ in range(_ENOUGH):
        browser.time(FLOW)
    return 1000 * (processes.cpu_s(console.pid) - before) / _ENOUGH


async def _begin_log(redis: Redis) -> None:
    """Have Redis write down how long each command takes from now on."""
    await redis.config_set("slowlog-max-len", _KEPT_COMMANDS)
    await redis.config_set("slowlog-log-slower-than", 0)
    await redis.slowlog_reset()
    await redis.config_resetstat()


async def _longest(redis: Redis) -> tuple[float, float]:
    """Return how many milliseconds the longest kind of command takes as a rule, and the longest one of all took.

    A command that keeps others waiting does so each time; a machine that stands still makes any of them long once.
    """
    await redis.config_set("slowlog-log-slower-than", -1)
    kinds: dict[bytes, list[float]] = {}
    for entry in await redis.slowlog_get(_KEPT_COMMANDS):
        # a script is known by its digest, any other by its key
        kind = b" ".join(entry["command"].split(b" ")[:2])
        kinds.setdefault(kind, []).append(float(entry["duration"]) / 1000)
    return max(median(each) for each in kinds.values()), max(map(max, kinds.values()))


def _figures(turns: list[tuple[dict[str, float], dict[str, float]]]) -> Iterator[Figure]:
    for name in PAGES:
        full = [filled[name] for filled, _ in turns]
        empty = [bare[name] for _, bare in turns]
        limit, most = (WITHIN_MS, 2.0) if name == FLOW else (None, None)
        yield middle(BENCH, f"{name}, filled", full, "ms", at_most=limit)
        if name == FLOW:
            yield Figure(BENCH, f"{name}, filled, p95", _p95(full), "ms", at_most=limit)
            # what others of the machine do to the slowest of either
            yield Figure(BENCH, f"{name}, empty, p95", _p95(empty), "ms")
        yield middle(BENCH, f"{name}, empty", empty, "ms")
        ratio = median(full) / median(empty)
        if name not in _MISSING:
            yield Figure(BENCH, f"{name}, filled / empty", ratio, "x", at_most=most)


def _p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]


async def _of_redis(
    redis: Redis, as_a_rule: float, once: float, took: float, sizes: Sizes
) -> list[Figure]:
    """Return what Redis tells of its commands and of its memory."""
    used = (await redis.info("memory"))["used_memory"]
    asked = {name.removeprefix("cmdstat_") for name in await redis.info("commandstats")}
    if unbounded := asked & {"keys", "smembers", "sort"}:
        raise WrongCount(f"unbounded commands: {unbounded}")
    rows = sizes.console_letters + sizes.console_visitors
    return [
        Figure(BENCH, "the longest command of Redis, median", as_a_rule, "ms", at_most=LONGEST_MS),
        Figure(BENCH, "the longest command of Redis, stalls too", once, "ms"),
        Figure(BENCH, "Redis, filled", used / 1024**2, "MiB"),
        Figure(BENCH, "written, letters and visitors together", rows / took, "a second"),
        *await _weights(redis, sizes.console_letters),
    ]


async def _weights(redis: Redis, letters: int) -> list[Figure]:
    """Return what a letter and its places in the indexes cost, on average, in bytes."""
    kinds = [
        keys.dead_of(f"{kind.stage}/{kind.source}/{kind.reason}") for kind in await kinds_of(redis)
    ]
    by_kind = sum([int(await redis.memory_usage(key, samples=200)) for key in kinds])
    of_all = int(await redis.memory_usage(keys.DEAD, samples=200))
    (newest,) = await redis.zrange(keys.DEAD, -1, -1)
    letter = keys.letter(newest.decode().rpartition("/")[2])
    (visitor_id,) = await redis.zrange(keys.VISITORS, -1, -1)
    visitor = keys.visitor(visitor_id.decode())
    return [
        Figure(BENCH, "a letter", int(await redis.memory_usage(letter, samples=0)), "bytes"),
        Figure(BENCH, "its place among all", of_all / letters, "bytes"),
        Figure(BENCH, "its place among its kind", by_kind / letters, "bytes"),
        Figure(BENCH, "a visitor", int(await redis.memory_usage(visitor, samples=0)), "bytes"),
    ]

"""The whole way: events a second of one worker, from the stored delivery to the vendor's answer.

Compared with the rate at which arq's own worker runs jobs that do nothing, one an event. Both take turns on
the same Redis. The clock starts with the worker's first step and stops when the last event is in an accepted
batch; then every event must have arrived exactly once, and the books must balance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.request import urlopen

import orjson

from bench import backlog, empty_jobs, processes
from bench.backlog import Shape
from bench.processes import Place, Running
from bench.results import Figure, WrongCount, expect, middle
from bench.sizes import Sizes
from pipeline import books, keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "flow"
SHAPES = (backlog.SINGLE, backlog.THIRTY)
LOOK_EVERY_S = 0.01
LONGEST_S = 600.0


async def measure(at: Place, sizes: Sizes, *, sandbox: bool = False) -> list[Figure]:
    """Measure every shape and arq's empty jobs, in turns."""
    redis = at.client()
    arq: list[float] = []
    flows: dict[Shape, list[Drained]] = {shape: [] for shape in SHAPES}
    try:
        for _ in range(sizes.rounds):
            arq.append(await empty_jobs_per_s(at, redis, sizes.empty_jobs))
            for shape, rounds in flows.items():
                rounds.append(await whole_way(at, redis, sizes.flow_events, shape, sandbox))
    finally:
        await redis.aclose()
    return list(_figures(arq, flows))


@dataclass(frozen=True, slots=True)
class Drained:
    """A backlog that went the whole way."""

    events_per_s: float
    worker_cpu_us: float
    redis_cpu_us: float


def _figures(arq: list[float], flows: dict[Shape, list[Drained]]) -> Iterator[Figure]:
    yield middle(BENCH, "arq, empty jobs", arq, "jobs/s")
    for shape, rounds in flows.items():
        rates = [one.events_per_s for one in rounds]
        yield middle(BENCH, f"relay, {shape.name}", rates, "events/s")
        spent = [one.worker_cpu_us for one in rounds]
        yield middle(BENCH, f"worker's CPU an event, {shape.name}", spent, "µs")
        spent = [one.redis_cpu_us for one in rounds]
        yield middle(BENCH, f"Redis's CPU an event, {shape.name}", spent, "µs")
        ratios = [ours / theirs for ours, theirs in zip(rates, arq, strict=True)]
        yield middle(BENCH, f"relay / arq, {shape.name}", ratios, "x", at_least=10)


async def empty_jobs_per_s(at: Place, redis: Redis, jobs: int) -> float:
    """Let arq run *jobs* empty jobs; return how many it ran in a second."""
    await processes.empty(redis)
    client = empty_jobs.client(at.url)
    for first in range(0, jobs, 50):
        numbers = range(first, min(first + 50, jobs))
        await asyncio.gather(*(client.enqueue_job(empty_jobs.NAME, n) for n in numbers))
    expect("jobs enqueued", await redis.zcard(empty_jobs.QUEUE), jobs)
    await client.aclose(close_connection_pool=True)

    async def left() -> int:
        return int(await redis.zcard(empty_jobs.QUEUE))

    started = perf_counter()
    with processes.python(at, "empty-jobs", ["arq", "bench.empty_jobs.WorkerSettings"]) as worker:
        first_left = await until(worker, left, lambda n: n < jobs)
        began = perf_counter()
        await until(worker, left, lambda n: n == 0)
        # a handful is done at the first look: then all of it counts, too slow as that is
        done, since = (first_left, began) if first_left else (jobs, started)
        return done / (perf_counter() - since)


async def whole_way(
    at: Place, redis: Redis, events: int, shape: Shape, sandbox: bool = False
) -> Drained:
    """Preload *events*, let one worker forward them all, and return how that went."""
    await processes.empty(redis)
    deliveries, _ = await backlog.fill(redis, events, shape)
    with vendor(at, sandbox) as url, worker_process(at, url) as worker:
        await first_take(redis, worker)
        pids = (worker.pid, at.redis_pid)
        before = [processes.cpu_s(pid) for pid in pids]
        seconds = await drained(redis, worker, events)
        after = [processes.cpu_s(pid) for pid in pids]
        await check_books(redis, events, deliveries)
        if not sandbox:
            check_arrived(url, events)
    spent = [(b - a) * 1e6 / events for a, b in zip(before, after, strict=True)]
    return Drained(events / seconds, *spent)


@contextmanager
def vendor(at: Place, sandbox: bool = False) -> Iterator[str]:
    """Run something that takes events; give its base URL."""
    if not sandbox:
        with processes.python(at, "sink", ["bench.sink"]) as sink:
            yield sink.first_line()
        return
    with processes.python(at, "sandbox", ["sandbox", "--quiet"]) as stand_in:
        yield stand_in.first_line().split()[-1] + "/audiencepoint/v1"


@contextmanager
def worker_process(at: Place, url: str, name: str = "worker") -> Iterator[Running]:
    """Run one worker as a platform does, with no limit of calls a second."""
    settings = {
        "AUDIENCEPOINT_API_KEY": "sandbox",
        "AUDIENCEPOINT_BASE_URL": url,
        "AUDIENCEPOINT_RATE": "0",
    }
    arguments = ["arq", "workers.main.WorkerSettings"]
    with processes.python(at, name, arguments, settings) as worker:
        yield worker


async def first_take(redis: Redis, worker: Running) -> None:
    """Wait until the worker begins: the bell's number is raised before each take."""

    async def looks() -> int:
        return int(await redis.hget(keys.BELLS, "unpack") or 0)

    await until(worker, looks, lambda n: n > 0)


async def drained(redis: Redis, worker: Running, events: int) -> float:
    """Wait until every event is forwarded; return the seconds that took."""

    async def done() -> int:
        return int(await redis.hget(keys.BOOKS, "forward:done") or 0)

    began = perf_counter()
    await until(worker, done, lambda n: n >= events)
    return perf_counter() - began


async def until(
    worker: Running, ask: Callable[[], Awaitable[int]], is_enough: Callable[[int], bool]
) -> int:
    """Ask until it is enough, while the worker lives, for a bounded time."""
    latest = perf_counter() + LONGEST_S
    while perf_counter() < latest:
        if is_enough(number := await ask()):
            return number
        worker.check()
        await asyncio.sleep(LOOK_EVERY_S)
    raise WrongCount(f"not done after {LONGEST_S:g} seconds:\n{worker.last_words()}")


async def check_books(redis: Redis, events: int, deliveries: int) -> None:
    """Raise `WrongCount` unless the books say that everything went the whole way, once."""
    status = await books.snapshot(redis)
    expect("balanced", status["balanced"], True)
    expect("deliveries unpacked", status["stages"]["unpack"]["done"], deliveries)
    for name, wanted in (("in", events), ("done", events), ("duplicate", 0), ("dead", 0)):
        expect(f"forward: {name}", status["stages"]["forward"][name], wanted)
    expect("maybe_duplicate", status["maybe_duplicate"], 0)


def check_arrived(url: str, events: int) -> None:
    """Raise `WrongCount` unless every event has arrived exactly once."""
    counts = arrived(url)
    expect("events arrived", counts["events"], events)
    expect("different events arrived", counts["different"], events)


def arrived(url: str) -> dict[str, float]:
    """Return what the sink counts: batches, events, different ones, and when the last came."""
    with urlopen(f"{url}/", timeout=60) as answer:  # noqa: S310 - our own sink
        counts: dict[str, float] = orjson.loads(answer.read())
    return counts

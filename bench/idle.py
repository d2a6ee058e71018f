"""An idle relay: the processor time it uses, and how soon a single event reaches AudiencePoint.

Receiver, worker and Redis run with both vendors' keys, and nothing happens. Then one event at a time is posted, at
moments that have nothing to do with the relay's own clocks, and is timed from the first byte of its request to
its arrival at the sink.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from random import Random
from typing import TYPE_CHECKING

import orjson

from bench import backlog, flow, processes, receive
from bench.processes import Place, Running
from bench.receive import RECEIVER, Server
from bench.results import Figure, expect, middle
from bench.sizes import Sizes
from pipeline import keys
from pipeline.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "idle"
SETTLED_AFTER_S = 3.0
WITHIN_S = Settings.model_fields["forward_max_wait_s"].default + 0.3


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Measure what idling costs, then single events."""
    redis = at.client()
    await processes.empty(redis)
    try:
        with flow.vendor(at) as url, ExitStack() as stack:
            worker = stack.enter_context(flow.worker_process(at, url))
            server = receive.serve(at, stack, RECEIVER)
            # the first opens every connection
            await _one_event(redis, worker, server, url, 0)
            await asyncio.sleep(min(SETTLED_AFTER_S, sizes.idle_s))
            pids = {"receiver": server.pid, "worker": worker.pid, "Redis": at.redis_pid}
            spent = await _idle(pids, sizes.idle_s)
            took = []
            for number in range(1, sizes.single_events + 1):
                await asyncio.sleep(Random(number).random())
                took.append(await _one_event(redis, worker, server, url, number))
            flow.check_arrived(url, sizes.single_events + 1)
    finally:
        await redis.aclose()
    return list(_figures(spent, took))


async def _idle(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """Wait; return the share of a core that each process used, in per cent."""
    began, before = time.perf_counter(), {name: processes.cpu_s(pid) for name, pid in pids.items()}
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    return {name: 100 * (processes.cpu_s(pid) - before[name]) / took for name, pid in pids.items()}


async def _one_event(redis: Redis, worker: Running, server: Server, url: str, number: int) -> float:
    """Post an event; return how many seconds later it arrived."""
    body, status = orjson.dumps(backlog.event(number)), 503
    while status == 503:  # a busy machine; the sender sends it again
        began = time.time()
        status = _post(server.port, body)
    expect("status", status, 202)

    async def done() -> int:
        return int(await redis.hget(keys.BOOKS, "forward:done") or 0)

    await flow.until(worker, done, lambda n: n > number)
    return flow.arrived(url)["last_at"] - began


def _post(port: int, body: bytes) -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", receive.PATH, body, {"Content-Type": "application/json"})
        return connection.getresponse().status


def _figures(spent: dict[str, float], took: list[float]) -> Iterator[Figure]:
    for name, share in spent.items():
        yield Figure(BENCH, f"{name}, idle", share, "% of a core")
    yield Figure(BENCH, "all three, idle", sum(spent.values()), "% of a core", at_most=2)
    yield middle(BENCH, "single event, post to arrival", took, "s", at_most=WITHIN_S)
    yield Figure(BENCH, "single event, the slowest", max(took), "s")

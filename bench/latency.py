"""How long a sender waits: the time to an answer at 80 % of what the receiver can do, in an open loop.

Requests come at fixed moments, whatever the answers do, and each is timed from the moment it was due, so that a pause
of the server counts for all that would have come in it. The no-op handler gets the same rate in the next turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from bench import receive
from bench.processes import Fsync, Place
from bench.receive import NOOP, RECEIVER, Round
from bench.results import Figure, middle
from bench.sizes import Sizes

BENCH = "latency"
LOAD = 0.8


async def measure(at: Place, sizes: Sizes, fsync: Fsync) -> list[Figure]:
    """Measure; *fsync* only names the figures, the server has it already."""
    redis = at.client()
    found: dict[str, list[Round]] = {NOOP.name: [], RECEIVER.name: []}
    rates: list[float] = []
    seconds = sizes.receive_s
    try:
        with ExitStack() as stack:
            servers = [receive.serve(at, stack, one) for one in (NOOP, RECEIVER)]
            for server in servers:
                await receive.turn(at, redis, server, receive.with_load, seconds / 2)
            for number in range(sizes.latency_rounds):
                # found anew each time: a shared machine changes its pace
                most = await receive.turn(at, redis, servers[1], receive.with_load, seconds)
                rates.append(LOAD * most.per_s)
                at_fixed_moments = partial(receive.with_load, rate=rates[-1])
                for server in servers if number % 2 == 0 else servers[::-1]:
                    one = await receive.turn(at, redis, server, at_fixed_moments, seconds)
                    found[server.contender.name].append(one)
    finally:
        await redis.aclose()
    return list(_figures(found, rates, f"appendfsync {fsync}"))


def _figures(found: dict[str, list[Round]], rates: list[float], how: str) -> Iterator[Figure]:
    yield middle(BENCH, f"rate, {LOAD:.0%} of the receiver's most, {how}", rates, "requests/s")
    for name, rounds in found.items():
        yield middle(BENCH, f"{name} p50, {how}", [one.p50_ms or 0 for one in rounds], "ms")
        yield middle(BENCH, f"{name} p99, {how}", [one.p99_ms or 0 for one in rounds], "ms")
    pairs = zip(found[RECEIVER.name], found[NOOP.name], strict=True)
    ratios = [(ours.p99_ms or 0) / (theirs.p99_ms or 1) for ours, theirs in pairs]
    yield middle(BENCH, f"p99, receiver / no-op handler, {how}", ratios, "x", at_most=3)

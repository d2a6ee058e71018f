"""Receiving against other receivers that do the same job: requests a second, in turns, the same generator and Redis.

Every peer checks the token, caps the body and answers 202 once Redis has the body (README.md beside this file);
after each round Redis must hold as many as were answered. Those on Node take part where `scripts/bench --peers`
has installed them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench import receive
from bench.peers import installed
from bench.processes import Fsync, Place
from bench.receive import NOOP, RECEIVER, Contender, Round
from bench.results import Figure, middle
from bench.sizes import Sizes

if TYPE_CHECKING:
    from redis.asyncio import Redis

BENCH = "peers"


async def _entries(redis: Redis) -> int:
    return int(await redis.xlen("peer:xadd"))


async def _bullmq_jobs(redis: Redis) -> int:
    return int(await redis.llen("bull:peer:wait"))


async def _arq_jobs(redis: Redis) -> int:
    return int(await redis.zcard("arq:queue"))


ARQ = Contender("Starlette + arq", receive.uvicorn("bench.peers.arq_job:app"), _arq_jobs)
ON_NODE = tuple(
    Contender(name, installed.node(script), stored, installed.SETTINGS, warms_up=True)
    for name, script, stored in (
        ("fastify + XADD", "xadd.cjs", _entries),
        ("fastify + BullMQ", "bullmq.cjs", _bullmq_jobs),
    )
)
#: how many times as fast the receiver is to be
TARGETS = {"fastify + XADD": 1.2, "fastify + BullMQ": 2.0, "Starlette + arq": 4.0}


async def measure(at: Place, sizes: Sizes, fsync: Fsync) -> list[Figure]:
    """Measure; *fsync* only names the figures, the server has it already."""
    contenders = (RECEIVER, NOOP, *(ON_NODE if installed.are_installed() else ()), ARQ)
    found = await receive.in_turns(at, contenders, sizes, sizes.peer_rounds)
    return list(_figures(found, f"appendfsync {fsync}"))


def _figures(found: dict[str, list[Round]], how: str) -> Iterator[Figure]:
    for name, rounds in found.items():
        yield middle(BENCH, f"{name}, {how}", [one.per_s for one in rounds], "requests/s")
        spent = [one.server_cpu_us + one.redis_cpu_us for one in rounds]
        yield middle(BENCH, f"{name} and Redis, CPU a request, {how}", spent, "µs")
    for name in [name for name in found if name in TARGETS]:
        pairs = zip(found[RECEIVER.name], found[name], strict=True)
        ratios = [one.per_s / other.per_s for one, other in pairs]
        yield middle(BENCH, f"receiver / {name}, {how}", ratios, "x", at_least=TARGETS[name])

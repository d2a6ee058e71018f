"""What a firmer promise costs: receiving with `ACK_POLICY=fsynced` against `stored`.

`stored` is measured on a Redis that syncs its file every second, `fsynced` on the same one while it syncs before each
answer (`appendfsync always`). The setting is changed between the turns; nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from bench import receive
from bench.processes import Place
from bench.receive import RECEIVER, Round, Server
from bench.results import Figure, middle
from bench.sizes import Sizes

BENCH = "fsynced"
POLICIES = {"stored": "everysec", "fsynced": "always"}


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Measure both promises, in turns."""
    redis = at.client()
    found: dict[str, list[Round]] = {policy: [] for policy in POLICIES}
    try:
        with ExitStack() as stack:
            servers: dict[str, Server] = {}
            for policy, fsync in POLICIES.items():
                await redis.config_set("appendfsync", fsync)  # what a receiver asks when it starts
                contender = RECEIVER.but(policy, ACK_POLICY=policy)
                servers[policy] = receive.serve(at, stack, contender)
            # the first is a warm-up, where there is more than one
            for number in range(-(sizes.fsynced_rounds > 1), sizes.fsynced_rounds):
                for policy in POLICIES if number % 2 == 0 else reversed(POLICIES):
                    await redis.config_set("appendfsync", POLICIES[policy])
                    one = await receive.turn(
                        at, redis, servers[policy], receive.with_load, sizes.receive_s
                    )
                    if number >= 0:
                        found[policy].append(one)
    finally:
        await redis.aclose()
    return list(_figures(found))


def _figures(found: dict[str, list[Round]]) -> Iterator[Figure]:
    for policy, rounds in found.items():
        name = f"ACK_POLICY={policy}, appendfsync {POLICIES[policy]}"
        yield middle(BENCH, name, [one.per_s for one in rounds], "requests/s")
        yield middle(BENCH, f"p99, {name}", [one.p99_ms or 0 for one in rounds], "ms")
    pairs = zip(found["fsynced"], found["stored"], strict=True)
    ratios = [firm.per_s / plain.per_s for firm, plain in pairs]
    yield middle(BENCH, "fsynced / stored", ratios, "x", at_least=0.75)

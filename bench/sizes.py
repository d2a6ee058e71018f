"""How much is measured: a few seconds for the tests, minutes at a desk, everything for the record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Amounts of work, and how often each side has its turn."""

    rounds: int
    # many short turns: a machine that others use too changes its pace within seconds
    receive_rounds: int
    receive_s: float
    # whole batches of thirty: an incomplete last one would wait for FORWARD_MAX_WAIT_S, and be all that is measured
    flow_events: int
    empty_jobs: int
    waiting: int
    backlogs: tuple[int, int]
    marks: tuple[int, ...]
    plain_keys: int
    import_rows: tuple[int, int]
    parse_rounds: int
    parse_events: int
    mixed_rounds: int
    mixed_events: int
    peer_rounds: int
    peer_warm_up: int
    latency_rounds: int
    fsynced_rounds: int
    endurance_events: int
    idle_s: float
    single_events: int
    drain_events: int
    console_letters: int
    console_visitors: int
    console_rounds: int
    # user agents that a worker has read before it is measured; there are fewer, so this is all of them
    mixed_agents: int = 1_000_000


TINY = Sizes(
    *(1, 1, 0.2, 600, 400, 600, (300, 900), (3_000,), 1_000, (150, 300), 1, 60, 1, 1_020),
    *(1, 20, 1, 1, 300, 0.3, 1, 900),
    *(1_200, 600, 2),
    mixed_agents=300,
)
QUICK = Sizes(
    *(3, 11, 1.0, 20_010, 2_000, 10_000, (10_000, 40_000), (1_000_000,), 200_000, (4_000, 20_000)),
    *(5, 3_000, 3, 20_400, 7, 10_000, 7, 7, 25_000),
    *(10.0, 5, 100_000),
    *(50_000, 50_000, 15),
)
_LARGE = (100_020, 10_000, 50_000, (50_000, 500_000), (1_000_000, 10_000_000), 1_000_000)
FULL = Sizes(
    *(5, 31, 1.5, *_LARGE, (20_000, 100_000)),
    *(11, 6_000, 5, 102_000, 15, 30_000, 31, 31, 1_000_000),
    *(60.0, 31, 2_000_000),
    *(1_000_000, 1_000_000, 41),
)

"""What is broken when: a list of acts, drawn from a seed and nothing else.

The acts are dealt like cards: every kind, part and point has come before any comes again, in another order each time.
Whether an act meets what it is meant for depends on the machine; what is tried, and when, does not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from chaos.points import ACKNOWLEDGING, SPILLING, WORKING, Point

RECEIVERS = ("receiver 1", "receiver 2")
WORKERS = ("worker 1", "worker 2")
REDIS, VENDORS = "redis", "vendors"
PARTS = (*RECEIVERS, *WORKERS, REDIS, VENDORS)
#: seconds between two acts
GAP_S = (0.5, 2.5)
#: the first act comes when everything works
FIRST_S = 2.0


class Kind(StrEnum):
    """What is done to a part."""

    KILL = "kill -9"
    TERM = "SIGTERM"
    TRAP = "ended at a point"
    PAUSE = "SIGSTOP"
    FULL = "Redis full"
    DISK = "disk full"
    FAULT = "vendors' fault"
    CLOCK = "clock jump"


@dataclass(frozen=True, slots=True)
class Act:
    """One fault: when (seconds from the start), what, to whom, and for how long if it lasts."""

    at_s: float
    kind: Kind
    part: str
    lasts_s: float = 0.0
    detail: str = ""
    times: int = 0
    point: Point | None = None


Card = Callable[[random.Random, float], Act]


def draw(seed: int, seconds: float) -> list[Act]:
    """Return the acts of a run, in order; none begins in the last two seconds."""
    chance, acts, pile = random.Random(seed), list[Act](), list[Card]()
    at_s = FIRST_S
    while at_s < seconds - 2:
        if not pile:
            pile = _cards()
            chance.shuffle(pile)
        acts.append(pile.pop()(chance, round(at_s, 2)))
        at_s += chance.uniform(*GAP_S)
    return acts


def _cards() -> list[Card]:
    cards = [_signal(Kind.KILL, part) for part in PARTS]
    cards += [_signal(Kind.TERM, part) for part in PARTS if part != VENDORS]
    cards += [_trap(point, RECEIVERS) for point in (*ACKNOWLEDGING, *SPILLING)]
    cards += [_trap(point, WORKERS) for point in WORKING]
    cards += [_pause(part, 0.2, 3.0) for part in (*RECEIVERS, *WORKERS, VENDORS)]
    cards += [_pause(REDIS, 0.1, 2.0)] * 2
    # so long that the other worker takes over what this one holds, and this one comes back to it
    cards += [_pause(part, 9.0, 14.0) for part in WORKERS]
    cards += [_lasting(Kind.FULL, REDIS, 3.0, 8.0)] * 2
    cards += [_lasting(Kind.DISK, REDIS, 1.0, 3.0)] * 2
    cards += [_fault(word) for word in FAULTS]
    cards += [_clock(part) for part in (*RECEIVERS, *WORKERS)]
    return cards


#: how the vendors may fail (`chaos.run` knows the words)
FAULTS = ("slow", "reset before", "reset after", "504 and stored", "500", "429", "cut off")


def _signal(kind: Kind, part: str) -> Card:
    return lambda chance, at_s: Act(at_s, kind, part)


def _trap(point: Point, parts: tuple[str, ...]) -> Card:
    def card(chance: random.Random, at_s: float) -> Act:
        how = chance.choice(["KILL", "KILL", "KILL", "TERM", "STOP"])
        lasts_s = round(chance.uniform(0.5, 12.0), 2) if how == "STOP" else 0.0
        return Act(at_s, Kind.TRAP, chance.choice(parts), lasts_s, how, point=point)

    return card


def _lasting(kind: Kind, part: str, least_s: float, most_s: float) -> Card:
    return lambda chance, at_s: Act(at_s, kind, part, round(chance.uniform(least_s, most_s), 2))


def _pause(part: str, least_s: float, most_s: float) -> Card:
    return _lasting(Kind.PAUSE, part, least_s, most_s)


def _fault(word: str) -> Card:
    return lambda chance, at_s: Act(
        at_s, Kind.FAULT, VENDORS, detail=word, times=chance.randint(2, 6)
    )


def _clock(part: str) -> Card:
    def card(chance: random.Random, at_s: float) -> Act:
        jump_s = chance.choice([-1, 1]) * chance.choice([2, 300, 7200])
        return Act(at_s, Kind.CLOCK, part, detail=str(jump_s))

    return card

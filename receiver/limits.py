"""The receiver's limits: how much travels to Redis together, and how long anybody may wait for an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How much travels together, and how long anybody may wait."""

    # One stream entry is read and moved as a whole: a large one would block Redis and the worker.
    deliveries_per_entry: int = 256
    bytes_per_entry: int = 1 << 20
    # Entries written side by side in one flush; together they share one wait for the disk
    # or the replica. A larger delivery travels alone.
    entries_per_flush: int = 8
    bytes_per_flush: int = 2 << 20
    # The 250 ms of an answer, less what reading and answering take.
    answer_within_s: float = 0.19
    # Redis's share of it while there is a spill; an fsync of a disk that is well takes a tenth of the rest.
    redis_share: float = 0.75
    # What a slow network carries at least, for the time that large bodies get.
    bytes_per_s: float = 25e6

"""Batches: what is sealed for one call, as a worker holds it, and as it stands in Redis.

`lua/seal.lua` makes them, `lua/claim.lua` hands them over one at a time; an entry that takes the place of a batch, or
of a part of it, is written by `batch_fields`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import keys
from pipeline.moves import Argument
from workers.fates import HOLD_AFTER

#: items of a batch, AudiencePoint's own limit
MOST_ITEMS = 30


@dataclass(frozen=True, slots=True)
class Item:
    """One thing a batch carries: its bytes, and where it came from (packed `Origin`)."""

    payload: bytes
    origin: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed batch in this worker's hands. The same batch always makes the same bytes."""

    queue: str
    id: str
    items: Sequence[Item]
    root: str
    #: the batch that it is a half of, while it was not tried
    half_of: str
    tries: int
    #: exceptions of ours among its failures; they are counted apart and stay with it until it is split
    bugs: int
    #: the stage's successes when it was first tried, last held, or split off
    mark: int
    #: it was split off, for failures that may be of an item
    is_part: bool
    #: its failures while others passed, as it is now
    failures: int
    #: when the call was begun that failed last, by Redis's clock; before the first failure when it was sealed
    failed_ms: int
    others_wait: bool
    others_held: bool
    has_tombstones: bool
    #: when it was claimed, by Redis's clock
    claimed_ms: int

    @property
    def was_held(self) -> bool:
        """Tell whether it waited for others to succeed first."""
        return self.queue == keys.held(self.line)

    @property
    def failed_before(self) -> int:
        """Return how often it failed while others passed, if it passes now; a half begins anew."""
        if self.was_held:
            return self.failures
        return int(0 < self.tries < HOLD_AFTER)

    @property
    def line(self) -> str:
        """Return the line of queues that it stays in: its stage's own, or that of what was retried."""
        return self.queue.rpartition(":")[0]


def read_batch(claim: Sequence[Any]) -> Batch:
    """Read what `lua/claim.lua` answered."""
    _, queue, entry_id, fields, attempts, _, others, held, tombstones, now_ms = claim
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    named = dict(pairs)
    payloads = [value for name, value in pairs if name == b"p"]
    origins = [value for name, value in pairs if name == b"m"]
    tries, mark, _ = attempts.decode().split(":")
    return Batch(
        queue=queue.decode(),
        id=entry_id.decode(),
        items=[Item(p, m) for p, m in zip(payloads, origins, strict=True)],
        root=named.get(b"g", entry_id).decode(),
        half_of=named.get(b"h", b"").decode(),
        tries=int(tries),
        bugs=int(named.get(b"b", 0)),
        mark=int(mark),
        is_part=b"i" in named,
        failures=int(named.get(b"n", 0)),
        failed_ms=int(named.get(b"c", 0)) or int(entry_id.partition(b"-")[0]),
        others_wait=int(others) > 0,
        others_held=int(held) > 0,
        has_tombstones=bool(tombstones),
        claimed_ms=int(now_ms),
    )


def attempts(tries: int, mark: int, sent: int) -> str:
    """Return the earlier attempts of a batch as `lua/claim.lua` reads them."""
    return f"{tries}:{mark}:{sent}"


def batch_fields(
    items: Sequence[Item],
    root: str,
    attempted: str,
    bugs: int = 0,
    is_part: bool = False,
    failures: int = 0,
    failed_ms: int = 0,
    due_ms: int = 0,
    half_of: str = "",
) -> list[Argument]:
    """Return the entry of a batch that takes the place of another one, or of a part of it.

    A held one is not tried again before *due_ms* of Redis's clock. `lua/claim.lua` wants the earlier attempts last.
    """
    fields: list[Argument] = []
    for item in items:
        fields += ("p", item.payload, "m", item.origin)
    named: dict[str, Argument] = {"b": bugs, "i": int(is_part), "n": failures}
    named |= {"c": failed_ms, "d": due_ms, "h": half_of}
    for name, value in named.items():
        if value:
            fields += (name, value)
    return [*fields, "g", root, "t", attempted]

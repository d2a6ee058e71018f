"""Points at which a process may be ended: before and after the steps between which it could lose something.

Each is a function of the product, by its name, and a side of it. A name that is gone fails at the start of a process,
so that no point is ever left out in silence.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """One side of one function: *place* is `module:name` or `module:Class.name`."""

    place: str
    side: str

    def __str__(self) -> str:
        return f"{self.side} {self.place.partition(':')[2]}"


def _points(*sides_and_places: str) -> tuple[Point, ...]:
    found = []
    for each in sides_and_places:
        sides, _, place = each.partition(" ")
        found += [Point(place, side) for side in sides.split("/")]
    return tuple(found)


#: from the request to its answer
ACKNOWLEDGING = _points(
    "before/after pipeline.inbox:Inbox.put_entries",
    "before pipeline.line:_reply",  # Redis may have done it, and nobody knows
    "before/after receiver.short_way:Whole.answer",
    "before/after pipeline.wake:Bell.ring",
)
#: the same while Redis is away, and the way back from the disk
SPILLING = _points(
    "before/after pipeline.spill:Spill.append",
    "before/after pipeline.spill.own:sync",
    "before/after receiver.webhooks:Taken.set_result",
    "before/after pipeline.inbox:Inbox.put_spilled",
    "before/after pipeline.spill:Spill.next",
    "before/after pipeline.spill:Spill.finish",
    "after pipeline.spill:Spill.adopt",
)
#: from the inbox to the vendor, and the noting of its answer
WORKING = _points(
    "after pipeline.queues:Queues.take",
    "after pipeline.queues:Queues.seal",
    "before/after workers.clients.http:VendorHttp.send",
    "before/after pipeline.moves:Mover.apply",
    "before/after workers.setbacks:put_off",
    "after pipeline.queues:Queues.adopt",
)

"""Reading deliveries: what each one's source understands of it, many entries at a time.

Nothing of them is written here, but proofs may be asked for (`proofs`). A delivery that cannot be read is told as such
beside the others of its flush; what our own code fails on is `OurFault`, with the delivery's id, for whoever counts the
tries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from pipeline import drills, keys
from pipeline.deliveries import Delivery
from pipeline.outcomes import (
    Outcome,
    Probe,
    Reason,
    SetUp,
    Unreadable,
)
from pipeline.queues import Entry
from pipeline.sources.registry import SOURCES
from workers import proofs

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from workers.context import Context


#: bytes that are read at once; of a larger entry in a thread of its own: so long all else of the worker would wait
LARGE = 1 << 18


class OurFault(Exception):
    """Our own code failed on one delivery."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"delivery {delivery_id}")
        self.delivery_id = delivery_id


@dataclass(slots=True)
class Read:
    """One delivery as its source understood it: outcomes, or the fate of the whole."""

    delivery: Delivery
    outcomes: list[Outcome] = field(default_factory=list)
    is_probe: bool = False
    set_up: SetUp | None = None
    unreadable: Unreadable | None = None
    waits: bool = False
    drilled: tuple[str, bytes] | None = None
    """Of a drill's sample its number and what was read: nothing else comes of it."""

    span: Span | None = None


@dataclass(slots=True)
class Proofs:
    """The deliveries of an entry that are not simply taken apart, by their ids: false ones, and those that wait."""

    false: dict[str, Unreadable] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Opened:
    """An entry and what was read of it; *faults* are those that our code failed on for the last time."""

    entry: Entry
    deliveries: list[Delivery]
    found: Proofs = field(default_factory=Proofs)
    reads: list[Read] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def waits_on(self) -> bool:
        """Whether all of it waited for proofs, and does so still."""
        is_aside = self.entry.queue == keys.UNPROVEN
        return is_aside and len(self.found.waiting) == len(self.deliveries)

    def holds(self, fault: OurFault) -> bool:
        """Tell whether the delivery that our code failed on is one of this entry's."""
        is_known = fault.delivery_id in self.faults
        return not is_known and any(one.id == fault.delivery_id for one in self.deliveries)

    def delivery(self, fault: OurFault) -> Delivery:
        """Return the delivery that our own code failed on, which is one of this entry's."""
        return next(one for one in self.deliveries if one.id == fault.delivery_id)


def handfuls(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Part *entries*, in their order, into as many at a time as are not large together, or one."""
    some: list[Entry] = []
    size = 0
    for entry in entries:
        more = sum(map(len, entry.payloads))
        if some and size + more > LARGE:
            yield some
            some, size = [], 0
        some.append(entry)
        size += more
    if some:
        yield some


def opened_of(entry: Entry) -> Opened:
    """Return an entry with its deliveries, of which nothing is read yet."""
    return Opened(entry, [Delivery.unpack(payload) for payload in entry.payloads])


async def prove(context: Context, opened: Opened) -> Proofs:
    """Find out which deliveries are false, and of which that cannot be said now. Raises `OurFault`."""
    found = Proofs()
    for delivery in opened.deliveries:
        if delivery.source not in proofs.ASKED or delivery.id in opened.faults:
            continue
        try:
            await proofs.check(context, delivery)
        except Unreadable as unreadable:
            found.false[delivery.id] = unreadable
        except proofs.Later:
            found.waiting.add(delivery.id)
        except (RedisError, OSError):
            raise
        except Exception as failure:  # fates: as in `read`
            raise OurFault(delivery.id) from failure
    return found


def read_all(context: Context, group: Sequence[Opened]) -> None:
    """Let each delivery's source read it; pure, as `read` is. Raises `OurFault`.

    Those of one source are read one after the other: a processor that goes from source to source has forgotten the
    code of each when its turn comes again, which costs half as much as the reading.
    """
    each = [(one, delivery) for one in group for delivery in one.deliveries]
    each.sort(key=lambda pair: pair[1].source)
    reads = {id(delivery): read(context, delivery, one.found, one.faults) for one, delivery in each}
    for one in group:
        one.reads = [reads[id(delivery)] for delivery in one.deliveries]


def read(context: Context, delivery: Delivery, found: Proofs, faults: Mapping[str, str]) -> Read:
    """Let the delivery's source read it; *faults* are deliveries to bury, with the error.

    Of a drill's sample only what was read is kept. Pure: nothing is written. Raises `OurFault`.
    """
    one = _read(context, delivery, found, faults)
    if delivery.tag and (number := drills.number_in(delivery.tag)) and not one.waits:
        note = drills.note(one.outcomes, one.unreadable)
        return Read(delivery, is_probe=True, drilled=(number, note))
    return one


def _read(context: Context, delivery: Delivery, found: Proofs, faults: Mapping[str, str]) -> Read:
    if error := faults.get(delivery.id):
        return Read(delivery, unreadable=Unreadable(Reason.BUG, error))
    if false := found.false.get(delivery.id):
        return Read(delivery, unreadable=false)
    if delivery.id in found.waiting:
        return Read(delivery, waits=True)
    source = SOURCES.get(delivery.source)
    if source is None:
        error = f"no source is called {delivery.source!r} in this version"
        return Read(delivery, unreadable=Unreadable(Reason.UNKNOWN_SHAPE, error))
    try:
        return Read(delivery, source.parse(delivery, context.rules, time()))
    except Probe as probe:
        brought = probe if isinstance(probe, SetUp) else None
        return Read(delivery, is_probe=True, set_up=brought)
    except Unreadable as unreadable:
        return Read(delivery, unreadable=unreadable)
    except Exception as failure:
        # fates: three tries, then this delivery is buried and the others go on
        raise OurFault(delivery.id) from failure

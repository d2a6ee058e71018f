"""Arrivals: what came in last, one note for each delivery, also once its body is gone, and what waits to be unpacked.

The move that takes deliveries out of `unpack` writes their notes in the same step; moves of one call share an entry of
the stream until it holds twenty notes, because an entry costs more than what stands in it. A body that was answered 400
is noted by the script that keeps it. A retried delivery is noted again. A note says what the books cannot, and
nothing of what was sent: no body, no header, no address. The stream is short: the last thousand entries, and of each
move at most `MOST_LISTED` deliveries one by one, the dead ones before others; the rest is summed up by source and fate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import orjson
from redis.utils import str_if_bytes

from pipeline import keys
from pipeline.clock import iso
from pipeline.outcomes import Stage
from pipeline.scripts import script
from pipeline.sources.registry import SOURCES

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: deliveries of one move that get a note of their own; a flush may hold 256
MOST_LISTED = 20
#: entries read at once
_PIECE = 50

#: how a delivery came: by its hook; fetched by an import, or back from the dead letters, both of which nobody was
#: answered; refused with 400
How = Literal["hook", "fetched", "retried", "refused"]
Fate = Literal["done", "ignored", "dead"]
#: the word for one that has no fate yet
WAITING = "waiting"
#: deliveries that wait, and are told one by one
MOST_WAITING = 20
#: one that was looked at may have MAX_BODY_BYTES; after so many together no other is
_MOST_BYTES = 4_000_000
#: id ('' of a sum), source, deliveries, bytes, received (Unix ms; of a sum the last), how, fate,
#: events handed over, ignored, invalid; tag. Not a class of ours: made for every delivery
Note = tuple[str, str, int, int, int, How, Fate, int, int, int, str]


def pack(notes: Sequence[Note]) -> tuple[int, bytes]:
    """Return how many notes tell of all *notes* of one move, and these as JSON, without the brackets of a list."""
    if len(notes) > MOST_LISTED:
        notes = _shortened(notes)
    return len(notes), orjson.dumps(notes)[1:-1]


def _shortened(notes: Sequence[Note]) -> list[Note]:
    """Return *notes* with all but `MOST_LISTED` of them summed up; sums stand before what is listed, as if older."""
    dead = [note for note in notes if note[6] == "dead"]
    others = [note for note in notes if note[6] != "dead"] if dead else notes
    left = len(others) - max(0, MOST_LISTED - len(dead))
    rest = others[:left] if len(dead) <= MOST_LISTED else (*dead[MOST_LISTED:], *others)
    return [*_sums(rest), *others[left:], *dead[:MOST_LISTED]]


def _sums(notes: Iterable[Note]) -> list[Note]:
    """Return one note for all of *notes* that are alike in source, way and fate."""
    # of a busy receiver's flush most notes come here: a row that is added to costs a third of what lists do
    rows: dict[tuple[str, How, Fate], list[int]] = {}
    for _, source, n, size, at_ms, how, fate, taken, ignored, invalid, _ in notes:
        row = rows.get((source, how, fate))
        if row is None:
            rows[source, how, fate] = [n, size, at_ms, taken, ignored, invalid]
            continue
        row[0] += n
        row[1] += size
        if at_ms > row[2]:
            row[2] = at_ms
        row[3] += taken
        row[4] += ignored
        row[5] += invalid
    return [
        ("", source, n, size, at_ms, how, fate, taken, ignored, invalid, "")
        for (source, how, fate), (n, size, at_ms, taken, ignored, invalid) in rows.items()
    ]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One delivery, or the sum of some; *id* is '' for a sum, and that of its letter for a dead one.

    *fate* is a `Fate`, or `WAITING`.
    """

    id: str
    source: str
    deliveries: int
    size: int
    received_at_ms: int
    how: str
    fate: str
    taken: int
    ignored: int
    invalid: int
    tag: str

    @property
    def answer(self) -> int | None:
        """Return the status that the request was answered with; None where there was no request."""
        if self.how == "refused":
            return 400
        source = SOURCES.get(self.source)
        return source.success if source and self.how == "hook" else None

    def view(self) -> dict[str, Any]:
        """Return the facts as the console tells them."""
        return {
            "id": self.id or None,
            "source": self.source,
            "deliveries": self.deliveries,
            "size": self.size,
            "received_at": iso(self.received_at_ms),
            "answer": self.answer,
            "fate": self.fate,
            "events": {"taken": self.taken, "ignored": self.ignored, "invalid": self.invalid},
            "tag": self.tag or None,
        }


_FACTS = len(Arrival.__slots__)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a look goes on: in the stream's *entry*, after so many of its rows."""

    entry: str
    passed: int = 0


async def look(
    redis: Redis, source: str | None, cursor: Cursor | None, most: int
) -> tuple[list[Arrival], Cursor | None]:
    """Return up to *most* arrivals of *source* (None: of all), newest first, from *cursor* on; then where to go on."""
    found: list[Arrival] = []
    upto = cursor.entry if cursor else "+"
    while True:
        entries = await redis.xrevrange(keys.ARRIVALS, max=upto, count=_PIECE)
        for entry, fields in entries:
            name = str_if_bytes(entry)
            passed = cursor.passed if cursor and name == cursor.entry else 0
            for place, row in enumerate(_rows(fields)):
                if place < passed or source not in (None, row.source):
                    continue
                if len(found) == most:
                    return found, Cursor(name, place)
                found.append(row)
        if len(entries) < _PIECE:
            return found, None
        upto = "(" + str_if_bytes(entries[-1][0])


async def waiting(redis: Redis) -> list[Arrival]:
    """Return the newest deliveries that wait to be unpacked, newest first, at most `MOST_WAITING`."""
    queues = keys.QUEUES[Stage.UNPACK]
    args: list[str | int] = [len(queues), *queues, MOST_WAITING, _MOST_BYTES]
    rows = [
        _of_waiting(*map(str_if_bytes, row)) for row in await script(redis, "waiting")(args=args)
    ]
    rows.sort(key=lambda row: row.received_at_ms, reverse=True)
    return rows[:MOST_WAITING]


def _of_waiting(
    name: str, source: str, at_ms: str, tag: str, size: int, is_retried: int
) -> Arrival:
    how: How = "retried" if is_retried else "hook"
    return Arrival(name, source, 1, size, int(at_ms), how, WAITING, 0, 0, 0, tag)


def _rows(fields: dict[bytes, bytes]) -> list[Arrival]:
    """Return an entry's arrivals, the last one first; `l` is the letter that keeps a refused body.

    What a newer release adds to a note stands behind what is known here, and is passed over.
    """
    rows = [Arrival(*note[:_FACTS]) for note in orjson.loads(fields[b"d"])]
    if letter := fields.get(b"l"):
        return [replace(row, id=letter.decode()) for row in rows]
    return rows[::-1]

"""Where a piece of work came from: the few words that travel with it through every stage."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Form(StrEnum):
    """What the payload of a queue entry is."""

    OURS = "o"  # as the stage wants it, addresses plain
    HASHED = "h"  # the same, with a hashed address: never in one batch with plain ones
    DRILL = "d"  # an event that is to come to a dry end: see `pipeline.drills`
    RAW = "r"  # one event in its sender's words, to be read again by its source


@dataclass(slots=True)  # not frozen: made for every event, and freezing triples what that costs
class Origin:
    """Source, time of the first sighting (Unix ms), form of the payload, tag of the hook's URL, mark of the trace."""

    source: str
    first_seen_at_ms: int
    form: Form = Form.OURS
    tag: str | None = None
    trace: str | None = None

    def pack(self) -> str:
        """Return the stored form; a tag has no `|` in it."""
        # joined, not formatted: this is done for every event, and an enum is slow to format
        packed = f"{self.source}|{self.first_seen_at_ms}|" + self.form + "|" + (self.tag or "")
        return f"{packed}|{self.trace}" if self.trace else packed

    @classmethod
    def unpack(cls, stored: bytes) -> Origin:
        """Read what `pack` wrote."""
        # words that a later version adds are not read
        source, first_seen, form, tag, *more = stored.decode().split("|")
        trace = more[0] or None if more else None
        return cls(source, int(first_seen), Form(form), tag or None, trace)

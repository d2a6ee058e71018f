"""A delivery is one HTTP request that the receiver accepted, kept as it came.

The receiver makes it, the inbox keeps it, `unpack` takes it apart. Nothing here looks inside the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from os import register_at_fork
from secrets import randbits, token_hex

import orjson

#: the header by which the receiver notes for who keeps it that the sender's signature was checked and true; it is
#: never taken from a request
SIGNED = "relay-signed"


class _Ids:
    """Ids of one process: a random beginning, then a number; asking the kernel for each costs more."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take a new beginning, so that a forked process does not repeat its parent's ids."""
        self.beginning = token_hex(8)
        self.numbers = count(randbits(31))


_ids = _Ids()
register_at_fork(after_in_child=_ids.renew)


def new_delivery_id() -> str:
    """Return a fresh id: 24 hex digits, safe in a URL."""
    return f"{_ids.beginning}{next(_ids.numbers) & 0xFFFFFFFF:08x}"


@dataclass(slots=True)  # not frozen: made for every request, and freezing triples what that costs
class Delivery:
    """One stored HTTP request.

    *headers* holds only what the source asked to keep (`Source.keeps_headers`), names in lower case, and a
    `traceparent`, the sender's trace (W3C Trace Context): kept for whoever continues it (`pipeline.traces`).
    *received_at_ms* is Unix time in milliseconds.
    """

    id: str
    source: str
    body: bytes
    received_at_ms: int
    content_type: str = ""
    tag: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: the mark that its events go on with, while a worker that traces has it in hands; never stored
    trace: str | None = None

    def pack(self) -> bytes:
        """Return the stored form: one line of JSON about the request, a newline, the body's own bytes."""
        about: dict[str, object] = {"i": self.id, "s": self.source, "t": self.received_at_ms}
        if self.content_type:
            about["c"] = self.content_type
        if self.tag:
            about["g"] = self.tag
        if self.headers:
            about["h"] = dict(self.headers)
        return orjson.dumps(about) + b"\n" + self.body

    @classmethod
    def unpack(cls, stored: bytes) -> Delivery:
        """Read what `pack` wrote."""
        line, _, body = stored.partition(b"\n")
        about = orjson.loads(line)
        return cls(
            id=about["i"],
            source=about["s"],
            body=body,
            received_at_ms=about["t"],
            content_type=about.get("c", ""),
            tag=about.get("g"),
            headers=about.get("h", {}),
        )

"""What a spilled file is made of.

    record    head, payload: a packed delivery
    head      mark (8 bytes), length of the payload, its CRC-32, CRC-32 of all these (little endian, 4 bytes each)

The mark is the random part of the file's name, so that nothing a sender writes into a body looks like a head. An append
is one write and one fsync, and nobody is answered before. What a death, a full disk or a power cut leaves of an append,
the torn tail, was acknowledged by nobody, and reading ends there. Whatever else does not fit is damage: the records
behind it are found by their mark, and the file is kept aside.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from zlib import crc32

HEAD_BYTES = 20
#: so many records are read between two rests
REST_AFTER = 1_000
# What a file system writes at once: what a power cut keeps from the disk is zeros from such a place on.
_BLOCK = 4096
_HEAD = struct.Struct("<8sIII")
_SUMMED = HEAD_BYTES - 4


def frame(mark: bytes, payload: bytes) -> bytes:
    """Return the record of *payload* in the file with this *mark*."""
    about = struct.pack("<8sII", mark, len(payload), crc32(payload))
    return about + struct.pack("<I", crc32(about)) + payload


class Data(Protocol):
    """What a file holds: in memory (`bytes`), or read as it is needed (`pages.Pages`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...

    def find(self, wanted: bytes, start: int, /) -> int:
        """Return the first place of *wanted* from *start* on, or -1."""


@dataclass(slots=True)
class Records:
    """Where the good records of a file lie: its payloads from *starts* to *ends*; and whether anything is damaged."""

    starts: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    is_damaged: bool = False

    def after(self, place: int) -> int:
        """Return the number of the first record that lies wholly behind *place*."""
        return bisect_right(self.ends, place)


def records_in(data: Data, mark: bytes, rest: Callable[[], None] | None = None) -> Records:
    """Find every record of a file's *data*; none that was acknowledged is left out because of others.

    Who reads beside others gives *rest*: it is called now and then.
    """
    found, size, at = Records(), len(data), 0
    begin, end_with, unpack = found.starts.append, found.ends.append, _HEAD.unpack
    last = size - HEAD_BYTES
    until_rest = REST_AFTER
    while at <= last:
        start = at + HEAD_BYTES
        head = data[at:start]
        there, length, total, own = unpack(head)
        end = start + length
        is_head = there == mark and own == crc32(head[:_SUMMED])
        if is_head and end <= size and total == crc32(data[start:end]):
            begin(start)
            end_with(end)
            at = end
        elif _is_torn(data, mark, at, end if is_head else None):
            return found
        else:
            found.is_damaged = True
            at = end if is_head and end <= size else data.find(mark, at + 1)
            if at < 0:
                return found
        until_rest -= 1
        if rest and not until_rest:
            rest()
            until_rest = REST_AFTER
    if at < size and not _is_torn(data, mark, at, None):
        found.is_damaged = True
    return found


def _is_torn(data: Data, mark: bytes, at: int, end: int | None) -> bool:
    """Tell whether all from this place on is what an append leaves that did not come to its end.

    *end* is that of the record, if its head is good. A power cut may keep a file's new length and not its last blocks:
    then it is zeros to the end.
    """
    if end is not None and end > len(data):
        return True
    written = _end_of_what_is_not_zero(data, at)
    lost = -(-written // _BLOCK) * _BLOCK
    cut = min(lost, len(data))
    if end is not None:  # a whole record, whose sum is wrong
        return lost < end
    if written <= at + len(mark):
        return data[at:written] == mark[: written - at]
    return cut - at < HEAD_BYTES and data[at:cut][: len(mark)] == mark[: cut - at]


def _end_of_what_is_not_zero(data: Data, at: int) -> int:
    end = len(data)
    while end > at:
        begin = max(at, end - _BLOCK)
        if written := data[begin:end].rstrip(b"\0"):
            return begin + len(written)
        end = begin
    return at

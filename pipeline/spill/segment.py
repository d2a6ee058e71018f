"""One file of the spill, and the pieces in which it is taken out."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.spill.folder import mark_of, name_of
from pipeline.spill.records import Records, records_in


@dataclass(frozen=True, slots=True)
class Piece:
    """Records that follow each other: their payloads, and the places in their file before and behind them."""

    start: int
    end: int
    payloads: Sequence[bytes]

    @property
    def size(self) -> int:
        """Return how many bytes the payloads have."""
        return sum(map(len, self.payloads))


@dataclass(slots=True)
class Segment:
    """One file whose lock this process holds.

    *left* are the deliveries that nobody has taken out yet, None for an adopted file that was not read yet; all before
    *place* has been taken out.
    """

    path: Path
    handle: int
    size: int = 0
    left: int | None = 0
    place: int = 0
    data: bytes = b""
    records: Records | None = None

    @property
    def name(self) -> str:
        """Return what it is known by."""
        return name_of(self.path)

    @property
    def mark(self) -> bytes:
        """Return what its heads begin with."""
        return mark_of(self.path)

    def load(self, rest: Callable[[], None] | None = None) -> None:
        """Read all of it, once; nothing is appended any more."""
        if self.records is None:
            self.data = b"".join(_chunks(self.handle))
            records = records_in(self.data, self.mark, rest)
            self.left = len(records.ends) - records.after(self.place)
            self.records = records

    def pieces(self, place: int, *, most: int, most_bytes: int, count: int) -> list[Piece]:
        """Return up to *count* pieces from *place* on, each of up to *most* records and *most_bytes*, or of one."""
        records = self._read()
        found: list[Piece] = []
        at, number = place, records.after(place)
        while number < len(records.ends) and len(found) < count:
            first, size = number, 0
            while number < len(records.ends) and number - first < most:
                size += records.ends[number] - records.starts[number]
                if size > most_bytes and number > first:
                    break
                number += 1
            payloads = [
                self.data[records.starts[n] : records.ends[n]] for n in range(first, number)
            ]
            found.append(Piece(at, records.ends[number - 1], payloads))
            at = found[-1].end
        return found

    def advance(self, place: int) -> None:
        """Note that all before *place* has been taken out."""
        records = self._read()
        self.place = place
        self.left = len(records.ends) - records.after(place)

    def _read(self) -> Records:
        if self.records is None:
            raise ValueError("a file is read before anything is taken out")
        return self.records


def taken(path: Path) -> Segment | None:
    """Return the file as this process's, or None while its owner lives, or when it has just gone; raises `OSError`."""
    handle = -1
    try:
        handle = _opened(path)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        about = os.fstat(handle)
        # its last owner may have removed it in between
        if about.st_ino == path.stat().st_ino:
            segment = Segment(path, handle, size=about.st_size, left=None if about.st_size else 0)
            handle = -1
            return segment
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if handle >= 0:
            os.close(handle)
    return None


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR)  # NFS locks only what may be written
    except FileNotFoundError:
        raise
    except OSError:  # a read-only disk, or another user's: to lock and to read needs no more
        return os.open(path, os.O_RDONLY)


def _chunks(handle: int) -> Iterator[bytes]:
    at = 0
    while chunk := os.pread(handle, 1 << 20, at):
        at += len(chunk)
        yield chunk

"""A file that is read as it is needed, and never held in memory as a whole."""

from __future__ import annotations

import os

#: so much is read at once; a record that is larger is read whole
PAGE_BYTES = 1 << 20


class Pages:
    """What the file behind *handle* held when this was made; any part of it may be asked for, in order at best.

    Its owner may go on meanwhile: what is appended is not seen, and what is cut off reads as zeros, like a torn end.
    """

    def __init__(self, handle: int, page_bytes: int = PAGE_BYTES) -> None:
        self._handle = handle
        self._size = os.fstat(handle).st_size
        self._page_bytes = page_bytes
        self._begin = 0
        self._page = b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        """Return a part without a step; may raise `OSError`."""
        start, stop, _ = part.indices(self._size)
        if start < self._begin or stop > self._begin + len(self._page):
            self._turn_to(start, stop)
        return self._page[start - self._begin : stop - self._begin]

    def find(self, wanted: bytes, start: int, /) -> int:
        """Return the first place of *wanted* from *start* on, or -1."""
        while start < self._size:
            stop = start + max(self._page_bytes, len(wanted))
            if (place := self[start:stop].find(wanted)) >= 0:
                return start + place
            start = stop - len(wanted) + 1
        return -1

    def _turn_to(self, start: int, stop: int) -> None:
        """Read a page from *start* on, or, going back, one that ends at *stop*."""
        if start < self._begin:
            self._begin = min(start, max(0, stop - self._page_bytes))
            end = stop
        else:
            self._begin = start
            end = min(self._size, max(stop, start + self._page_bytes))
        size = end - self._begin
        self._page = os.pread(self._handle, size, self._begin).ljust(size, b"\0")

"""The spill of one process: what it keeps, what it adopts from dead ones, and all of it given back in order.

The lock is held for an append, and otherwise only to note who has which file: whatever reads, makes or looks for files
does so beside the appends.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.home import Home, HomeError
from pipeline.spill.drained import Drained
from pipeline.spill.folder import files_in, sync, used_bytes, why
from pipeline.spill.new_files import NewFiles, clear
from pipeline.spill.records import HEAD_BYTES, frame
from pipeline.spill.segment import Segment, taken

log = logging.getLogger(__name__)

#: a file ends here, so that what is drained gives its room back while the rest waits; each that waits is an open file
SEGMENT_BYTES = 8 << 20
# How long a reader lets others work, now and then.
_REST_S = 0.001


class SpillError(Exception):
    """The disk did not do it, and nothing was promised. The message is for the operator."""


class Spill:
    """The spill of one process.

    *max_bytes* is the most that all files of the folder may have, whoever wrote them; 0 takes nothing, and what lies
    there is drained all the same. Making the object touches nothing.
    """

    def __init__(self, home: Home, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = home.spill_dir
        self.max_bytes = max_bytes
        self._new_files = NewFiles(home)
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        # while a file is read nobody closes it
        self._reading = threading.Lock()
        self._segments: dict[str, Segment] = {}
        self._drained = Drained(self._lock)
        # what cannot be read, kept locked
        self._passed_over: dict[str, Segment] = {}
        self._unreadable = ""
        self._not_taken: set[str] = set()
        self._current: Segment | None = None
        self._spare: Segment | None = None
        self._is_closed = False

    @property
    def left(self) -> int:
        """Return how many deliveries this process has still to drain, as far as they are counted."""
        return sum(segment.left or 0 for segment in list(self._segments.values()))

    @property
    def is_drained(self) -> bool:
        """Whether nothing is left, nor a file that was not read yet."""
        return all(segment.left == 0 for segment in list(self._segments.values()))

    @property
    def held_bytes(self) -> int:
        """Return the size of all files of this process."""
        return sum(segment.size for segment in list(self._segments.values()))

    @property
    def has_spare(self) -> bool:
        """Whether the next file is ready."""
        return self._spare is not None

    def check(self) -> None:
        """Make the folder and a file in it; raises `SpillError` when that is not possible, or the spill is full."""
        try:
            if used_bytes(self.folder) + HEAD_BYTES >= self.max_bytes:
                raise _full()
            self._new_files.try_one()
        except (OSError, HomeError) as error:
            raise _cannot(error) from error

    def prepare(self) -> None:
        """Have a spare file, so that the next append costs one fsync only; raises `SpillError`."""
        if self._spare is not None or self._is_closed:
            return
        try:
            made = self._new_files.make()
        except (OSError, HomeError) as error:
            raise _cannot(error) from error
        with self._lock:
            if self._spare is None and not self._is_closed:
                self._spare = made
                return
        clear(made.path)
        os.close(made.handle)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Keep *payloads*: all of them are on the disk when this returns. Raises `SpillError`."""
        with self._lock:
            if self._is_closed:
                raise SpillError("the receiver is stopping")
            try:
                more = sum(map(len, payloads)) + len(payloads) * HEAD_BYTES
                if used_bytes(self.folder) + more > self.max_bytes:
                    raise _full()
                segment = self._writable()
                self._write(segment, b"".join([frame(segment.mark, each) for each in payloads]))
            except (OSError, HomeError) as error:
                raise _cannot(error) from error
            segment.left = (segment.left or 0) + len(payloads)

    def next(self) -> Segment | None:
        """Return the oldest file, read and closed for appends; None when nothing is spilled. Raises `SpillError`."""
        with self._reading:
            with self._lock:
                if not self._segments:
                    return None
                segment = self._segments[min(self._segments)]
                if segment is self._current:
                    self._current = None
            try:
                segment.load(lambda: time.sleep(_REST_S))
            except OSError as error:
                self._unreadable = segment.path.stem
                raise SpillError(f"{segment.path} cannot be read: {why(error)}") from error
            return segment

    def pass_over(self) -> None:
        """Leave out the file that could not be read last: it stays as it is until the next process tries."""
        with self._lock:
            stem = self._unreadable
            if stem not in self._segments:  # closed meanwhile
                return
            self._passed_over[stem] = self._segments.pop(stem)
        log.error("a spilled file is passed over, since it cannot be read file=%s", stem)

    def finish(self, segment: Segment) -> None:
        """Remove a file that was drained; one that has damage is kept aside, and told."""
        with self._lock:
            if self._segments.pop(segment.path.stem, None) is not segment:
                return  # closed meanwhile
            self._drained.note(segment)
        self._drained.remove(segment)

    def adopt(self) -> int:
        """Take over the files whose owners are dead, unread; return how many hold something. Raises `SpillError`."""
        self._drained.tidy()
        with suppress(OSError):
            self._new_files.tidy()
        try:
            paths = files_in(self.folder)
        except OSError as error:
            raise SpillError(f"{self.folder} cannot be read: {why(error)}") from error
        own = (self._segments, self._drained, self._passed_over)
        found = [
            segment
            for path in paths
            if not any(path.stem in each for each in own) and (segment := self._taken(path))
        ]
        with self._lock:
            if self._is_closed:
                for segment in found:
                    os.close(segment.handle)
                return 0
            self._segments |= {segment.path.stem: segment for segment in found}
        return sum(segment.size > 0 for segment in found)

    def close(self) -> None:
        """Let go of all files; what they hold stays for the next process."""
        self._is_closed = True
        with self._reading, self._lock:
            if self._spare is not None:
                clear(self._spare.path)
                os.close(self._spare.handle)
            self._current = self._spare = None
            self._drained.close()
            for files in (self._segments, self._passed_over):
                for segment in files.values():
                    os.close(segment.handle)
                files.clear()

    def _taken(self, path: Path) -> Segment | None:
        try:
            segment = taken(path)
        except OSError as error:
            if path.stem not in self._not_taken:
                log.warning("a spilled file cannot be adopted file=%s: %s", path, why(error))
                self._not_taken.add(path.stem)
            return None
        self._not_taken.discard(path.stem)
        return segment

    def _writable(self) -> Segment:
        if self._current is not None and self._current.size >= self._segment_bytes:
            self._current = None
        if self._current is None:
            spare, self._spare = self._spare, None
            segment = (spare and self._new_files.use(spare)) or self._new_files.make()
            self._segments[segment.path.stem] = self._current = segment
        return self._current

    def _write(self, segment: Segment, data: bytes) -> None:
        """Append and sync; what cannot be is cut off again, and the file gets nothing more.

        After a failed fsync nobody knows what a second one says about the same bytes.
        """
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(segment.handle, data[written:], segment.size + written)
            sync(segment.handle)
        except OSError:
            self._current = None
            try:
                os.ftruncate(segment.handle, segment.size)
                if segment.size == 0:
                    segment.path.unlink(missing_ok=True)
                    self._segments.pop(segment.path.stem, None)
                    os.close(segment.handle)
            except OSError:
                log.warning("a torn append stays file=%s", segment.path)
            raise
        segment.size += len(data)


def _full() -> SpillError:
    return SpillError("the spill is full: SPILL_MAX_BYTES")


def _cannot(error: OSError | HomeError) -> SpillError:
    what = why(error) if isinstance(error, OSError) else str(error)
    return SpillError(f"the spill cannot be written: {what}")

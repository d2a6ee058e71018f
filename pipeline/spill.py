"""The spill: deliveries on this machine's disk, for as long as Redis cannot take them.

A file of the folder `spill` in RELAY_HOME belongs to the process that holds its lock (flock): the kernel lets go of it
even after SIGKILL, and then any receiver of this home adopts the file. Names begin with the time in microseconds, so
that sorted by name they are in order; the random part behind it is what a file is known by. A new one costs several
fsyncs, so there is a spare one, empty, before it is needed. A file is only appended to until somebody drains it; from
then on appends go into another one, and nothing changes in it any more. Drained it is unlinked.

    record    head, payload: a packed delivery
    head      mark (8 bytes), length of the payload, its CRC-32, CRC-32 of all these (little endian, 4 bytes each)

The mark is the random part of the file's name, so that nothing a sender writes into a body looks like a head. An append
is one write and one fsync, and nobody is answered before. What a death or a full disk leaves of an append, the torn
tail, was acknowledged by nobody, and reading ends there. Whatever else does not fit is damage: the records behind it
are found by their mark, and the file is kept aside as `.damaged` when all others have left it.

Nothing here knows asyncio: every method may block for as long as the disk does, and may be called from any thread.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from zlib import crc32

from pipeline.home import Home, HomeError

log = logging.getLogger(__name__)

SUFFIX, ASIDE = ".log", ".damaged"
#: a file ends here, so that what is drained gives its room back while the rest waits
SEGMENT_BYTES = 16 << 20
#: the share of its limit from which on a spill counts as full for whoever asks before there is anything to keep
FULL_AT = 0.95
_HEAD = struct.Struct("<8sIII")
_SUMMED = _HEAD.size - 4


class SpillError(Exception):
    """Nothing was promised: the spill could not take it. The message is for the operator."""


def frame(mark: bytes, payload: bytes) -> bytes:
    """Return the record of *payload* in the file with this *mark*."""
    about = struct.pack("<8sII", mark, len(payload), crc32(payload))
    return about + struct.pack("<I", crc32(about)) + payload


@dataclass(slots=True)
class Records:
    """Where the good records of a file lie: its payloads from *starts* to *ends*; and whether anything is damaged."""

    starts: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    is_damaged: bool = False

    def after(self, place: int) -> int:
        """Return the number of the first record that lies wholly behind *place*."""
        return bisect_right(self.ends, place)


def records_in(data: bytes, mark: bytes) -> Records:
    """Find every record of a file's *data*; none that was acknowledged is left out because of others."""
    found, at = Records(), 0
    while at < len(data):
        end = _end_of_record(data, mark, at)
        if end is None:
            if _is_torn(data, mark, at):
                break
            found.is_damaged = True
            at = data.find(mark, at + 1)
            if at < 0:
                break
            continue
        start = at + _HEAD.size
        if crc32(memoryview(data)[start:end]) == _HEAD.unpack_from(data, at)[2]:
            found.starts.append(start)
            found.ends.append(end)
        else:
            found.is_damaged = True
        at = end
    return found


def _length(data: bytes, mark: bytes, at: int) -> int | None:
    """Return the length that a good head at this place tells."""
    if at + _HEAD.size > len(data):
        return None
    there, length, _, total = _HEAD.unpack_from(data, at)
    is_good = there == mark and total == crc32(memoryview(data)[at : at + _SUMMED])
    return int(length) if is_good else None


def _end_of_record(data: bytes, mark: bytes, at: int) -> int | None:
    """Return where the record at this place ends; None when there is no whole one."""
    length = _length(data, mark, at)
    end = at + _HEAD.size + (length or 0)
    return None if length is None or end > len(data) else end


def _is_torn(data: bytes, mark: bytes, at: int) -> bool:
    """Tell whether all from this place on is what an append leaves that did not come to its end."""
    rest = memoryview(data)[at:]
    if len(rest) < _HEAD.size:
        return bytes(rest[:8]) == mark[: len(rest)] or not any(rest)
    # a power cut may keep a file's new length and not its bytes
    return _length(data, mark, at) is not None or not any(rest)


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
    """One file whose lock this process holds. *left* are the deliveries that nobody has taken out yet."""

    path: Path
    handle: int
    size: int = 0
    left: int = 0
    data: bytes = b""
    records: Records = field(default_factory=Records)

    @property
    def name(self) -> str:
        """Return what it is known by."""
        return name_of(self.path)

    @property
    def mark(self) -> bytes:
        """Return what its heads begin with."""
        return mark_of(self.path)

    def load(self) -> None:
        """Read all of it; nothing is appended any more."""
        self.data = _whole(self.handle)
        self.records = records_in(self.data, self.mark)
        self.left = len(self.records.ends)

    def pieces(self, place: int, *, most: int, most_bytes: int, count: int) -> list[Piece]:
        """Return up to *count* pieces from *place* on, each of up to *most* records and *most_bytes*, or of one."""
        found: list[Piece] = []
        at, number = place, self.records.after(place)
        while number < len(self.records.ends) and len(found) < count:
            first, size = number, 0
            while number < len(self.records.ends) and number - first < most:
                size += self.records.ends[number] - self.records.starts[number]
                if size > most_bytes and number > first:
                    break
                number += 1
            found.append(self._piece(at, first, number))
            at = found[-1].end
        return found

    def _piece(self, at: int, first: int, beyond: int) -> Piece:
        starts, ends = self.records.starts, self.records.ends
        payloads = [self.data[starts[n] : ends[n]] for n in range(first, beyond)]
        return Piece(at, ends[beyond - 1], payloads)

    def advance(self, place: int) -> None:
        """Note that all before *place* has been taken out."""
        self.left = len(self.records.ends) - self.records.after(place)


class Spill:
    """The spill of one process: what it writes, and what it adopted from dead ones.

    *max_bytes* is the most that all files of the folder may have, whoever wrote them; 0 takes nothing, and what lies
    there is drained all the same. Making the object touches nothing.
    """

    def __init__(self, home: Home, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = home.spill_dir
        self.max_bytes = max_bytes
        self._home = home
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._segments: dict[str, Segment] = {}
        self._current: Segment | None = None
        self._spare: Segment | None = None
        self._stamp = 0
        self._is_closed = False

    @property
    def left(self) -> int:
        """Return how many deliveries this process has still to drain."""
        return sum(segment.left for segment in list(self._segments.values()))

    @property
    def held_bytes(self) -> int:
        """Return the size of all files of this process."""
        return sum(segment.size for segment in list(self._segments.values()))

    def check(self) -> None:
        """Make the folder and a file in it; raises `SpillError` when that is not possible, or the spill is full."""
        try:
            if used_bytes(self.folder) >= self.max_bytes * FULL_AT:
                raise SpillError("the spill is full: SPILL_MAX_BYTES")
            self._make_folder()
            probe = self.folder / f".probe-{token_hex(8)}"
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            probe.unlink()
        except (OSError, HomeError) as error:
            raise _cannot(error) from error

    def prepare(self) -> None:
        """Have a spare file, so that the next append costs one fsync only; raises `SpillError`."""
        with self._lock:
            if self._spare is not None or self._is_closed:
                return
            try:
                self._spare = self._new()
            except (OSError, HomeError) as error:
                raise _cannot(error) from error

    def append(self, payloads: Sequence[bytes]) -> None:
        """Keep *payloads*: all of them are on the disk when this returns. Raises `SpillError`."""
        with self._lock:
            if self._is_closed:
                raise SpillError("the receiver is stopping")
            try:
                more = sum(map(len, payloads)) + len(payloads) * _HEAD.size
                if used_bytes(self.folder) + more > self.max_bytes:
                    raise SpillError("the spill is full: SPILL_MAX_BYTES")
                segment = self._writable()
                self._write(segment, b"".join([frame(segment.mark, each) for each in payloads]))
            except (OSError, HomeError) as error:
                raise _cannot(error) from error
            segment.left += len(payloads)

    def next(self) -> Segment | None:
        """Return the oldest file, read and closed for appends; None when nothing is spilled."""
        with self._lock:
            while self._segments:
                segment = self._segments[min(self._segments)]
                if segment is self._current:
                    self._current = None
                try:
                    segment.load()
                except OSError as error:
                    log.warning("not readable file=%s: %s", segment.path, _why(error))
                    self._let_go(segment)
                    continue
                return segment
        return None

    def finish(self, segment: Segment) -> None:
        """Remove a file that was drained; one that has damage is kept aside, and told."""
        with self._lock:
            try:
                if segment.records.is_damaged:
                    aside = segment.path.with_suffix(ASIDE)
                    segment.path.rename(aside)
                    log.error("a spilled file is damaged, and kept: file=%s", aside)
                else:
                    segment.path.unlink(missing_ok=True)
            except OSError as error:
                # it comes back when it is adopted again: how far it was drained is known
                log.warning("a drained file stays file=%s: %s", segment.path, _why(error))
            self._let_go(segment)

    def adopt(self) -> int:
        """Take over the files whose owners are dead; return how many deliveries they hold."""
        with self._lock:
            found = [
                segment
                for path in files_in(self.folder)
                if path.stem not in self._segments and (segment := _taken(path))
            ]
            self._segments |= {segment.path.stem: segment for segment in found}
            return sum(segment.left for segment in found)

    def close(self) -> None:
        """Let go of all files; what they hold stays for the next process."""
        with self._lock:
            self._is_closed = True
            if self._spare is not None:
                self._spare.path.unlink(missing_ok=True)
                os.close(self._spare.handle)
            self._current = self._spare = None
            for segment in list(self._segments.values()):
                self._let_go(segment)

    def _let_go(self, segment: Segment) -> None:
        self._segments.pop(segment.path.stem, None)
        os.close(segment.handle)

    def _writable(self) -> Segment:
        if self._current is not None and self._current.size >= self._segment_bytes:
            self._current = None
        if self._current is None:
            spare, self._spare = self._spare, None
            segment = self._in_use(spare) if spare else self._new()
            self._segments[segment.path.stem] = self._current = segment
        return self._current

    def _new(self) -> Segment:
        """Make a file: locked before it has its name, its name on the disk before anything is in it."""
        self._make_folder()
        path = self._path_now(token_hex(8))
        draft = path.with_name(f".{path.name}")
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(path)
            _sync_folder(self.folder)
        except BaseException:
            os.close(handle)
            for each in (draft, path):
                each.unlink(missing_ok=True)
            raise
        return Segment(path, handle)

    def _in_use(self, spare: Segment) -> Segment:
        """Let its name tell when it was begun; should a power cut undo that, it only looks older."""
        path = self._path_now(spare.name)
        try:
            spare.path.rename(path)
        except OSError:
            os.close(spare.handle)
            raise
        spare.path = path
        return spare

    def _path_now(self, name: str) -> Path:
        self._stamp = max(self._stamp + 1, time.time_ns() // 1000)
        return self.folder / f"{self._stamp:017d}-{name}{SUFFIX}"

    def _make_folder(self) -> None:
        if self.folder.is_dir():
            return
        if not self._home.path.is_dir():
            self._home.make()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(self.folder.parent)

    def _write(self, segment: Segment, data: bytes) -> None:
        """Append and sync; what cannot be is cut off again, and the file gets nothing more.

        After a failed fsync nobody knows what a second one says about the same bytes.
        """
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(segment.handle, data[written:], segment.size + written)
            _sync(segment.handle)
        except OSError:
            self._current = None
            try:
                os.ftruncate(segment.handle, segment.size)
                if segment.size == 0:
                    segment.path.unlink(missing_ok=True)
                    self._let_go(segment)
            except OSError:
                log.warning("a torn append stays file=%s", segment.path)
            raise
        segment.size += len(data)


def name_of(path: Path) -> str:
    """Return what the file *path* is known by, whatever time stands before it."""
    return path.stem.partition("-")[2]


def mark_of(path: Path) -> bytes:
    """Return what the heads in the file *path* begin with; raises `ValueError` when that is no spilled file's name."""
    mark = bytes.fromhex(name_of(path))
    if len(mark) != 8:
        raise ValueError("not a spilled file's name")
    return mark


def begun_ms(path: Path) -> int:
    """Return when the file *path* was begun, in Unix milliseconds."""
    return int(path.stem.partition("-")[0]) // 1000


def files_in(folder: Path) -> list[Path]:
    """Return the files of the folder that hold deliveries, oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and _is_ours(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def used_bytes(folder: Path) -> int:
    """Return the size of all files of the folder, those kept aside too."""
    try:
        with os.scandir(folder) as entries:
            return sum(size for entry in entries if (size := _size(entry)))
    except (FileNotFoundError, NotADirectoryError):
        return 0


@dataclass(frozen=True, slots=True)
class Look:
    """What one file holds, looked at without its lock: since when, and the places where its records end."""

    name: str
    begun_ms: int
    ends: array[int]

    def left(self, place: int) -> int:
        """Return how many of its deliveries lie behind *place*."""
        return len(self.ends) - bisect_right(self.ends, place)


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies in a folder, whoever owns it: files that can be read, files kept aside, files that cannot be."""

    looks: list[Look]
    used_bytes: int
    aside: int
    unreadable: int

    @property
    def deliveries(self) -> int:
        """Return how many deliveries there are at most: some may be in Redis already."""
        return sum(look.left(0) for look in self.looks)

    @property
    def oldest_ms(self) -> int | None:
        """Return when the oldest file that holds anything was begun."""
        return min((look.begun_ms for look in self.looks if look.ends), default=None)


def survey(home: Home) -> Survey:
    """Look at everything that is spilled in *home*, changing nothing; what cannot be read is counted."""
    try:
        return _survey(home)
    except OSError:
        return Survey([], 0, aside=0, unreadable=1)


def _survey(home: Home) -> Survey:
    looks, unreadable = [], 0
    for path in files_in(home.spill_dir):
        try:
            ends = records_in(path.read_bytes(), mark_of(path)).ends
            looks.append(Look(name_of(path), begun_ms(path), ends))
        except FileNotFoundError:  # drained meanwhile
            continue
        except OSError:
            unreadable += 1
    aside = len(list(home.spill_dir.glob(f"*{ASIDE}")))
    return Survey(looks, used_bytes(home.spill_dir), aside, unreadable)


def _taken(path: Path) -> Segment | None:
    """Return the file as this process's, or None while its owner lives, or when it has just gone."""
    handle = -1
    try:
        handle = os.open(path, os.O_RDWR)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # its last owner may have removed it in between
        if os.fstat(handle).st_ino == path.stat().st_ino:
            segment = Segment(path, handle, size=os.fstat(handle).st_size)
            segment.left = len(records_in(_whole(handle), segment.mark).ends)
            return segment
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        log.warning("a spilled file cannot be adopted file=%s: %s", path, _why(error))
    if handle >= 0:
        os.close(handle)
    return None


def _whole(handle: int) -> bytes:
    return b"".join(_chunks(handle))


def _chunks(handle: int) -> Iterator[bytes]:
    at = 0
    while chunk := os.pread(handle, 1 << 24, at):
        at += len(chunk)
        yield chunk


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size if entry.is_file() else 0
    except FileNotFoundError:
        return 0


def _is_ours(path: Path) -> bool:
    try:
        begun_ms(path)
        mark_of(path)
    except ValueError:
        return False
    return True


def _sync(handle: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # on macOS fsync leaves it in the drive's cache
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _cannot(error: OSError | HomeError) -> SpillError:
    why = _why(error) if isinstance(error, OSError) else str(error)
    return SpillError(f"the spill cannot be written: {why}")

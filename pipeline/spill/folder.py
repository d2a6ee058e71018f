"""The folder of a spill: which files are ours, what their names tell, and how large all of them are."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

SUFFIX, ASIDE = ".log", ".damaged"
PROBE = ".probe-"


def name_of(path: Path) -> str:
    """Return what the file *path* is known by, whatever time stands before it."""
    return path.stem.partition("-")[2]


def mark_of(path: Path) -> bytes:
    """Return what the heads in the file *path* begin with; raises `ValueError` when that is no spilled file's name."""
    mark = bytes.fromhex(name_of(path))
    if len(mark) != 8:
        raise ValueError("not a spilled file's name")
    return mark


def stamp_of(path: Path) -> int:
    """Return what the file *path* is sorted by: when it was begun, in microseconds of Unix time."""
    return int(path.stem.partition("-")[0])


def begun_ms(path: Path) -> int:
    """Return when the file *path* was begun, in Unix milliseconds."""
    return stamp_of(path) // 1000


def path_in(folder: Path, stamp: int, name: str) -> Path:
    """Return the path of the file that was begun at *stamp*."""
    return folder / f"{stamp:017d}-{name}{SUFFIX}"


def draft_of(path: Path) -> Path:
    """Return what the file *path* is called before it is locked."""
    return path.with_name(f".{path.name}")


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


def leftovers_in(folder: Path) -> list[Path]:
    """Return what a death in the middle of making a file leaves: drafts and probes, always empty."""
    try:
        return [path for path in folder.iterdir() if path.name.startswith(".") and _is_made(path)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def sync(handle: int) -> None:
    """Have what was written on the disk."""
    if hasattr(fcntl, "F_FULLFSYNC"):  # on macOS fsync leaves it in the drive's cache
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Have the names in *folder* on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def why(error: OSError) -> str:
    """Return what the system says."""
    return error.strerror or type(error).__name__


def _is_made(path: Path) -> bool:
    if path.name.startswith(PROBE):
        return True
    return path.suffix == SUFFIX and _is_ours(path.with_name(path.name[1:]))


def _is_ours(path: Path) -> bool:
    try:
        stamp_of(path)
        mark_of(path)
    except ValueError:
        return False
    return True


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size if entry.is_file() else 0
    except FileNotFoundError:
        return 0

"""What lies in a spill's folder, whoever owns it: looked at without locks, changing nothing.

Who looks every second would read a large spill every second. So what was found in a file is kept as long as its size
and its time of change are the same: a file is only appended to, and at last not even that.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from pipeline.home import Home
from pipeline.spill.folder import ASIDE, begun_ms, files_in, mark_of, name_of, used_bytes
from pipeline.spill.pages import Pages
from pipeline.spill.records import records_in


@dataclass(frozen=True, slots=True)
class Look:
    """What one file holds, looked at without its lock: since when, and the places where its records end."""

    name: str
    begun_ms: int
    ends: array[int]

    def left(self, place: int) -> int:
        """Return how many of its deliveries lie behind *place*."""
        return len(self.ends) - bisect_right(self.ends, place)


#: what was found in each file, under its number, size and time of change
_known: dict[Path, tuple[tuple[int, int, int], Look]] = {}


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
    paths = files_in(home.spill_dir)
    for path in paths:
        try:
            looks.append(_look_at(path))
        except FileNotFoundError:  # drained meanwhile
            continue
        except OSError:
            unreadable += 1
    for path in _known.keys() - set(paths):
        if path.parent == home.spill_dir:
            _known.pop(path, None)
    aside = len(list(home.spill_dir.glob(f"*{ASIDE}")))
    return Survey(looks, used_bytes(home.spill_dir), aside, unreadable)


def _look_at(path: Path) -> Look:
    """Read one file, record by record, unless it is as it was; raises `OSError`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        about = os.fstat(handle)
        mark = (about.st_ino, about.st_size, about.st_mtime_ns)
        known = _known.get(path)
        if known and known[0] == mark:
            return known[1]
        ends = records_in(Pages(handle), mark_of(path)).ends
    finally:
        os.close(handle)
    look = Look(name_of(path), begun_ms(path), ends)
    _known[path] = mark, look
    return look

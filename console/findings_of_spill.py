"""What `relay doctor` finds in the spill of this RELAY_HOME: how much lies there, and whether anything could."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from console.findings import Finding, bad, ok, warn
from pipeline.clock import iso
from pipeline.settings import SettingsError
from pipeline.spill import Survey, survey

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.settings import Settings

CHECK = "spill"
#: the share of SPILL_MAX_BYTES from which on receivers may soon refuse
FILLING = 0.8
MOUNTS = Path("/proc/self/mounts")
#: kinds of file systems that do not outlive a reboot, or the container
_PASSING = {"tmpfs": "memory", "ramfs": "memory", "overlay": "the container's own layer"}


def of_spill(settings: Settings) -> Iterator[Finding]:
    """Yield what the files of the spill tell, without asking Redis how many of them it has already."""
    try:
        home = settings.data_home()
    except SettingsError as error:
        yield bad(CHECK, str(error), "mend this, then look again")
        return
    told = survey(home)
    if told.unreadable:
        do = f"run this as the receivers' user, or look at {home.spill_dir}"
        yield bad(CHECK, "some of it cannot be read", do)
    if told.aside:
        found = f"{told.aside} damaged files are kept aside: a part of each could not be read"
        do = f"look at the disk; they hold people's data: delete them from {home.spill_dir}"
        yield bad(CHECK, found, do)
    limit = settings.spill_max_bytes
    if told.deliveries:
        yield _held(told, limit)
    elif limit == 0:
        yield ok(CHECK, "off: while Redis is away receivers answer 503")
    elif told.used_bytes >= FILLING * limit:
        found = f"what is kept aside fills {_of(told.used_bytes, limit)}: without Redis receivers answer 503"
        yield bad(CHECK, found, f"delete what you need no more from {home.spill_dir}")
    else:
        yield _place(home)


def _held(told: Survey, limit: int) -> Finding:
    """Return how much lies there."""
    since_ms = told.oldest_ms or 0
    found = (
        f"up to {told.deliveries} deliveries wait for Redis, {_of(told.used_bytes, limit)},"
        f" since {iso(since_ms)} ({max(0, time() - since_ms / 1000):.0f} s)"
    )
    do = "see that Redis takes deliveries, and that a receiver with this RELAY_HOME runs"
    if told.used_bytes >= FILLING * limit:
        return bad(CHECK, f"{found}: soon receivers answer 503", do)
    return warn(CHECK, found, do)


def _of(used_bytes: int, limit: int) -> str:
    return f"{used_bytes / 2**20:.1f} of {limit / 2**20:.0f} MB"


def _place(home: Home) -> Finding:
    """Return whether something could be kept there, for as long as it is needed."""
    there = next(path for path in (home.spill_dir, *home.spill_dir.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        do = "let RELAY_HOME be a folder that the receivers may write, or set SPILL_MAX_BYTES=0"
        return warn(CHECK, f"{there} cannot be written: without Redis receivers answer 503", do)
    passing = _PASSING.get(_kind(there))
    if passing:
        do = "let RELAY_HOME be a volume that outlives the receiver"
        return warn(CHECK, f"{home.spill_dir} lies in {passing}: a restart may lose it", do)
    return ok(CHECK, f"empty; {home.spill_dir} can be written")


def _kind(path: Path) -> str:
    try:
        return kind_of(path.resolve(), MOUNTS.read_text(encoding="utf-8", errors="replace"))
    except OSError:  # not Linux
        return ""


def kind_of(path: Path, mounts: str) -> str:
    """Return the kind of the file system that *path* lies on, by the lines of /proc/mounts; empty when none fits."""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, found, *_ = [*line.split(" "), "", "", ""]
        point = point.replace("\\040", " ")
        # a later mount on the same point hides the earlier one
        if point and path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind

"""What `relay doctor` finds in RELAY_HOME: room on its disk, and whether anybody else may read it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from console.findings import Finding, bad, ok, warn

if TYPE_CHECKING:
    from pipeline.settings import Settings

MB = 2**20
#: a busy relay writes some hundred megabytes an hour into Redis's append-only file
LITTLE, NOTHING = 2048 * MB, 256 * MB


def of_disk(settings: Settings) -> Iterator[Finding]:
    """Yield what this machine's file system tells."""
    home = settings.relay_home
    yield _room(home, _size(home / "redis"))
    if home.exists():
        yield _mode(home)


def _room(home: Path, data: int) -> Finding:
    """Judge what is free: the embedded Redis's *data* needs as much again whenever its file is rewritten."""
    check = "disk"
    there = next(path for path in (home, *home.parents) if path.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return bad(check, f"{there} cannot be looked at: {error.strerror}", "look at the disk")
    told = f"{free / MB:.0f} MB free at {there}"
    do = "make room: Redis stops writing when it cannot rewrite its file"
    if free < NOTHING:
        return bad(check, told, do)
    if free < data:
        return warn(check, f"{told}, less than Redis's {data / MB:.0f} MB of data there", do)
    return warn(check, told, do) if free < LITTLE else ok(check, told)


def _mode(home: Path) -> Finding:
    check, mode = "RELAY_HOME", stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        found = f"{home} is open to others ({mode:04o}): tokens and people's data lie in it"
        return warn(check, found, f"chmod 700 {home}")
    if not os.access(home, os.W_OK):
        return warn(check, f"{home} cannot be written by this user", "run as who owns it")
    return ok(check, f"{home}: nobody else may read it")


def _size(folder: Path) -> int:
    try:
        return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    except OSError:  # what is being rewritten comes and goes
        return 0

"""New files of a spill: locked before they have their name, and sorted behind all that lie there."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path
from secrets import token_hex

from pipeline.home import Home
from pipeline.spill.folder import (
    PROBE,
    draft_of,
    files_in,
    leftovers_in,
    path_in,
    stamp_of,
    sync_folder,
    why,
)
from pipeline.spill.segment import Segment

log = logging.getLogger(__name__)

# A draft or a probe that is older was left by a death.
_LEFT_AFTER_S = 60.0


class NewFiles:
    """Makes the files of one process. Making the object touches nothing; whatever else it does may raise `OSError`."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.spill_dir
        self._stamp = 0

    def try_one(self) -> None:
        """Make a file and remove it; raises `HomeError`, too."""
        self._make_folder()
        probe = self._folder / f"{PROBE}{token_hex(8)}"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        probe.unlink()

    def make(self) -> Segment:
        """Make one; its name is on the disk before anything is in it. Raises `HomeError`, too."""
        self._make_folder()
        path = self._path_now(token_hex(8))
        draft = draft_of(path)
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(path)
            sync_folder(self._folder)
        except BaseException:
            os.close(handle)
            for each in (draft, path):
                clear(each)
            raise
        return Segment(path, handle)

    def use(self, spare: Segment) -> Segment | None:
        """Let its name tell when it was begun, or let go of it; should a power cut undo that, it only looks older."""
        path = self._path_now(spare.name)
        try:
            spare.path.rename(path)
        except OSError as error:
            log.debug("a spare file is of no use: %s", why(error))
            os.close(spare.handle)
            return None
        spare.path = path
        return spare

    def tidy(self) -> None:
        """Remove what deaths have left half made."""
        before = time.time() - _LEFT_AFTER_S
        for path in leftovers_in(self._folder):
            about = path.stat()
            if about.st_size == 0 and about.st_mtime < before:
                clear(path)

    def _path_now(self, name: str) -> Path:
        """Return a path that is sorted behind all that lie there, whatever became of the clock."""
        newest = max(map(stamp_of, files_in(self._folder)), default=0)
        self._stamp = max(self._stamp + 1, newest + 1, time.time_ns() // 1000)
        return path_in(self._folder, self._stamp, name)

    def _make_folder(self) -> None:
        if self._folder.is_dir():
            return
        if not self._home.path.is_dir():
            self._home.make()
            sync_folder(self._home.path.parent)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self._folder.parent)


def clear(path: Path) -> None:
    """Remove *path*, if the disk does that."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("not removed file=%s: %s", path, why(error))

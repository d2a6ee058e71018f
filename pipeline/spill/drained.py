"""Drained files: removed, or kept aside when they have damage; what cannot be removed stays locked until it can be."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress

from pipeline.spill.folder import ASIDE, why
from pipeline.spill.segment import Segment

log = logging.getLogger(__name__)


class Drained:
    """The files of one process that were drained and are still there. *lock* is held to note who has which."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._segments: dict[str, Segment] = {}

    def __contains__(self, stem: str) -> bool:
        return stem in self._segments

    def note(self, segment: Segment) -> None:
        """Have *segment*, which nobody reads any more; the lock is held.

        How far it was drained is known; still it would be read again and again.
        """
        segment.data = b""
        self._segments[segment.path.stem] = segment

    def remove(self, segment: Segment) -> None:
        """Remove it, if the disk does that."""
        try:
            self._remove(segment)
        except OSError as error:
            log.warning("a drained file stays file=%s: %s", segment.path, why(error))

    def tidy(self) -> None:
        """Remove what could not be removed before."""
        for segment in list(self._segments.values()):
            with suppress(OSError):
                self._remove(segment)

    def close(self) -> None:
        """Let go of all; the lock is held."""
        for segment in self._segments.values():
            os.close(segment.handle)
        self._segments.clear()

    def _remove(self, segment: Segment) -> None:
        if segment.records and segment.records.is_damaged:
            aside = segment.path.with_suffix(ASIDE)
            segment.path.rename(aside)
            log.error("a spilled file is damaged, and kept: file=%s", aside)
        else:
            segment.path.unlink(missing_ok=True)
        with self._lock:
            if self._segments.pop(segment.path.stem, None) is segment:
                os.close(segment.handle)

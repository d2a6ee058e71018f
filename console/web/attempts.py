"""Attempts: wrong tokens at the log-in, so that nobody tries as many as they like.

Counted for each address for a minute, in this process; a proxy in front is one address unless it tells whose request
it brings (`--forwarded-allow-ips` of uvicorn).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

MOST = 10
WITHIN_S = 60.0
# of addresses; the one that was quiet for longest is forgotten first
_REMEMBERED = 10_000


class Attempts:
    """How often each address was wrong, since when."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Return how many seconds *address* has to wait before its next try; 0 when it may try now."""
        count, since = self._of(address)
        return math.ceil(since + WITHIN_S - self._now()) if count >= MOST else 0

    def note_wrong(self, address: str) -> None:
        """Count a wrong token."""
        count, since = self._of(address)
        self._wrong[address] = (count + 1, since)
        self._wrong.move_to_end(address)
        if len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)

    def _of(self, address: str) -> tuple[int, float]:
        now = self._now()
        count, since = self._wrong.get(address, (0, now))
        return (count, since) if now - since < WITHIN_S else (0, now)

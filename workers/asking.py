"""Asking: which questions of one process are on their way, and what need not be looked at for a moment.

It keeps the calls few and the waiting for them short; what is asked, and what becomes of it, is `questions`' matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic

#: seconds in which most answers come: the first delivery, and a worker that runs once (`--burst`), need no second look
PATIENCE_S = 1.0
#: the stage waits for answers in a tenth of its time at most, however many questions there are
REST = 10
#: calls of one process on their way at a time
MOST_AT_ONCE = 4
#: far above how many addresses are really waited for
_MOST_NAMES = 1_000


class Later(Exception):
    """It cannot be found out now; the delivery waits."""


class Asking:
    """The questions of one process."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._hosts: dict[str, float] = {}
        self._names: dict[str, float] = {}
        self._faults: dict[str, BaseException] = {}
        self._waits_from = 0.0

    def check(self, name: str) -> None:
        """Raise `Later` while *name* need not be looked at, and what our own code failed with over it."""
        if fault := self._faults.pop(name, None):
            raise fault
        if self._names.get(name, 0.0) > monotonic():
            raise Later("it was looked at a moment ago")

    def look_again(self, name: str, after_s: float) -> None:
        """Leave *name* alone for *after_s* seconds."""
        if len(self._names) >= _MOST_NAMES:
            self._names.clear()
        self._names[name] = monotonic() + after_s

    def may_ask(self, host: str) -> bool:
        """Tell whether one more question may go to *host* now."""
        return len(self._tasks) < MOST_AT_ONCE and self._hosts.get(host, 0.0) <= monotonic()

    async def ask(
        self, name: str, host: str, rest_s: float, call: Coroutine[None, None, None]
    ) -> None:
        """Begin *call*, and wait for its end only as long as it holds nobody up; *host* rests for *rest_s* seconds."""
        # hosts are those of our own topics' regions: a handful
        self._hosts[host] = monotonic() + rest_s
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._end(name, done))
        begun = monotonic()
        if begun >= self._waits_from:
            await asyncio.wait({task}, timeout=PATIENCE_S)
            self._waits_from = monotonic() + REST * (monotonic() - begun)

    def _end(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._names.pop(name, None)
        if not task.cancelled() and (fault := task.exception()):
            self._faults[name] = fault

"""Silence: a connection on which nothing is answered is given up, at no cost for each command.

A server that takes connections and answers nothing (it was stopped, its disk hangs, it is a primary that has long been
replaced) would be waited for without end: keep-alive finds out only that its machine lives. A time-out of redis-py's is
a timer for each write and each read, a third of what a small command costs. Here one timer a connection looks now and
then how long the present wait has lasted, and hangs up: redis-py then sees a connection that was lost, and tries again.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

logger = logging.getLogger(__name__)

#: what reading an answer takes that has come already, while this process was busy or stood still itself
READ_S = 0.05


class Watched:
    """A connection that hangs up when a write, or the wait for a reply, has taken `silence_s`."""

    silence_s = 10.0
    _since: float | None = None
    _timer: asyncio.TimerHandle | None = None
    _writer: asyncio.StreamWriter | None

    async def until_written(self) -> None:
        """Wait until what was written is on its way."""
        self._begin_to_wait()
        try:
            await super().until_written()  # type: ignore[misc] # that of `connections.Quick`
        finally:
            self._since = None

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Return a reply."""
        self._begin_to_wait()
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc] # redis-py's
        finally:
            self._since = None

    def _begin_to_wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self.silence_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop, *, again: bool = False) -> None:
        self._timer = None
        if self._since is None:
            return  # the next command begins anew
        left_s = self._since + self.silence_s - loop.time()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._look, loop)
        elif not again:
            self._timer = loop.call_later(READ_S, partial(self._look, loop, again=True))
        elif self._writer is not None:
            logger.warning("Redis says nothing for %.0f s: hanging up", self.silence_s)
            self._writer.transport.abort()

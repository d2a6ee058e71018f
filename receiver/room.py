"""How much room Redis has left, known without asking it on every request.

The receiver stops storing at 85 % of `maxmemory`, so that the workers, whose moves need a little
memory themselves, can always drain. Asked four times a second; what was stored since the last
answer is added, so that a burst between two answers cannot run into the wall.
"""

from __future__ import annotations

import asyncio
import logging

from pipeline.inbox import Inbox

log = logging.getLogger(__name__)

FULL_AT = 0.85
POLL_S = 0.25


class RoomWatch:
    """Knows whether the receiver may still store."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._stored_since = 0
        self.used_bytes = 0
        self.limit_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether 85 % of the memory is used; never when Redis has no limit."""
        return 0 < self.limit_bytes * FULL_AT <= self.used_bytes + self._stored_since

    def stored(self, count: int) -> None:
        """Note that *count* bytes were stored."""
        self._stored_since += count

    async def look(self) -> None:
        """Ask Redis once; raises what the inbox raises when it does not answer."""
        room = await self._inbox.room()
        self._stored_since = 0
        self.used_bytes = room.used_bytes
        self.limit_bytes = room.limit_bytes

    async def watch(self) -> None:
        """Ask for ever. While Redis does not answer the last answer holds: storing fails anyway."""
        while True:
            try:
                async with asyncio.timeout(POLL_S):
                    await self.look()
            except Exception as error:
                log.debug("room unknown error=%s", type(error).__name__)
            await asyncio.sleep(POLL_S)

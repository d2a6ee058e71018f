"""How much room Redis has left, known without asking it on every request.

The receiver stops storing at 85 % of `maxmemory`, so that the workers, whose moves need a little
memory themselves, can always drain. What was stored since the last answer is added, so that a burst
between two answers cannot run into the wall. What others store meanwhile is not known: near the limit
Redis is asked four times a second, with more room less often, as others need longer to fill it.
"""

from __future__ import annotations

import asyncio
import logging

from pipeline.inbox import Inbox
from pipeline.scripts import words_of

log = logging.getLogger(__name__)

FULL_AT = 0.85
#: how often it is thought about; near the limit Redis is asked each time
POLL_S = 0.25
#: with the most room, and without a limit: one may be set while Redis runs
LONGEST_S = 1.0


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
        age_s = self.good_for_s
        while True:
            if age_s >= self.good_for_s:
                try:
                    async with asyncio.timeout(POLL_S):
                        await self.look()
                    age_s = 0.0
                except Exception as error:
                    log.debug("room unknown error=%s", words_of(error))
            await asyncio.sleep(POLL_S)
            age_s += POLL_S

    @property
    def good_for_s(self) -> float:
        """How long an answer is good: who fills by then what is free now would fill 15 % in `POLL_S`."""
        if not self.limit_bytes:
            return LONGEST_S
        free = 1 - (self.used_bytes + self._stored_since) / self.limit_bytes
        return min(POLL_S * free / (1 - FULL_AT), LONGEST_S)

"""Counting refused deliveries in Redis without making the refused wait for Redis.

What leaves no trace but a count (wrong token, wrong signature, too large) must at least be
counted where `relay status` sees it. A flood of wrong tokens must not become a flood of Redis
commands, so counts add up in memory and one task writes what has come together, one write at a
time. When Redis is away they wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from pipeline.inbox import Inbox
from pipeline.scripts import words_of

log = logging.getLogger(__name__)

# How long the writer rests after a failed write.
_REST_S = 1.0


class Refusals:
    """The counts not yet written. Causes: token, signature, too_large."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._counts: Counter[str] = Counter()
        self._more = asyncio.Event()

    def add(self, cause: str) -> None:
        """Count one refusal."""
        self._counts[cause] += 1
        self._more.set()

    async def write(self) -> None:
        """Write what has come together; what could not be written stays counted."""
        self._more.clear()
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            async with asyncio.timeout(_REST_S):
                await self._inbox.count_refused(counts)
        except BaseException:
            self._counts.update(counts)
            raise

    async def keep_writing(self) -> None:
        """Write for ever, whenever there is something."""
        while True:
            await self._more.wait()
            try:
                await self.write()
            except Exception as error:
                log.debug("refused counts not written error=%s", words_of(error))
                self._more.set()
                await asyncio.sleep(_REST_S)

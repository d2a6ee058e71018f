"""Opening the inbox: what has to be true before anything may be promised.

Redis may come later than the receiver. Until the inbox is open every delivery is spilled, or refused
with 503, and the receiver tries again once a second. Only an `ACK_POLICY` that this Redis cannot keep
ends the process, because no waiting makes it possible. One that it cannot keep any more, because somebody has
changed its settings or another server has taken over, closes the inbox until it can.
"""

from __future__ import annotations

import asyncio
import logging

from pipeline.inbox import Inbox, NotPossible
from pipeline.scripts import words_of

log = logging.getLogger(__name__)

_WITHIN_S = 5.0
_AGAIN_S = 1.0


class Opening:
    """Makes the inbox ready, now or as soon as Redis is there."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.problem: str | None = "the inbox is not open yet"
        self.is_broken = False

    async def try_once(self) -> None:
        """Try once; raises `NotPossible` when trying again is of no use."""
        try:
            async with asyncio.timeout(_WITHIN_S):
                await self._inbox.start()
        except NotPossible as error:
            self.problem = str(error)
            raise
        except Exception as error:
            self.problem = "the inbox is not open: Redis does not answer"
            log.warning("inbox not open yet error=%s", words_of(error))
        else:
            if not self.is_broken:
                self.problem = None

    async def look(self) -> None:
        """Close the inbox when what is promised cannot be kept any more; raises `NotPossible` then."""
        try:
            async with asyncio.timeout(_WITHIN_S):
                await self._inbox.check()
        except NotPossible as error:
            self.problem = self.problem or str(error)
            raise
        except Exception as error:  # then nothing can be stored anyway
            log.debug("promise not checked error=%s", words_of(error))

    def close_if_failed(self, task: asyncio.Task[None]) -> None:
        """Accept nothing more once a part of the receiver has ended by a fault of ours."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.is_broken = True
        self.problem = "a part of the receiver has failed: start it again"
        log.critical("nothing is accepted any more: %s", self.problem, exc_info=error)

    async def keep_trying(self) -> None:
        """Try until it is open, and look for ever whether it may stay so. What is not possible is told by `/readyz`."""
        while not self.is_broken:
            await asyncio.sleep(_AGAIN_S)
            before = self.problem
            try:
                await (self.look() if before is None else self.try_once())
            except NotPossible:
                if self.problem != before:
                    log.critical("Redis gets nothing: %s", self.problem)
            else:
                if before is not None and self.problem is None:
                    log.info("inbox open")

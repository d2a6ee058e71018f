"""Opening the inbox: what has to be true before anything may be promised.

Redis may come later than the receiver. Until the inbox is open every delivery is spilled, or refused
with 503, and the receiver tries again once a second. Only an `ACK_POLICY` that this Redis cannot keep
ends the process, because no waiting makes it possible.
"""

from __future__ import annotations

import asyncio
import logging

from pipeline.inbox import Inbox, NotPossible

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
            log.warning("inbox not open yet error=%s", type(error).__name__)
        else:
            self.problem = None

    def close_if_failed(self, task: asyncio.Task[None]) -> None:
        """Accept nothing more once a part of the receiver has ended by a fault of ours."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.is_broken = True
        self.problem = "a part of the receiver has failed: start it again"
        log.critical("nothing is accepted any more: %s", self.problem, exc_info=error)

    async def keep_trying(self) -> None:
        """Try until it is open. A promise found impossible only now is told by `/readyz`."""
        while self.problem is not None and not self.is_broken:
            await asyncio.sleep(_AGAIN_S)
            try:
                await self.try_once()
            except NotPossible:
                log.critical("nothing is stored: %s", self.problem)

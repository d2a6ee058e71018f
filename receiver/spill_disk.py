"""The disk under the spill: appends that nobody waits for longer than an answer may take, and what is known of it.

What may go wrong: the disk is full, slow or away. Then nothing is promised, and it is told once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

from pipeline.deliveries import Delivery
from pipeline.inbox import NotStored
from pipeline.spill import Spill, SpillError

log = logging.getLogger(__name__)

# How long a failed append counts as trouble, so that it is tried again when nothing else tells.
TROUBLE_S = 1.0


class Disk:
    """Appends to *spill*, one at a time; *kept* is told of each that was done, and why there was one."""

    def __init__(self, spill: Spill, kept: Callable[[int, str], None]) -> None:
        self._spill = spill
        self._kept = kept
        self._hung: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._trouble: tuple[str, float] | None = None

    def trouble(self) -> str | None:
        """Return why nothing can be appended, as far as is known, or None."""
        if self._trouble is None or monotonic() - self._trouble[1] > TROUBLE_S:
            return None
        return self._trouble[0]

    async def check(self) -> None:
        """Try whether it takes anything."""
        try:
            await asyncio.to_thread(self._spill.check)
        except SpillError as error:
            self._note_trouble(str(error))

    def try_soon(self) -> None:
        """Have it tried, and a file made, before the first append; nobody waits for it."""
        self._preparing = asyncio.create_task(self._try())

    async def append(self, deliveries: Sequence[Delivery], within_s: float, why: str) -> None:
        """Keep *deliveries*; raises `NotStored` when that is not done in time.

        An append that hangs goes on: what it keeps in the end is drained, though nobody was promised it.
        """
        if self._hung is not None:
            await asyncio.wait([self._hung], timeout=within_s)
            if not self._hung.done():
                raise self._failed("the disk does not answer")
            if not self._hung.cancelled():
                self._hung.exception()  # told when it hung
            self._hung = None
        task = asyncio.create_task(self._keep(deliveries, why))
        done, _ = await asyncio.wait([task], timeout=within_s)
        if not done:
            self._hung = task
            raise self._failed("the disk did not answer in time")
        if (error := task.exception()) is not None:
            raise self._failed(str(error)) from error

    async def _keep(self, deliveries: Sequence[Delivery], why: str) -> None:
        payloads = [delivery.pack() for delivery in deliveries]
        await asyncio.to_thread(self._spill.append, payloads)
        self._trouble = None
        self._kept(len(deliveries), why)
        self._prepare_soon()

    def _prepare_soon(self) -> None:
        """Have the next file ready before it is needed; nobody waits for it."""
        if self._spill.has_spare or (self._preparing and not self._preparing.done()):
            return
        self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        with suppress(SpillError):  # the append that needs one tells
            await asyncio.to_thread(self._spill.prepare)

    async def _try(self) -> None:
        await self.check()
        await self._prepare()

    def _failed(self, why: str) -> NotStored:
        self._note_trouble(why)
        return NotStored(why)

    def _note_trouble(self, why: str) -> None:
        if self.trouble() is None:
            log.warning("nothing can be spilled: %s", why)
        self._trouble = (why, monotonic())

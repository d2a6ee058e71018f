"""The drain of the spill: stores what lies on disk, the oldest first, as soon as Redis takes it.

It also takes over the files that dead receivers of this home have left. What may go wrong: Redis takes nothing, the
disk fails, the folder hangs. Each is told once and tried again; the drain never ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from pipeline.inbox import WITHIN_S, Inbox, NotStored
from pipeline.outcomes import Stage
from pipeline.spill import Piece, Segment, Spill, SpillError
from pipeline.wake import Bell
from receiver.limits import Limits
from receiver.metrics import Metrics
from receiver.opening import Opening
from receiver.precedence import Precedence
from receiver.room import RoomWatch

log = logging.getLogger(__name__)

# A piece is one stream entry, as large as that of a flush.
_LIMITS = Limits()
# Pieces that share one way to Redis, and one wait for the disk or the replica.
TOGETHER = 4
# How long the drain rests when Redis takes nothing.
AGAIN_S = 0.2
# How often files of dead processes are looked for when nothing is drained; else before each file, and each new try.
ADOPT_EVERY_S = 5.0
# How long the drain waits for that; a folder that hangs is left out.
LOOK_WITHIN_S = 5.0
# How long a file that cannot be read is tried; then the others go on without it.
READ_WITHIN_S = 10.0


class Drain:
    """Stores what is spilled through the inbox, and rings the bell of `unpack`."""

    def __init__(
        self,
        spill: Spill,
        precedence: Precedence,
        inbox: Inbox,
        bell: Bell,
        opening: Opening,
        room: RoomWatch,
        metrics: Metrics,
    ) -> None:
        self._spill = spill
        self._precedence = precedence
        self._inbox = inbox
        self._bell = bell
        self._opening = opening
        self._room = room
        self._metrics = metrics
        self._work = asyncio.Event()
        self._failing = ""
        self._looked_at = 0.0
        self._looking: asyncio.Task[int] | None = None

    def wake(self) -> None:
        """Say that there is something."""
        self._work.set()

    async def look(self) -> None:
        """Find out what lies there already."""
        await self._adopt()
        if self._spill.is_drained:
            self._precedence.end()

    async def run(self) -> None:
        """Drain whenever there is something, for ever; whatever the disk does, it is tried again."""
        while True:
            await self._drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(ADOPT_EVERY_S):
                    await self._work.wait()
            self._work.clear()

    async def _adopt(self) -> None:
        """Take over what dead receivers have left; a disk that fails or hangs is told once, and asked again."""
        within_s = 0.0
        if self._looking is None:
            within_s = LOOK_WITHIN_S
            self._looking = asyncio.create_task(asyncio.to_thread(self._spill.adopt))
        done, _ = await asyncio.wait([self._looking], timeout=within_s)
        self._looked_at = monotonic()
        if not done:
            self._tell_failing(f"{self._spill.folder} does not answer")
            return
        task, self._looking = self._looking, None
        try:
            adopted = task.result()
        except SpillError as error:
            self._tell_failing(str(error))
            return
        self._failing = ""
        if adopted:
            log.info("adopted what another receiver had spilled files=%d", adopted)
            self._precedence.begin()

    def _tell_failing(self, why: str) -> None:
        if self._failing != why:
            log.warning("spilled before may be more: %s", why)
        self._failing = why

    async def _drain(self) -> None:
        """Store all that is spilled, the oldest file first, also one that is found meanwhile."""
        await self._adopt()
        while (segment := await self._oldest()) is not None:
            if is_done := await self._take_out(segment):
                await asyncio.to_thread(self._spill.finish, segment)
            else:
                self._precedence.advances(False)
                await asyncio.sleep(AGAIN_S)
            if not is_done or monotonic() - self._looked_at > ADOPT_EVERY_S:
                await self._adopt()
        if self._spill.is_drained:
            self._precedence.end()

    async def _oldest(self) -> Segment | None:
        """Return the file that comes next, as soon as it can be read."""
        told, give_up_at = "", monotonic() + READ_WITHIN_S
        while True:
            try:
                return await asyncio.to_thread(self._spill.next)
            except SpillError as error:
                if told != str(error):
                    told, give_up_at = str(error), monotonic() + READ_WITHIN_S
                    log.warning("not drained yet: %s", told)
            self._precedence.advances(False)
            if monotonic() > give_up_at:
                await asyncio.to_thread(self._spill.pass_over)
            await asyncio.sleep(AGAIN_S)

    async def _take_out(self, segment: Segment) -> bool:
        """Store what *segment* still holds; tell whether that is done: else Redis takes nothing now."""
        while pieces := segment.pieces(
            segment.place,
            most=_LIMITS.deliveries_per_entry,
            most_bytes=_LIMITS.bytes_per_entry,
            count=TOGETHER,
        ):
            if self._opening.problem or self._room.is_full:
                return False
            size = sum(piece.size for piece in pieces)
            place = await self._store(segment, pieces, WITHIN_S + size / _LIMITS.bytes_per_s)
            if place is None:
                return False
            before = segment.left or 0
            segment.advance(place)
            self._metrics.drained += max(0, before - (segment.left or 0))
            self._room.stored(size)
            self._precedence.advances()
            if self._spill.is_drained:
                self._precedence.end()
        return True

    async def _store(
        self, segment: Segment, pieces: Sequence[Piece], within_s: float
    ) -> int | None:
        """Store *pieces*; return how far the file has come, or None when Redis did not take them."""
        try:
            place, bell = await self._inbox.put_spilled(segment.name, pieces, within_s)
        except NotStored as error:
            if self._precedence.refused != str(error):
                log.info("not drained yet: %s", error)
            self._precedence.refused = str(error)
            return None
        self._precedence.refused = None
        await self._bell.ring(Stage.UNPACK, bell)
        return place

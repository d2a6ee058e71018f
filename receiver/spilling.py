"""Spilling: what Redis cannot take is kept on disk, and drained in order once Redis takes it again.

A flush that Redis refused or did not answer goes to the spill (`pipeline.spill`) in one append, and is answered 202
with `Relay-Ack: spilled`. From then on every flush goes there without asking Redis, so that nothing overtakes what lies
there already; only the drain asks, again and again. It stores what was spilled batch by batch, each in one step with
how far the file has come, so that a crash at any moment loses nothing and doubles nothing. While it advances every
flush waits a moment for its end, and goes to Redis again if it comes: the order holds, and senders who wait for their
answers bring no more than is drained meanwhile, so that the end comes also under load. A receiver begins that way, too:
until it has looked for files that dead ones have left, nothing is stored.

The order is that of one receiver. Another one that has nothing spilled stores what comes to it while this one drains.

What may come twice: a flush that Redis did not answer may be stored, and is spilled as well. The seen marks of its
events tell, as for a sender that sends again; only the books of `unpack` have it twice, because it was stored twice.

What may go wrong: the disk is full, slow or away. Then the answer is 503, as without a spill, and what the drain or the
look for files was refused is told once and tried again: a disk ends no receiver, nor its start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from pipeline.deliveries import Delivery
from pipeline.inbox import WITHIN_S, Inbox, NotStored
from pipeline.outcomes import Stage
from pipeline.spill import Piece, Segment, Spill, SpillError
from pipeline.wake import Bell
from receiver.metrics import Metrics
from receiver.opening import Opening
from receiver.room import RoomWatch

log = logging.getLogger(__name__)

# One stream entry, as large as that of a flush.
BATCH, BATCH_BYTES = 256, 1 << 20
# Batches that share one way to Redis, and one wait for the disk or the replica.
TOGETHER = 4
# How long the drain rests when Redis takes nothing.
AGAIN_S = 0.2
# How often files of dead processes are looked for when nothing is drained; else before each file, and each new try.
ADOPT_EVERY_S = 5.0
# How long the drain waits for that; a folder that hangs is left out.
LOOK_WITHIN_S = 5.0
# How long a file that cannot be read is tried; then the others go on without it.
READ_WITHIN_S = 10.0
# How long a failed append counts as trouble, so that it is tried again when nothing else tells.
TROUBLE_S = 1.0
# What a slow network carries at least.
_BYTES_PER_S = 25e6
# How long the end waits for an append that hangs.
_CLOSE_WITHIN_S = 2.0


class Spilling:
    """The spill of one receiver: appends of flushes, and the drain."""

    def __init__(
        self,
        spill: Spill,
        inbox: Inbox,
        bell: Bell,
        opening: Opening,
        room: RoomWatch,
        metrics: Metrics,
    ) -> None:
        self._spill = spill
        self._inbox = inbox
        self._bell = bell
        self._opening = opening
        self._room = room
        self._metrics = metrics
        self._work = asyncio.Event()
        # until the first look has found nothing
        self._behind = self._advances = True
        self._is_told = False
        self._refused: str | None = None
        self._failing = ""
        self._looked_at = 0.0
        self._empty = asyncio.Event()
        self._hung: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[int] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._trouble: tuple[str, float] | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything may be spilled at all (`SPILL_MAX_BYTES`)."""
        return self._spill.max_bytes > 0

    @property
    def left(self) -> int:
        """How many deliveries this receiver has still to drain; adopted files count once they are read."""
        return self._spill.left

    @property
    def held_bytes(self) -> int:
        """How large this receiver's files are."""
        return self._spill.held_bytes

    @property
    def limit_bytes(self) -> int:
        """How large all files of the folder may be."""
        return self._spill.max_bytes

    @property
    def takes(self) -> bool:
        """Whether a delivery may be spilled, as far as is known."""
        return self.trouble() is None and not self._opening.is_broken

    def trouble(self) -> str | None:
        """Return why nothing can be spilled, as far as is known, or None."""
        if not self.is_on:
            return "nothing is spilled: SPILL_MAX_BYTES is 0"
        if self._trouble is None or monotonic() - self._trouble[1] > TROUBLE_S:
            return None
        return self._trouble[0]

    @property
    def refusal(self) -> str | None:
        """Redis's own words while it refuses what is drained, or None."""
        return self._refused

    def reason(self) -> str | None:
        """Return why a flush goes to the spill without asking Redis, or None: it asks Redis.

        While Redis refuses what is drained, it is that refusal.
        """
        if not self.is_on:
            return None
        if self._behind and self._is_told:
            return self._refused or "what was spilled before goes first"
        return self._opening.problem or ("Redis is nearly full" if self._room.is_full else None)

    def comes_first(self) -> str | None:
        """Return `reason`, or that it is not known yet: as long as nobody has looked, nothing is stored either."""
        if self._behind and self.is_on and not self._is_told:
            return "what was spilled before is not known yet"
        return self.reason()

    async def has_ended(self, within_s: float) -> bool:
        """Wait for the end of a drain that advances; tell whether the next flush may go to Redis."""
        if not self._advances:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        return self.comes_first() is None

    async def check(self) -> None:
        """Try whether the disk takes anything."""
        try:
            await asyncio.to_thread(self._spill.check)
        except SpillError as error:
            self._note_trouble(str(error))

    async def append(self, deliveries: Sequence[Delivery], within_s: float, why: str) -> None:
        """Keep *deliveries* on disk; raises `NotStored` when that is not done in time.

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
        self._metrics.spilled += len(deliveries)
        if not self._is_told:
            log.warning("spilling: %s", why)
        self._fall_behind()
        self._work.set()
        self._prepare_soon()

    def _prepare_soon(self) -> None:
        """Have the next file ready before it is needed; nobody waits for it."""
        if self._spill.has_spare or (self._preparing and not self._preparing.done()):
            return
        self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        with suppress(SpillError):  # the append that needs one tells
            await asyncio.to_thread(self._spill.prepare)

    def _failed(self, why: str) -> NotStored:
        self._note_trouble(why)
        return NotStored(why)

    def _note_trouble(self, why: str) -> None:
        if self.trouble() is None:
            log.warning("nothing can be spilled: %s", why)
        self._trouble = (why, monotonic())

    async def run(self) -> None:
        """Drain whenever there is something, for ever; whatever the disk does, it is tried again."""
        await self._adopt()
        if self._spill.is_drained:
            self._go_on()
        if self.is_on:
            self._preparing = asyncio.create_task(self._try_disk())
        while True:
            await self._drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(ADOPT_EVERY_S):
                    await self._work.wait()
            self._work.clear()

    async def _try_disk(self) -> None:
        await self.check()
        await self._prepare()

    async def close(self) -> None:
        """Let go of the files; the drain has ended."""
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await asyncio.to_thread(self._spill.close)

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
            self._fall_behind()

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
                self._advances = False
                await asyncio.sleep(AGAIN_S)
            if not is_done or monotonic() - self._looked_at > ADOPT_EVERY_S:
                await self._adopt()
        if self._spill.is_drained:
            self._go_on()

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
            self._advances = False
            if monotonic() > give_up_at:
                await asyncio.to_thread(self._spill.pass_over)
            await asyncio.sleep(AGAIN_S)

    async def _take_out(self, segment: Segment) -> bool:
        """Store what *segment* still holds; tell whether that is done: else Redis takes nothing now."""
        while pieces := segment.pieces(
            segment.place, most=BATCH, most_bytes=BATCH_BYTES, count=TOGETHER
        ):
            if self._opening.problem or self._room.is_full:
                return False
            size = sum(piece.size for piece in pieces)
            place = await self._store(segment, pieces, WITHIN_S + size / _BYTES_PER_S)
            if place is None:
                return False
            before = segment.left or 0
            segment.advance(place)
            self._metrics.drained += max(0, before - (segment.left or 0))
            self._room.stored(size)
            self._advances = True
            if self._spill.is_drained:
                self._go_on()
        return True

    async def _store(
        self, segment: Segment, pieces: Sequence[Piece], within_s: float
    ) -> int | None:
        """Store *pieces*; return how far the file has come, or None when Redis did not take them."""
        try:
            place, bell = await self._inbox.put_spilled(segment.name, pieces, within_s)
        except NotStored as error:
            if self._refused != str(error):
                log.info("not drained yet: %s", error)
            self._refused = str(error)
            return None
        self._refused = None
        await self._bell.ring(Stage.UNPACK, bell)
        return place

    def _fall_behind(self) -> None:
        """Let no flush overtake what is spilled."""
        if not self._behind:
            self._advances = False
        self._behind = self._is_told = True
        self._empty.clear()

    def _go_on(self) -> None:
        """Let flushes go to Redis again."""
        if self._is_told:
            log.info("spilling is over: Redis takes deliveries again")
        self._behind = self._is_told = False
        self._refused = None
        self._empty.set()

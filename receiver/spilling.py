"""Spilling: what Redis cannot take is kept on disk, and drained in order once Redis takes it again.

A flush that Redis refused or did not answer goes to the spill (`pipeline.spill`) in one append, and is answered 202
with `Relay-Ack: spilled`. From then on every flush goes there without asking Redis, so that nothing overtakes what lies
there already; only the drain asks, again and again. It stores what was spilled batch by batch, each in one step with
how far the file has come, so that a crash at any moment loses nothing and doubles nothing. When no more than a batch is
left, the next flush waits for it a moment and goes to Redis again: the order holds, and the end comes also under load.

What may come twice: a flush that Redis did not answer may be stored, and is spilled as well. The seen marks of its
events tell, as for a sender that sends again; only the books of `unpack` have it twice, because it was stored twice.

What may go wrong: the disk is full, slow or away. Then the answer is 503, as without a spill.
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

# One stream entry, as large as that of a flush; for so much a flush waits.
BATCH, BATCH_BYTES = 256, 1 << 20
# Batches that share one way to Redis, and one wait for the disk or the replica.
TOGETHER = 4
# How long the drain rests when Redis takes nothing.
AGAIN_S = 0.2
# How often files of dead processes are looked for; a new receiver looks when it starts.
ADOPT_EVERY_S = 5.0
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
        self._behind = False
        self._is_ending = False
        self._empty = asyncio.Event()
        self._hung: asyncio.Task[None] | None = None
        self._trouble: tuple[str, float] | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything may be spilled at all (`SPILL_MAX_BYTES`)."""
        return self._spill.max_bytes > 0

    @property
    def left(self) -> int:
        """How many deliveries this receiver has still to drain."""
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

    def reason(self) -> str | None:
        """Return why a flush goes to the spill without asking Redis, or None: it asks Redis."""
        if not self.is_on:
            return None
        if self._behind:
            return "what was spilled before goes first"
        return self._opening.problem or ("Redis is nearly full" if self._room.is_full else None)

    async def has_ended(self, within_s: float) -> bool:
        """Wait for the last batch, if it is that far; tell whether the next flush may go to Redis."""
        if not self._is_ending:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        return self.reason() is None

    async def open(self) -> None:
        """Try whether the disk takes anything, and adopt what dead receivers have left."""
        if self.is_on:
            await self.check()
        await self._adopt()
        await self._prepare()

    async def _prepare(self) -> None:
        """Have the next file ready before it is needed."""
        if self.is_on:
            with suppress(SpillError):  # the append that needs one tells
                await asyncio.to_thread(self._spill.prepare)

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
        if not self._behind:
            log.warning("spilling: %s", why)
        self._fall_behind()
        self._work.set()

    def _failed(self, why: str) -> NotStored:
        self._note_trouble(why)
        return NotStored(why)

    def _note_trouble(self, why: str) -> None:
        if self.trouble() is None:
            log.warning("nothing can be spilled: %s", why)
        self._trouble = (why, monotonic())

    async def run(self) -> None:
        """Drain whenever there is something, for ever."""
        while True:
            await self._drain()
            try:
                async with asyncio.timeout(ADOPT_EVERY_S):
                    await self._work.wait()
            except TimeoutError:
                await self._adopt()
            self._work.clear()

    async def close(self) -> None:
        """Let go of the files; the drain has ended."""
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await asyncio.to_thread(self._spill.close)

    async def _adopt(self) -> None:
        if adopted := await asyncio.to_thread(self._spill.adopt):
            log.info("adopted what another receiver had spilled deliveries=%d", adopted)
            self._fall_behind()

    async def _drain(self) -> None:
        while (segment := await asyncio.to_thread(self._spill.next)) is not None:
            await self._prepare()
            await self._take_out(segment)
            await asyncio.to_thread(self._spill.finish, segment)
        if not self._spill.left:
            self._go_on()

    async def _take_out(self, segment: Segment) -> None:
        """Store all of *segment*; while Redis takes nothing, wait."""
        place = 0
        while pieces := segment.pieces(place, most=BATCH, most_bytes=BATCH_BYTES, count=TOGETHER):
            while self._opening.problem or self._room.is_full:  # noqa: ASYNC110 - others poll Redis
                await asyncio.sleep(AGAIN_S)
            size = sum(piece.size for piece in pieces)
            place = await self._store(segment, pieces, WITHIN_S + size / _BYTES_PER_S)
            before = segment.left
            segment.advance(place)
            self._metrics.drained += max(0, before - segment.left)
            self._room.stored(size)
            self._is_ending = self._spill.left <= BATCH
            if not self._spill.left:
                self._go_on()

    async def _store(self, segment: Segment, pieces: Sequence[Piece], within_s: float) -> int:
        """Store *pieces*, trying as long as it takes; return how far the file has come."""
        told = ""
        while True:
            try:
                place, bell = await self._inbox.put_spilled(segment.name, pieces, within_s)
            except NotStored as error:
                self._is_ending = False
                if told != str(error):
                    told = str(error)
                    log.info("not drained yet: %s", told)
                await asyncio.sleep(AGAIN_S)
                continue
            await self._bell.ring(Stage.UNPACK, bell)
            return place

    def _fall_behind(self) -> None:
        """Let no flush overtake what is spilled."""
        self._behind = True
        self._empty.clear()

    def _go_on(self) -> None:
        """Let flushes go to Redis again."""
        if self._behind:
            log.info("spilling is over: Redis takes deliveries again")
        self._behind = self._is_ending = False
        self._empty.set()

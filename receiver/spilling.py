"""Spilling: what Redis cannot take is kept on disk, and drained in order once Redis takes it again.

A flush that Redis refused or did not answer goes to the spill (`pipeline.spill`) in one append, and is answered 202
with `Relay-Ack: spilled`. From then on every flush goes there without asking Redis, so that nothing overtakes what lies
there already; only the drain asks, again and again. It stores what was spilled batch by batch, each in one step with
how far the file has come, so that a crash at any moment loses nothing and doubles nothing. While it advances every
flush waits a moment for its end, and goes to Redis again if it comes: the order holds, and senders who wait for their
answers bring no more than is drained meanwhile, so that the end comes also under load. A receiver begins that way, too:
until it has looked for files that dead ones have left, nothing is stored.

The order is that of one receiver. Another one that has nothing spilled stores what comes to it while this one drains.
Within one flush there is none: of what nobody was answered yet, Redis may store a part and refuse a part, which then
comes behind it.

What may come twice: a flush that Redis did not answer may be stored, and is spilled as well. The seen marks of its
events tell, as for a sender that sends again; only the books of `unpack` have it twice, because it was stored twice.

What may go wrong: the disk is full, slow or away. Then the answer is 503, as without a spill, and what the drain or the
look for files was refused is told once and tried again: a disk ends no receiver, nor its start.

    spill_disk   appends, within the time of an answer
    spill_drain  the way back to Redis, also of what dead receivers have left
    precedence   whether flushes have to wait for it
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.deliveries import Delivery
from pipeline.inbox import Inbox
from pipeline.spill import Spill
from pipeline.wake import Bell
from receiver.metrics import Metrics
from receiver.opening import Opening
from receiver.precedence import Precedence
from receiver.room import RoomWatch
from receiver.spill_disk import Disk
from receiver.spill_drain import Drain

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
        self._opening = opening
        self._room = room
        self._metrics = metrics
        self._precedence = Precedence()
        self._disk = Disk(spill, self._kept)
        self._drain = Drain(spill, self._precedence, inbox, bell, opening, room, metrics)

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
        return self._disk.trouble()

    @property
    def refusal(self) -> str | None:
        """Redis's own words while it refuses what is drained, or None."""
        return self._precedence.refused

    def reason(self) -> str | None:
        """Return why a flush goes to the spill without asking Redis, or None: it asks Redis.

        While Redis refuses what is drained, it is that refusal.
        """
        if not self.is_on:
            return None
        if self._precedence.is_known:
            return self._precedence.reason()
        return self._opening.problem or ("Redis is nearly full" if self._room.is_full else None)

    def comes_first(self) -> str | None:
        """Return `reason`, or that it is not known yet: as long as nobody has looked, nothing is stored either."""
        return (self._precedence.reason() if self.is_on else None) or self.reason()

    async def has_ended(self, within_s: float) -> bool:
        """Wait for the end of a drain that advances; tell whether the next flush may go to Redis."""
        await self._precedence.wait(within_s)
        return self.comes_first() is None

    async def check(self) -> None:
        """Try whether the disk takes anything."""
        await self._disk.check()

    async def append(self, deliveries: Sequence[Delivery], within_s: float, why: str) -> None:
        """Keep *deliveries* on disk; raises `NotStored` when that is not done in time."""
        await self._disk.append(deliveries, within_s, why)

    def _kept(self, count: int, why: str) -> None:
        self._metrics.spilled += count
        self._precedence.begin(why)
        self._drain.wake()

    async def run(self) -> None:
        """Drain whenever there is something, for ever."""
        await self._drain.look()
        if self.is_on:
            self._disk.try_soon()
        await self._drain.run()

    async def close(self) -> None:
        """Let go of the files; the drain has ended."""
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await asyncio.to_thread(self._spill.close)

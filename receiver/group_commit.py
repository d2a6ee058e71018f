"""Group commit: requests that arrive together are stored together, and answered together.

One Redis round trip per request is the ceiling of every Python receiver. Here each request leaves
its delivery and waits; one flusher takes everything that waits, writes it in one step, answers
all, and takes what has come meanwhile. Nothing waits on a timer: an idle receiver writes a single
delivery at once.

What Redis does not take is spilled (`receiver.spilling`): what a write could not store goes to the disk, together with
all that waits behind it. Redis then gets 75 % of the time, and the disk the rest. While a spill is drained a flush
waits for its end, half of Redis's time at most; then Redis has the other half.

What may go wrong: Redis hangs, and nothing is spilled. A write is given up when its oldest delivery has waited 190 ms,
and while Redis does not answer whoever has waited three quarters of that is refused without another
try: nobody waits 250 ms for a 503. Two things get more: a write whose deliveries had waited because
this process was busy gets at least three quarters of it, since Redis is not to blame; and one of more than a
megabyte as long as its bytes take. A write that was given up may have been stored all the same: the
sender is told 503 and sends it again, and the seen window recognises it. The other way round never
happens: nobody is answered 2xx before Redis, or the disk, said yes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import Protocol

from pipeline.deliveries import Delivery
from pipeline.inbox import Inbox, NoAnswer, NotStored
from pipeline.outcomes import Stage
from pipeline.wake import Bell
from receiver.limits import Limits
from receiver.metrics import Metrics
from receiver.spilling import Spilling

log = logging.getLogger(__name__)


class Answer(Protocol):
    """What a request waits for: whether its delivery was spilled, or why it is not stored. A future is one."""

    def done(self) -> bool:
        """Tell whether nobody waits any more."""

    def set_result(self, result: bool, /) -> None:
        """Learn that it is kept: *result* tells whether it was spilled."""

    def set_exception(self, exception: NotStored, /) -> None:
        """Learn that it is not."""


# One request that waits: what it brought, its answer, since when.
_Waiting = tuple[Delivery, Answer, float]
# What became of an entry: stored (the bell's number), spilled (None), or neither, and why.
_Fate = int | None | NotStored
# How long a failed write counts as trouble when nothing was written since.
TROUBLE_S = 10.0
_NO_ANSWER = "Redis did not answer in time"
_BEHIND = "what came before was not stored"


class GroupCommit:
    """Stores deliveries through the inbox, many at a time, and rings the bell of `unpack`."""

    def __init__(
        self,
        inbox: Inbox,
        bell: Bell,
        metrics: Metrics,
        limits: Limits | None = None,
        spilling: Spilling | None = None,
    ) -> None:
        self._inbox = inbox
        self._bell = bell
        self._metrics = metrics
        self._limits = limits or Limits()
        self._spilling = spilling if spilling and spilling.is_on else None
        share = 1.0 if self._spilling is None else self._limits.redis_share
        self._redis_within_s = self._limits.answer_within_s * share
        self._waiting: deque[_Waiting] = deque()
        self._work = asyncio.Event()
        self._ringing: set[asyncio.Task[bool]] = set()
        self._hangs = False
        self._closed = False
        self._trouble: tuple[str, float] | None = None

    @property
    def waiting(self) -> int:
        """How many deliveries wait for the next flush."""
        return len(self._waiting)

    def trouble(self) -> str | None:
        """Return why the last write failed, if it was the last and not long ago.

        For ever would be wrong: who gets no deliveries because of it could never show that it is over.
        """
        if self._trouble is None or monotonic() - self._trouble[1] > TROUBLE_S:
            return None
        return self._trouble[0]

    def put(self, delivery: Delivery) -> asyncio.Future[bool]:
        """Return what is done once *delivery* is kept: whether it was spilled; it raises `NotStored` when it is not."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.leave(delivery, answer)
        return answer

    def leave(self, delivery: Delivery, answer: Answer) -> None:
        """Let *delivery* wait for the next flush; *answer* is told what became of it."""
        if self._closed:
            answer.set_exception(NotStored("the receiver is stopping"))
            return
        self._waiting.append((delivery, answer, monotonic()))
        if len(self._waiting) == 1:
            self._work.set()

    async def run(self) -> None:
        """Flush whatever waits, until cancelled; then nobody waits any more."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while self._waiting:
                    await self._flush(list(self._entries()))
        finally:
            self._closed = True
            self._refuse(list(self._waiting), NotStored("the receiver is stopping"))
            self._waiting.clear()

    async def finish(self) -> None:
        """Let the bells that are ringing end; the flusher has stopped."""
        if self._ringing:
            await asyncio.wait(self._ringing, timeout=self._limits.answer_within_s)

    def _entries(self) -> Iterator[list[_Waiting]]:
        """Take what waits, in the order of its coming, cut into stream entries."""
        queue, limits = self._waiting, self._limits
        left = limits.bytes_per_flush
        for _ in range(limits.entries_per_flush):
            entry: list[_Waiting] = []
            size = 0
            while queue and len(entry) < limits.deliveries_per_entry:
                if queue[0][1].done():  # its client went away; nobody was promised anything
                    queue.popleft()
                    continue
                more = len(queue[0][0].body)
                if (entry and size + more > limits.bytes_per_entry) or (
                    more > left < limits.bytes_per_flush
                ):
                    break
                size += more
                left -= more
                entry.append(queue.popleft())
            if not entry:
                return
            yield entry

    def _time_for_the_end(self, entries: Sequence[Sequence[_Waiting]]) -> float:
        """Return how many seconds *entries* may wait for the end of the spill: half of Redis's, less their age."""
        return max(0, self._redis_within_s / 2 - (monotonic() - entries[0][0][2]))

    def _time_for(self, entries: Sequence[Sequence[_Waiting]], least: float) -> float:
        """Return how many seconds Redis gets for *entries*: what is left of its time, or at least a share of it."""
        within_s = self._redis_within_s
        age_s = monotonic() - entries[0][0][2]
        time_s = max(within_s - age_s, within_s * (0.25 if self._hangs else least))
        return time_s + self._time_for_bytes(
            delivery for entry in entries for delivery, _, _ in entry
        )

    def _time_for_bytes(self, deliveries: Iterable[Delivery]) -> float:
        """Return how much longer than small ones large bodies may take."""
        size = sum(len(delivery.body) for delivery in deliveries)
        return max(0, size - self._limits.bytes_per_entry) / self._limits.bytes_per_s

    async def _flush(self, entries: Sequence[Sequence[_Waiting]]) -> None:
        if not entries:
            return
        began = monotonic()
        # What everybody is told when this task is cancelled in mid-write.
        fates: list[_Fate] = [NotStored("the receiver is stopping")] * len(entries)
        spilling = self._spilling
        least = 0.75
        try:
            why = spilling and spilling.comes_first()
            if spilling and why and await spilling.has_ended(self._time_for_the_end(entries)):
                why, least = None, 0.5
            fates = [NotStored(why)] * len(entries) if why else await self._write(entries, least)
            if spilling and any(isinstance(one, NotStored) for one in fates):
                behind = list(self._entries())
                entries, fates = [*entries, *behind], fates + [NotStored(_BEHIND)] * len(behind)
                fates = await self._spill(spilling, entries, fates)
        finally:
            for entry, one in zip(entries, fates, strict=True):
                if isinstance(one, NotStored):
                    self._refuse(entry, one)
                else:
                    self._accept(entry, spilled=one is None)
            self._note(entries, fates, monotonic() - began)

    async def _spill(
        self, spilling: Spilling, entries: Sequence[Sequence[_Waiting]], fates: list[_Fate]
    ) -> list[_Fate]:
        """Keep on disk what is not stored; return what became of each entry."""
        refusals = [one for one in fates if isinstance(one, NotStored)]
        deliveries = [
            delivery
            for entry, one in zip(entries, fates, strict=True)
            if isinstance(one, NotStored)
            for delivery, answer, _ in entry
            if not answer.done()
        ]
        within_s = self._limits.answer_within_s
        # all that Redis has left of it, or its own share when it was this process that was busy
        within_s = max(within_s - (monotonic() - entries[0][0][2]), within_s - self._redis_within_s)
        within_s += self._time_for_bytes(deliveries)
        try:
            await spilling.append(deliveries, within_s, str(refusals[0]))
        except NotStored:  # it has said why; that of Redis is what has to be mended
            return fates
        return [None if isinstance(one, NotStored) else one for one in fates]

    async def _write(self, entries: Sequence[Sequence[_Waiting]], least: float) -> list[_Fate]:
        """Return for each entry the bell's number, or why it is not stored."""
        try:
            return [
                *await self._inbox.put_entries(
                    [[delivery for delivery, _, _ in entry] for entry in entries],
                    self._time_for(entries, least),
                )
            ]
        except NotStored as error:
            refusal = error
        except Exception as error:
            # Whatever it is, the flusher must live and its requests must be answered.
            log.exception("flush failed")
            refusal = NotStored(f"the write failed ({type(error).__name__})")
        return [refusal] * len(entries)

    def _accept(self, entry: Sequence[_Waiting], *, spilled: bool) -> None:
        for _, answer, _ in entry:
            if not answer.done():
                answer.set_result(spilled)
        now = monotonic()
        self._metrics.acknowledged([now - since for _, _, since in entry])

    def _refuse(self, waiting: Sequence[_Waiting], why: NotStored) -> None:
        for _, answer, _ in waiting:
            if not answer.done():
                answer.set_exception(type(why)(*why.args))

    def _note(
        self,
        entries: Sequence[Sequence[_Waiting]],
        fates: Sequence[_Fate],
        took_s: float,
    ) -> None:
        """Count, tell, ring; and refuse those behind a Redis that hangs."""
        bells = [one for one in fates if isinstance(one, int)]
        refusals = [one for one in fates if isinstance(one, NotStored)]
        deliveries = sum(map(len, entries))
        result = "failed" if refusals else "stored" if None not in fates else "spilled"
        self._metrics.flushed(deliveries, took_s, result)
        self._hangs = any(isinstance(one, NoAnswer) for one in refusals)
        if self._spilling:  # then the disk has failed too, and most likely it hangs
            self._hangs = bool(refusals)
        self._trouble = (str(refusals[0]), monotonic()) if refusals else None
        if refusals:
            late = self._refuse_the_late() if self._hangs else 0
            log.warning(
                "flush failed deliveries=%d entries=%d failed=%d waited_too_long=%d: %s",
                *(deliveries, len(entries), len(refusals), late, refusals[0]),
            )
        elif log.isEnabledFor(logging.DEBUG):
            ids = ",".join(delivery.id for entry in entries for delivery, _, _ in entry)
            log.debug("flushed deliveries=%d ms=%.1f ids=%s", deliveries, took_s * 1000, ids)
        if bells:
            self._ring(max(bells))

    def _refuse_the_late(self) -> int:
        """Refuse those who have waited too long for another try; return how many."""
        before = monotonic() - 0.75 * self._limits.answer_within_s
        late = []
        while self._waiting and self._waiting[0][2] < before:
            late.append(self._waiting.popleft())
        self._refuse(late, NoAnswer(_NO_ANSWER))
        return len(late)

    def _ring(self, number: int) -> None:
        """Ring beside the answers: a bell that hangs delays nobody, the sweep makes up for it."""
        if self._bell.is_rung(Stage.UNPACK, number):
            return
        task = asyncio.create_task(self._bell.ring(Stage.UNPACK, number))
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)

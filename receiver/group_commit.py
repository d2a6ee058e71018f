"""Group commit: requests that arrive together are stored together, and answered together.

One Redis round trip per request is the ceiling of every Python receiver. Here each request leaves
its delivery and waits; one flusher takes everything that waits, writes it in one step, answers
all, and takes what has come meanwhile. Nothing waits on a timer: an idle receiver writes a single
delivery at once.

What may go wrong: Redis hangs. Each flush has until its oldest delivery has waited 200 ms;
whoever waits behind it is failed too once its own time is up, so everybody has an answer within
250 ms. A write that timed out may have been stored all the same: the sender is told 503 and sends
it again, and the seen window recognises it. The other way round never happens: nobody is answered
2xx before Redis said yes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

from pipeline.deliveries import Delivery
from pipeline.inbox import Inbox, NotStored
from pipeline.outcomes import Stage
from pipeline.wake import Bell
from receiver.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much travels together, and how long anybody may wait."""

    # One stream entry is read and moved as a whole: a large one would block Redis and the worker.
    deliveries_per_entry: int = 256
    bytes_per_entry: int = 1 << 20
    # Entries written side by side in one flush; together they share one wait for the disk
    # or the replica.
    entries_per_flush: int = 8
    # The contract's 250 ms less what reading and answering take.
    answer_within_s: float = 0.19


# One request that waits: what it brought, its answer, since when.
_Waiting = tuple[Delivery, "asyncio.Future[None]", float]


class GroupCommit:
    """Stores deliveries through the inbox, many at a time, and rings the bell of `unpack`."""

    def __init__(
        self, inbox: Inbox, bell: Bell, metrics: Metrics, limits: Limits | None = None
    ) -> None:
        self._inbox = inbox
        self._bell = bell
        self._metrics = metrics
        self._limits = limits or Limits()
        self._waiting: deque[_Waiting] = deque()
        self._work = asyncio.Event()
        self._ringing: set[asyncio.Task[bool]] = set()
        self._last_took_s = 0.0

    @property
    def waiting(self) -> int:
        """How many deliveries wait for the next flush."""
        return len(self._waiting)

    def put(self, delivery: Delivery) -> asyncio.Future[None]:
        """Return what is done once *delivery* is stored; `NotStored` when it is not, within 200 ms."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, answer, monotonic()))
        if len(self._waiting) == 1:
            self._work.set()
        return answer

    async def run(self) -> None:
        """Flush whatever waits, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                await self._flush(list(self._entries()))

    async def finish(self) -> None:
        """Let the bells that are ringing end; the flusher has stopped."""
        if self._ringing:
            await asyncio.wait(self._ringing, timeout=self._limits.answer_within_s)

    def _entries(self) -> Iterator[list[_Waiting]]:
        """Take what waits, in the order of its coming, cut into stream entries."""
        queue, limits = self._waiting, self._limits
        for _ in range(limits.entries_per_flush):
            entry: list[_Waiting] = []
            size = 0
            while queue and len(entry) < limits.deliveries_per_entry:
                size += len(queue[0][0].body)
                if entry and size > limits.bytes_per_entry:
                    break
                waiting = queue.popleft()
                if self._is_still_wanted(waiting):
                    entry.append(waiting)
            if entry:
                yield entry

    def _is_still_wanted(self, waiting: _Waiting) -> bool:
        _, answer, since = waiting
        if answer.done():  # its client went away; nobody was promised anything
            return False
        within_s = self._limits.answer_within_s
        # Redis hangs, and this one has waited too long behind the flush that found it out
        if self._last_took_s >= within_s and monotonic() - since > 0.75 * within_s:
            answer.set_exception(NotStored("Redis did not answer in time"))
            return False
        return True

    def _time_left_s(self, since: float) -> float:
        """Return how long a write may take, so that who waits *since* then is answered in time.

        While Redis is quick, age is the doing of a busy process, and Redis gets its time all the
        same: a burst must not be refused for it. Otherwise age counts, down to a last quarter.
        """
        within_s = self._limits.answer_within_s
        if self._last_took_s < within_s / 4:
            return within_s
        return max(within_s - (monotonic() - since), within_s / 4)

    async def _flush(self, entries: Sequence[Sequence[_Waiting]]) -> None:
        if not entries:
            return
        began = monotonic()
        # What everybody is told when this task is cancelled in mid-write.
        stored: Sequence[int | NotStored] = [NotStored("the receiver is stopping")] * len(entries)
        try:
            stored = await self._write(entries)
        finally:
            self._last_took_s = monotonic() - began
            for entry, one in zip(entries, stored, strict=True):
                self._answer(entry, one)

    async def _write(self, entries: Sequence[Sequence[_Waiting]]) -> Sequence[int | NotStored]:
        """Return for each entry the bell's number, or why it is not stored."""
        oldest = entries[0][0][2]
        refusal = NotStored("Redis did not answer in time")
        try:
            async with asyncio.timeout(self._time_left_s(oldest)):
                return await self._inbox.put_entries(
                    [[delivery for delivery, _, _ in entry] for entry in entries]
                )
        except NotStored as error:
            refusal = error
        except TimeoutError:
            pass
        except Exception as error:
            # Whatever it is, the flusher must live and its requests must be answered.
            log.exception("flush failed")
            refusal = NotStored(f"the write failed ({type(error).__name__})")
        return [refusal] * len(entries)

    def _answer(self, entry: Sequence[_Waiting], stored: int | NotStored) -> None:
        refusal = stored if isinstance(stored, NotStored) else None
        for _, answer, _ in entry:
            if answer.done():
                continue
            if refusal is None:
                answer.set_result(None)
            else:
                answer.set_exception(NotStored(*refusal.args))
        if refusal is not None:
            log.warning("flush failed deliveries=%d: %s", len(entry), refusal)
        self._metrics.flushed(len(entry), self._last_took_s, stored=refusal is None)
        if log.isEnabledFor(logging.DEBUG) and refusal is None:
            ids = ",".join(delivery.id for delivery, _, _ in entry)
            log.debug(
                "flushed deliveries=%d ms=%.1f ids=%s", len(entry), self._last_took_s * 1000, ids
            )
        if not isinstance(stored, NotStored):
            self._ring(stored)

    def _ring(self, number: int) -> None:
        """Ring beside the answers: a bell that hangs delays nobody, the sweep makes up for it."""
        if self._bell.is_rung(Stage.UNPACK, number):
            return
        task = asyncio.create_task(self._bell.ring(Stage.UNPACK, number))
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)

"""Dispatch: seals what waits in a stage into batches and calls the stage's vendor with them.

Four stages call somebody: `forward`, `subscribe`, `enrich` and `notify`. Each says what its batches are made of, how
the call is made and what success means (`Errand`); everything else is the same for all and stands here:
taking a batch only when pause, back-off and the rate shared by all workers allow a call, several calls in
flight, one probe at a time after a failure, and carrying out what `fates` decides. Every step is a move, so
a crash at any await leaves each item in exactly one place; a call that was begun and never answered is made
again with the same bytes and counted in `maybe_duplicate`.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import RedisError

from pipeline import keys
from pipeline.clock import DAY_MS, redis_now_ms
from pipeline.moves import Argument, Move, Result
from pipeline.outcomes import Stage
from pipeline.queues import Sealed
from pipeline.scripts import script
from workers import setbacks
from workers.batches import Batch, Item, attempts, batch_fields, read_batch
from workers.clients.errors import CallFailed, Rejected, Throttled, Unavailable
from workers.clients.http import Answered, calls_noted
from workers.fates import (
    Case,
    Fate,
    Setback,
    Verdict,
    decide,
    last_line,
    same_words,
    sentence,
)
from workers.width import WIDTH, Width

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

#: as long as the last part of a batch may be held
EXPLAINED_FOR_MS = 30 * DAY_MS
_UNTRACED = nullcontext()


class Uncalled:
    """Marks an answer that was known without a call: it settles its batch, and tells nothing of the vendor."""

    __slots__ = ()


class Errand(Protocol):
    """What one stage does with its vendor."""

    stage: Stage
    vendor: str
    """Name of the rate that its calls share."""
    rank: int
    """0 is served first when several stages share a rate."""
    calls_per_s: float
    in_batches: bool
    """Whether a call may be about several items; else only calls can be compared, and no batches."""

    async def seal(self) -> Sealed:
        """Make batches of what waits and is ripe."""

    async def call(self, items: Sequence[Item]) -> object:
        """Make the call; raises `CallFailed`."""

    async def settle(self, move: Move, batch: Batch, answer: object) -> str:
        """Add to *move* what success means for each item, books included; return it as words for the log."""

    async def bury(
        self, move: Move, item: Item, verdict: Verdict, error: str, attempts: int
    ) -> None:
        """Add to *move* the dead letter of *item*, books included."""

    def identities(self, item: Item) -> list[str]:
        """Return the address hashes and ids that a tombstone may stand on."""


class Dispatch:
    """Drains one stage in one process."""

    def __init__(self, context: Context, errand: Errand) -> None:
        self._context = context
        self._errand = errand
        self._claim = script(context.redis, "claim")
        self._refusal = script(context.redis, "refusal")
        self._fault = script(context.redis, "fault")
        self._calls: set[asyncio.Task[None]] = set()
        # outlives this drain: what was learned of the vendor holds for the next one
        self._width = context.widths.setdefault(errand.stage, Width(WIDTH, errand.calls_per_s))
        self._claims_left = 0
        self._may_seal = False
        self._redis_failure: Exception | None = None

    async def drain(self, wake: asyncio.Event, until: float) -> None:
        """Seal and call until nothing is left to do now, or until monotonic *until*."""
        try:
            while not self._context.stopping.is_set() and monotonic() < until:
                if self._redis_failure:
                    raise self._redis_failure
                wait_s = await self._step()
                if wait_s is None and not self._calls:
                    return
                if wait_s == 0:
                    continue
                patience = self._context.timing.patience_s
                if wait_s is not None and wait_s > patience and not self._calls:
                    return
                await self._rest(
                    wake, min(wait_s or patience, patience, max(until - monotonic(), 0.0))
                )
        finally:
            await self._finish()

    async def _finish(self) -> None:
        """Let calls in flight finish; when cancelled, give them up: the next worker makes them again."""
        try:
            if self._calls:
                await asyncio.wait(self._calls)
        finally:
            for call in self._calls:
                call.cancel()

    async def _step(self) -> float | None:
        """Seal, start a call if one may be made; return how long nothing more can be done.

        0: go on at once; None: nothing waits here. Nothing is sealed before a claim was answered with
        something else than a wait: what comes in during an outage waits for batches of thirty.
        """
        if len(self._calls) >= self._width.calls:
            return self._context.timing.patience_s
        sealed: Sealed | None = None
        if self._may_seal and self._claims_left <= 0:
            sealed = await self._errand.seal()
            self._claims_left = sealed.batches
        is_all_sealed = sealed is not None and not sealed.batches
        claim = await self._claim(args=[*self._claim_args(), int(is_all_sealed)])
        self._may_seal = claim[0] in (b"batch", b"empty")
        match claim[0]:
            case b"batch":
                batch = read_batch(claim)
                self._claims_left -= batch.line == self._errand.stage  # only these were counted
                task = asyncio.create_task(self._deliver(batch))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
                return 0
            case b"wait":
                return float(claim[1]) / 1000
            case b"paused":
                return None
        self._claims_left = 0
        if sealed is None or sealed.batches:
            return 0
        rests_s = [float(ms) / 1000 for ms in claim[1:]]  # of held batches
        return min([*rests_s, *([] if sealed.wait_s is None else [sealed.wait_s])], default=None)

    def _claim_args(self) -> list[Argument]:
        errand, timing = self._errand, self._context.timing
        gap_ms = 1000 / errand.calls_per_s if errand.calls_per_s else 0
        lease_ms, rest_ms = int(timing.probe_lease_s * 1000), int(timing.rest_s * 1000)
        of_stage = (errand.stage, self._context.consumer, errand.vendor)
        return [*of_stage, gap_ms, errand.rank, lease_ms, rest_ms]

    async def _rest(self, wake: asyncio.Event, seconds: float) -> None:
        """Wait until a call ends, a bell rings, the worker stops, or *seconds* have passed."""
        if wake.is_set():  # rung while working: look again, but do not spin
            wake.clear()
            seconds = min(seconds, 0.005)
        waiters = {
            asyncio.ensure_future(wake.wait()),
            asyncio.ensure_future(self._context.stopping.wait()),
        }
        try:
            await asyncio.wait(
                {*self._calls, *waiters}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for waiter in waiters:
                waiter.cancel()

    # calling ---------------------------------------------------------------------------------------

    async def _deliver(self, batch: Batch) -> None:
        """Call the vendor with *batch* and carry out what follows. Never raises but when cancelled."""
        started = monotonic()
        try:
            outcome = await self._attempt(batch)
        except (RedisError, OSError) as failure:
            # nothing can be written down now: the next drain takes it up
            self._redis_failure = failure
            return
        except Exception as failure:
            # our own fault twice over: it stays in our hands for the next drain
            self._log_unexpected(batch, failure)
            return
        logger.info(
            "attempt stage=%s batch=%s items=%d tries=%d outcome=%s ms=%d",
            self._errand.stage, batch.id, len(batch.items), batch.tries + 1, outcome,
            (monotonic() - started) * 1000,
        )  # fmt: skip

    async def _attempt(self, batch: Batch) -> str:
        """Make the call and write down what became of it; return that as a word for the log."""
        try:
            if batch.has_tombstones and await self._without_forgotten(batch):
                return "forgotten"
            answer = await self._called(batch)
            return await self._settle(batch, answer)
        except (RedisError, OSError):
            raise
        except Exception as failure:  # fates decide about every failure, ours included
            if not isinstance(failure, CallFailed):
                self._log_unexpected(batch, failure)
            return await self._failed(batch, failure)

    async def _called(self, batch: Batch) -> object:
        """Make the call, and learn from what came of it how many may be made at a time."""
        began, tally, at = self._width.begin(), self._context.tally, monotonic()
        with calls_noted() as calls, self._traced(batch, calls):
            try:
                answer = await self._errand.call(list(batch.items))
            except CallFailed as failure:
                tally.failed(self._errand.stage, calls, failure, monotonic() - at)
                has_no_answer = failure.maybe_stored and failure.status is None
                if has_no_answer or isinstance(failure, Throttled):
                    self._width.failed(began, failure.sentence)
                if isinstance(failure, Throttled):
                    begun_ms = await self._begun_ms(batch, calls)
                    await setbacks.slow_down(
                        *(self._context.redis, self._errand.vendor, self._errand.calls_per_s),
                        *(failure, begun_ms),
                    )
                raise
            except Exception:  # ours, about what was answered
                tally.answered(self._errand.stage, calls)
                raise
        tally.answered(self._errand.stage, calls)
        if len(calls) == 1:  # a batch of several calls waited for their turn between
            self._width.answered(calls[0].seconds)
        return answer

    def _traced(
        self, batch: Batch, calls: Sequence[Answered]
    ) -> AbstractContextManager[None, bool | None]:
        """Return what tells of the call with *batch*, if that is wanted."""
        traced, errand = self._context.traced, self._errand
        if traced is None:
            return _UNTRACED
        origins = [item.origin for item in batch.items]
        return traced.calling(errand.stage, errand.vendor, batch.id, origins, calls)

    async def _begun_ms(self, batch: Batch, calls: Sequence[Answered]) -> int:
        """Return when the last of *calls* was begun, by Redis's clock; the first was begun when *batch* was claimed."""
        if len(calls) < 2:
            return batch.claimed_ms
        now_ms = await redis_now_ms(self._context.redis)
        return now_ms - int((monotonic() - calls[-1].begun) * 1000)

    def _log_unexpected(self, batch: Batch, failure: Exception) -> None:
        where = traceback.extract_tb(failure.__traceback__)[-1]
        logger.error(
            "unexpected failure stage=%s batch=%s at=%s:%s error=%s",
            self._errand.stage, batch.id, where.name, where.lineno, last_line(failure),
        )  # fmt: skip

    async def _settle(self, batch: Batch, answer: object) -> str:
        stage = self._errand.stage
        for _ in range(10):  # a visitor may change between reading and writing
            move = Move(batch.queue, [batch.id])
            outcome = await self._errand.settle(move, batch, answer)
            if not isinstance(answer, Uncalled):
                move.succeeded(stage, batch.failed_before, batch.claimed_ms)
            moved = await self._context.mover.apply([move])
            match moved.results[0]:
                case Result.CHANGED:
                    continue
                case Result.TOMBSTONE:  # forgotten while the call was under way
                    move = Move(batch.queue, [batch.id])
                    move.settle(stage, "ignored", len(batch.items))
                    move.succeeded(stage, begun_ms=batch.claimed_ms)
                    await self._context.mover.apply([move])
                    return "forgotten"
            # what is gone is in somebody else's hands, who calls again
            if moved.results[0] is Result.DONE and not isinstance(answer, Uncalled):
                self._context.metrics.accepted(stage, [item.origin for item in batch.items])
            await self._context.ring(moved.bells, move.feeds)
            return outcome
        raise Unavailable(
            "a visitor changed ten times while an answer was written", maybe_stored=True
        )

    async def _without_forgotten(self, batch: Batch) -> bool:
        """Take forgotten people out of *batch*; return whether there were any and the batch was replaced."""
        names = [self._errand.identities(item) for item in batch.items]
        flat = [name for item_names in names for name in item_names]
        hits = dict(zip(flat, await self._context.tombstones.found(flat), strict=True))
        kept = [
            item
            for item, item_names in zip(batch.items, names, strict=True)
            if not any(hits[name] for name in item_names)
        ]
        if len(kept) == len(batch.items):
            return False
        move = Move(batch.queue, [batch.id])
        move.settle(self._errand.stage, "ignored", len(batch.items) - len(kept))
        if kept:
            again = attempts(batch.tries, batch.mark, 0)
            fields = batch_fields(
                *(kept, batch.root, again, batch.bugs, batch.is_part),
                failures=batch.failures,
                failed_ms=batch.failed_ms,
            )
            move.pass_on(keys.batches(batch.line), fields)
        await self._context.mover.apply([move])
        return True

    # failing ---------------------------------------------------------------------------------------

    async def _failed(self, batch: Batch, failure: Exception) -> str:
        """Carry out the fate of *batch*; return it as a word for the log."""
        stage, timing = self._errand.stage, self._context.timing
        case, successes = await self._case(batch, failure)
        verdict = decide(failure, case, timing, datetime.now(UTC))
        # an exception of ours may have come after the call was made
        sent = int(not isinstance(failure, CallFailed) or failure.maybe_stored)
        logger.warning(
            "call failed stage=%s batch=%s items=%d fate=%s error=%s",
            stage, batch.id, len(batch.items), verdict.fate, sentence(failure),
        )  # fmt: skip
        if verdict.fate is Fate.RETRY:
            setback = verdict.setback or Setback("")
            await setbacks.put_off(self._context, stage, setback, batch=batch, sent=sent)
            return verdict.fate
        again = attempts(verdict.tries, successes, sent)
        move = await self._taken_out(batch, case, failure, verdict, again)
        if verdict.fate is Fate.HOLD:
            move.hold(stage, successes + verdict.pass_by, batch.claimed_ms)
        await self._context.mover.apply([move])
        if verdict.setback:
            held = verdict.fate is Fate.HOLD and not verdict.pass_by
            await setbacks.put_off(self._context, stage, verdict.setback, sent=sent, held=held)
        return verdict.fate

    async def _taken_out(
        self, batch: Batch, case: Case, failure: Exception, verdict: Verdict, again: str
    ) -> Move:
        """Make the move that holds, splits or buries *batch*."""
        move = Move(batch.queue, [batch.id])
        is_ours = not isinstance(failure, CallFailed)
        if verdict.fate is Fate.HOLD:
            others_passed = not case.failures or (case.was_held and case.others_succeeded)
            # of a row of failures in which nobody passed only the first one counts
            failures = batch.failures + 1 if others_passed else max(batch.failures, 1)
            rest_ms = int(self._context.timing.rest_s * 1000)
            fields = batch_fields(
                *(batch.items, batch.root, again, batch.bugs + is_ours, batch.is_part),
                failures=batch.failures if is_ours else failures,
                failed_ms=batch.claimed_ms,
                due_ms=batch.claimed_ms + rest_ms,
            )
            move.pass_on(keys.held(batch.line), fields)
        elif verdict.fate is Fate.SPLIT:
            middle = (len(batch.items) + 1) // 2
            for half in (batch.items[:middle], batch.items[middle:]):
                fields = batch_fields(
                    *(half, batch.root, again),
                    is_part=batch.is_part or verdict.tries > 0,
                    failed_ms=batch.claimed_ms,
                    half_of=batch.id,
                )
                move.pass_on(keys.batches(batch.line), fields)
        else:
            tries = batch.bugs if is_ours else batch.tries
            await self._errand.bury(move, batch.items[0], verdict, sentence(failure), tries + 1)
            if case.is_all_that_is_left:
                move.recovered(self._errand.stage)
            if batch.is_part:  # what is left of its whole is not suspected for it any longer
                move.remember(keys.explained(self._errand.stage, batch.root), EXPLAINED_FOR_MS)
        return move

    async def _case(self, batch: Batch, failure: Exception) -> tuple[Case, int]:
        """Return what is known about *batch*, and how many calls of the stage have succeeded by now."""
        stage, size = self._errand.stage, len(batch.items)
        refusals, batches = 0, 0
        if size == 1 and isinstance(failure, Rejected):
            words = blake2b(same_words(failure).encode(), digest_size=8).hexdigest()
            is_first = int(not batch.was_held)
            refusals, batches = await self._refusal(args=[stage, words, batch.root, is_first])
        is_of_vendor = isinstance(failure, CallFailed) and not isinstance(failure, Rejected)
        is_left = is_of_vendor and batch.was_held and not batch.others_wait
        may_be_parted = is_left and size > 1
        half_of = batch.half_of if is_of_vendor else ""
        state = await self._fault(
            args=[stage, batch.root, half_of, int(is_left), int(may_be_parted)]
        )
        successes, failures, is_parted, is_explained, unwell, good_ms = state
        case = Case(
            size=size,
            tries=batch.tries,
            is_part=batch.is_part,
            is_explained=bool(is_explained),
            bugs=batch.bugs,
            others_succeeded=successes > batch.mark and good_ms >= batch.failed_ms,
            unwell=float(unwell),
            others_wait=batch.others_wait,
            others_held=batch.others_held,
            was_held=batch.was_held,
            has_rested=batch.claimed_ms - batch.failed_ms >= self._context.timing.rest_s * 1000,
            is_parted=bool(is_parted),
            failures=failures,
            refusals=refusals,
            refused_batches=batches if self._errand.in_batches else 0,
        )
        return case, successes

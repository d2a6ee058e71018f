"""Dispatch: seals what waits in a stage into batches and calls the stage's vendor with them.

Three stages call vendors: `forward`, `subscribe` and `enrich`. Each says what its batches are made of, how
the call is made and what success means (`Errand`); everything else is the same for all and stands here:
taking a batch only when pause, back-off and the rate shared by all workers allow a call, several calls in
flight, one probe at a time after a failure, and carrying out what `fates` decides. Every step is a move, so
a crash at any await leaves each item in exactly one place; a call that was begun and never answered is made
again with the same bytes and counted in `maybe_duplicate`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import RedisError

from pipeline import keys
from pipeline.moves import Argument, Move, Result
from pipeline.origins import Form, Origin
from pipeline.outcomes import Stage
from pipeline.queues import Entry, Taken
from pipeline.scripts import script
from workers.clients.errors import CallFailed
from workers.fates import Case, Fate, Setback, Verdict, decide

if TYPE_CHECKING:
    from workers.context import Context

logger = logging.getLogger(__name__)

MOST_ITEMS = 30
WIDTH = 8


@dataclass(frozen=True, slots=True)
class Item:
    """One thing a batch carries: its bytes, and where it came from (packed `Origin`)."""

    payload: bytes
    origin: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed batch in this worker's hands. The same batch always makes the same bytes."""

    queue: str
    id: str
    items: Sequence[Item]
    root: str
    tries: int
    first_success: int
    successes: int
    others_wait: bool
    others_held: bool
    has_tombstones: bool

    @property
    def was_held(self) -> bool:
        """Tell whether it waited for others to succeed first."""
        return self.queue.endswith(":held")


class Errand(Protocol):
    """What one stage does with its vendor."""

    stage: Stage
    vendor: str
    """Name of the rate that its calls share."""
    rank: int
    """0 is served first when several stages share a rate."""
    calls_per_s: float
    ripe_s: float
    """How long an incomplete batch may wait for more."""
    most: int
    """Items a batch."""

    async def prepare(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries to seal as they are; what needs another way was moved there."""

    async def call(self, items: Sequence[Item]) -> object:
        """Make the call; raises `CallFailed`."""

    async def settle(self, move: Move, batch: Batch, answer: object) -> None:
        """Add to *move* what success means for each item, books included."""

    def bury(self, move: Move, item: Item, verdict: Verdict, error: str, attempts: int) -> None:
        """Add to *move* the dead letter of *item*, books included."""

    def identities(self, item: Item) -> list[str]:
        """Return the address hashes and ids that a tombstone may stand on."""


class Dispatch:
    """Drains one stage in one process."""

    def __init__(self, context: Context, errand: Errand) -> None:
        self._context = context
        self._errand = errand
        self._claim = script(context.redis, "claim")
        self._setback = script(context.redis, "setback")
        self._refusal = script(context.redis, "refusal")
        self._calls: set[asyncio.Task[None]] = set()
        self._claims_left = 0
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
            if self._calls:
                await asyncio.wait(self._calls)

    async def _step(self) -> float | None:
        """Seal, start a call if one may be made; return how long nothing more can be done.

        0: go on at once; None: nothing waits here.
        """
        if len(self._calls) >= WIDTH:
            return self._context.timing.patience_s
        sealing: Taken | None = None
        if self._claims_left <= 0:
            sealing = await self._seal()
        claim = await self._claim(args=self._claim_args())
        match claim[0]:
            case b"batch":
                self._claims_left -= 1
                task = asyncio.create_task(self._deliver(self._batch(claim)))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
                return 0
            case b"wait":
                return float(claim[1]) / 1000
            case b"paused":
                return None
        if self._claims_left > 0:
            self._claims_left = 0
            return 0
        return sealing.wait_s if sealing and not sealing.entries else 0

    def _claim_args(self) -> list[Argument]:
        errand, timing = self._errand, self._context.timing
        gap_ms = 1000 / errand.calls_per_s if errand.calls_per_s else 0
        lease_ms = int(timing.probe_lease_s * 1000)
        return [errand.stage, self._context.consumer, errand.vendor, gap_ms, errand.rank, lease_ms]

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

    # sealing ---------------------------------------------------------------------------------------

    async def _seal(self) -> Taken:
        """Turn what is ripe into batches, enough for every call that may be in flight."""
        errand, queues = self._errand, self._context.queues
        taken = await queues.take(
            errand.stage,
            errand.stage,
            most=errand.most * WIDTH,
            enough=errand.most,
            ripe_s=errand.ripe_s,
        )
        if not taken.entries:
            return taken
        try:
            entries = await errand.prepare(taken.entries)
            groups = group(entries, errand.most)
            moved = await self._context.mover.apply(
                [seal(errand.stage, entries) for entries in groups]
            )
            self._claims_left = moved.results.count(Result.DONE)
        finally:  # what was sealed is no longer ours, and giving it back does nothing
            if self._context.stopping.is_set() or self._claims_left <= 0:
                await queues.give_back(errand.stage, [entry.id for entry in taken.entries])
        return taken

    # calling ---------------------------------------------------------------------------------------

    def _batch(self, claim: Sequence[bytes | list[bytes] | int]) -> Batch:
        _, queue, entry_id, fields, attempts, successes, others, held, tombstones = claim
        assert isinstance(queue, bytes) and isinstance(entry_id, bytes)  # noqa: PT018 - for mypy
        assert isinstance(fields, list) and isinstance(attempts, bytes)  # noqa: PT018
        names, values = fields[::2], fields[1::2]
        payloads = [value for name, value in zip(names, values, strict=True) if name == b"p"]
        origins = [value for name, value in zip(names, values, strict=True) if name == b"m"]
        tries, first_success, _ = attempts.decode().split(":")
        root = dict(zip(names, values, strict=True)).get(b"g", entry_id)
        return Batch(
            queue=queue.decode(),
            id=entry_id.decode(),
            items=[Item(p, m) for p, m in zip(payloads, origins, strict=True)],
            root=root.decode(),
            tries=int(tries),
            first_success=int(first_success),
            successes=int(successes),  # type: ignore[arg-type]
            others_wait=int(others) > 0,  # type: ignore[arg-type]
            others_held=int(held) > 0,  # type: ignore[arg-type]
            has_tombstones=bool(tombstones),
        )

    async def _deliver(self, batch: Batch) -> None:
        """Call the vendor with *batch* and carry out what follows. Never raises but when cancelled."""
        errand, started = self._errand, monotonic()
        try:
            if batch.has_tombstones and await self._without_forgotten(batch):
                return
            answer = await errand.call([item for item in batch.items])
            await self._settle(batch, answer)
            outcome = "done"
        except (
            RedisError,
            OSError,
        ) as failure:  # no step can be written down now: the next drain takes it up
            self._redis_failure = failure
            return
        except Exception as failure:  # fates decide about every failure, ours included
            try:
                outcome = await self._failed(batch, failure)
            except (RedisError, OSError) as redis_failure:
                self._redis_failure = redis_failure
                return
        logger.info(
            "attempt stage=%s batch=%s items=%d tries=%d outcome=%s ms=%d",
            errand.stage, batch.id, len(batch.items), batch.tries + 1, outcome,
            (monotonic() - started) * 1000,
        )  # fmt: skip

    async def _settle(self, batch: Batch, answer: object) -> None:
        for _ in range(10):  # a visitor may change between reading and writing
            move = Move(batch.queue, [batch.id])
            await self._errand.settle(move, batch, answer)
            move.succeeded(self._errand.stage)
            moved = await self._context.mover.apply([move])
            if moved.results[0] is not Result.CHANGED:
                await self._context.ring(moved.bells, {Stage.SUBSCRIBE} - {self._errand.stage})
                return
        raise RuntimeError("a visitor changed ten times while one answer was written")

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
            move.pass_on(keys.batches(self._errand.stage), batch_fields(kept, batch, sent=0))
        await self._context.mover.apply([move])
        return True

    # failing ---------------------------------------------------------------------------------------

    async def _failed(self, batch: Batch, failure: Exception) -> str:
        """Carry out the fate of *batch*; return it as a word for the log."""
        verdict = decide(
            failure, await self._case(batch, failure), self._context.timing, datetime.now(UTC)
        )
        error = sentence(failure)
        sent = int(not isinstance(failure, CallFailed) or failure.maybe_stored)
        logger.warning(
            "call failed stage=%s batch=%s items=%d fate=%s error=%s",
            self._errand.stage, batch.id, len(batch.items), verdict.fate, error,
        )  # fmt: skip
        if not isinstance(failure, CallFailed):
            logger.error("unexpected failure stage=%s", self._errand.stage, exc_info=failure)
        stage = self._errand.stage
        move = Move(batch.queue, [batch.id])
        match verdict.fate:
            case Fate.RETRY:
                await self._set_back(verdict.setback, batch, sent)
                return str(verdict.fate)
            case Fate.HOLD:
                move.pass_on(keys.held(stage), batch_fields(batch.items, batch, sent, tried=1))
            case Fate.SPLIT:
                middle = (len(batch.items) + 1) // 2
                for half in (batch.items[:middle], batch.items[middle:]):
                    move.pass_on(keys.batches(stage), batch_fields(half, batch, sent))
            case Fate.BURY:
                self._errand.bury(move, batch.items[0], verdict, error, batch.tries + 1)
        await self._context.mover.apply([move])
        self._claims_left += 2
        if verdict.setback or verdict.fate is Fate.HOLD:
            await self._set_back(verdict.setback, None, sent, held=verdict.fate is Fate.HOLD)
        return str(verdict.fate)

    async def _case(self, batch: Batch, failure: Exception) -> Case:
        refusals, batches = 0, 0
        if len(batch.items) == 1 and isinstance(failure, CallFailed):
            words = blake2b(failure.sentence.encode(), digest_size=8).hexdigest()
            is_first = int(not batch.was_held)
            args = [self._errand.stage, words, batch.root, is_first]
            refusals, batches = await self._refusal(args=args)
        state = await self._context.redis.hget(keys.destination(self._errand.stage), "successes")
        return Case(
            size=len(batch.items),
            tries=batch.tries,
            others_succeeded=int(state or 0) > batch.first_success,
            others_wait=batch.others_wait,
            others_held=batch.others_held,
            was_held=batch.was_held,
            refusals=refusals,
            refused_batches=batches,
        )

    async def _set_back(
        self, setback: Setback | None, batch: Batch | None, sent: int, *, held: bool = False
    ) -> None:
        """Give *batch* back, and put off the stage's next call as *setback* says."""
        timing, errand = self._context.timing, self._errand
        if setback is None and batch is None:  # held without anybody's fault: only the mark is set
            key = keys.destination(errand.stage)
            await self._context.redis.hset(
                key, "held", int(await self._context.redis.hget(key, "successes") or 0)
            )
            return
        probe_min = timing.probe_min_s
        if setback and setback.probe_s is not None:
            probe_min = setback.probe_s
        delay_ms, paused = await self._setback(
            args=[
                *(errand.stage, self._context.consumer),
                *((batch.queue, batch.id) if batch else ("", "")),
                *(sent, random.random(), timing.backoff_base_s * 1000, timing.backoff_cap_s * 1000),
                int((setback.at_least_s if setback else 0) * 1000),
                *(timing.pauses_after, probe_min * 1000, timing.probe_max_s * 1000),
                setback.reason if setback else "",
                *(int(bool(setback and setback.at_once)), int(held)),
            ]
        )
        if paused:
            logger.error(
                "stage paused stage=%s next_call_ms=%d reason=%s",
                errand.stage, delay_ms, setback.reason if setback else "",
            )  # fmt: skip


def group(entries: Sequence[Entry], most: int) -> list[list[Entry]]:
    """Group *entries* into batches of up to *most*; hashed and plain addresses never share one."""
    groups: list[list[Entry]] = []
    for form in (Form.HASHED, Form.OURS):
        alike = [entry for entry in entries if Origin.unpack(entry.origins[0]).form is form]
        groups += [alike[i : i + most] for i in range(0, len(alike), most)]
    return groups


def seal(stage: Stage, entries: Sequence[Entry]) -> Move:
    """Return the move that makes one batch of *entries*."""
    move = Move(stage, [entry.id for entry in entries])
    fields: list[Argument] = []
    for entry in entries:
        fields += ("p", entry.payloads[0], "m", entry.origins[0])
    move.pass_on(keys.batches(stage), fields)
    return move


def batch_fields(
    items: Sequence[Item], batch: Batch, sent: int, *, tried: int | None = None
) -> list[Argument]:
    """Return the entry of a batch that takes the place of *batch* (or of a part of it)."""
    fields: list[Argument] = []
    for item in items:
        fields += ("p", item.payload, "m", item.origin)
    tries = batch.tries + tried if tried is not None else 0
    fields += ("g", batch.root, "t", f"{tries}:{batch.first_success}:{sent}")
    return fields


def sentence(failure: Exception) -> str:
    """Return what an operator reads about *failure*: the vendor's words, or the traceback's last line."""
    if isinstance(failure, CallFailed):
        return failure.sentence
    return f"{type(failure).__name__}: {failure}"[:500]

"""Moves: how work leaves a queue, with everything that follows, in one atomic step.

A move names the entries it takes out (and what must still be true for it), then its effects. Redis does
all of it or nothing; a second run of the same move does nothing. What an effect means is written beside it
in `lua/move.lua`; the counters it must change are changed by the same call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from secrets import token_hex
from typing import TYPE_CHECKING

import orjson

from pipeline import arrivals, seen
from pipeline.origins import Origin
from pipeline.outcomes import Reason, Stage
from pipeline.scripts import script

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from redis.asyncio import Redis

Argument = str | bytes | int | float


class Result(IntEnum):
    """What became of a move."""

    DONE = 1
    GONE = 0  # somebody else finished these entries
    CHANGED = -1  # a visitor changed meanwhile: read again, merge again
    TOMBSTONE = -2  # one of the people must be forgotten


@dataclass(slots=True)
class Move:
    """One move. *entry_ids* leave *queue*, unless *next_cursor* says that a slice remains there."""

    queue: str
    entry_ids: Sequence[str | bytes]
    cursor: str = ""
    next_cursor: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    macs: Sequence[str] = ()
    feeds: set[Stage] = field(default_factory=set)
    """The stages that get work by this move, and whose bell is to be rung after it."""
    weight: int = 0
    """How many things the effects so far are about: what a slice is measured by."""
    spans: list[Span] | None = None
    """The spans that end once the move is written; None without traces."""
    _effects: int = 0
    _args: list[Argument] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _heard: dict[str, int] = field(default_factory=dict)
    _tallies: dict[str, int] = field(default_factory=dict)
    _arrived: list[arrivals.Note] = field(default_factory=list)
    _fresh: dict[Stage, dict[str, list[Argument]]] = field(default_factory=dict)
    """The `fresh` effects, one for each stage: by origin, marks and payloads in turn."""

    def _effect(self, *args: Argument) -> None:
        self.weight += 1
        self._effects += 1
        self._args.append(len(args))
        self._args.extend(args)

    def count(self, stage: Stage, counter: str, n: int = 1) -> None:
        """Change one number of the books."""
        field_name = stage + ":" + counter
        self._counts[field_name] = self._counts.get(field_name, 0) + n

    def settle(self, stage: Stage, counter: str, n: int = 1) -> None:
        """Take *n* from what waits in *stage* and add it to *counter*: its fate."""
        self.count(stage, "waiting", -n)
        self.count(stage, counter, n)

    def tally(self, source: str, word: str, n: int = 1) -> None:
        """Add *n* to one number of what is known of the sender *source* (`pipeline.senders`)."""
        name = source + ":" + word
        self._tallies[name] = self._tallies.get(name, 0) + n

    def delivered(self, source: str, fate: str, at_ms: int) -> None:
        """Note that a delivery of *source* came to its *fate*; it was received at *at_ms* (Unix time)."""
        self.tally(source, "deliveries:" + fate)
        self._heard[source] = max(at_ms, self._heard.get(source, 0))

    def arrived(self, note: arrivals.Note) -> None:
        """Leave a note of a delivery whose body goes with this move."""
        self._arrived.append(note)

    def pushed(self, source: str, at_ms: int) -> None:
        """Note that a delivery of *source*, received at *at_ms* (Unix time), held what it is to hold."""
        name = source + ":pushed"
        self._heard[name] = max(at_ms, self._heard.get(name, 0))

    def append(self, stage: Stage, payload: bytes, origin: Origin) -> None:
        """Give *stage* new work, whether or not it was seen before."""
        self.feeds.add(stage)
        self._effect("append", stage, payload, origin.pack())

    def append_fresh(self, stage: Stage, fingerprint: str, payload: bytes, meta: str) -> None:
        """Give *stage* new work, or count a duplicate when *fingerprint* was seen in the window.

        *meta* is a packed `Origin`; events that share it stay in their order.
        """
        origins = self._fresh.get(stage)
        if origins is None:
            origins = self._fresh[stage] = {}
            self.feeds.add(stage)
        events = origins.get(meta)
        if events is None:
            events = origins[meta] = []
            self.weight += 1
        events += (seen.mark(fingerprint), payload)
        self.weight += 1

    def pass_on(self, queue: str, fields: Sequence[Argument]) -> None:
        """Let the work go on in another queue of its stage; *fields* are names and values in turn."""
        self._effect("pass", queue, len(fields), *fields)

    def bury(
        self,
        stage: Stage,
        reason: Reason,
        error: str,
        payload: bytes,
        origin: Origin,
        *,
        attempts: int = 0,
        dead_id: str | None = None,
        digest: str | None = None,
    ) -> None:
        """Keep a dead letter. The counters are the caller's: `settle(…, "dead")` or `new_dead`."""
        # an unpaired surrogate has no UTF-8, and must not keep the whole move from being sent
        words = error[:500].encode("utf-8", "replace")
        fields: list[Argument] = ["error", words, "attempts", attempts, "count", 1]
        fields += [
            "first_seen_at",
            origin.first_seen_at_ms,
            "payload",
            payload,
            "meta",
            origin.pack(),
        ]
        if digest:
            fields += ("digest", digest)
        dead_id = dead_id or token_hex(12)
        self._effect("bury", stage, dead_id, origin.source, reason, len(fields), *fields)

    def new_dead(self, stage: Stage) -> None:
        """Count something that was found wrong before it ever waited in *stage*."""
        self.count(stage, "in")
        self.count(stage, "dead")

    def new_ignored(self, stage: Stage, n: int = 1) -> None:
        """Count something that *stage* need not do."""
        self.count(stage, "in", n)
        self.count(stage, "ignored", n)

    def save_visitor(
        self, visitor_id: str, version: str, document: bytes, seen_ms: int, keep_ms: int
    ) -> None:
        """Write a visitor's document under a new version."""
        self._effect("visitor", visitor_id, version, document, seen_ms, keep_ms)

    def absorb_visitor(self, visitor_id: str) -> None:
        """Remove a visitor whose facts were merged into another one."""
        self._effect("absorb", visitor_id)

    def alias(self, digest: str, visitor_id: str, keep_ms: int) -> None:
        """Let the hash of an address point to its visitor."""
        self._effect("alias", digest, visitor_id, keep_ms)

    def subscribe(self, digest: str, address: str, origin: Origin) -> None:
        """Queue an address to be watched, or count a duplicate when that was asked for already.

        It is watched or waits then, or lies in the dead letters: there its one piece of work is in the books
        until the letter is retried or dropped, and asking again would only make another.
        """
        self.feeds.add(Stage.SUBSCRIBE)
        self._effect("subscribe", digest, address, origin.pack())

    def subscription(self, digest: str, state: str, keep_ms: int) -> None:
        """Remember what became of an address's subscription; with '' it may be queued again as if it never was."""
        self._effect("subscription", digest, state, keep_ms)

    def succeeded(self, stage: Stage, failures: int = 0, begun_ms: int = 0) -> None:
        """Note that the stage's vendor took a call, which was begun at *begun_ms*; ends a pause that the relay made.

        The same call had failed before, *failures* times while others passed.
        """
        self._effect("succeeded", stage, failures, begun_ms)

    def recovered(self, stage: Stage) -> None:
        """End a pause of *stage* that the relay made: what is buried was to blame for it, and nothing else is there."""
        self._effect("recovered", stage)

    def hold(self, stage: Stage, successes: int, begun_ms: int) -> None:
        """Let held batches of *stage* wait until more than so many *successes*, by calls begun since then."""
        self._effect("hold", stage, successes, begun_ms)

    def remember(self, key: str, keep_ms: int, value: bytes = b"1") -> None:
        """Set the marker *key*, which leaves by itself after *keep_ms* (1 or more)."""
        self._effect("remember", key, max(1, int(keep_ms)), value)

    def pack(self, consumer: str) -> list[Argument]:
        """Return the arguments of `lua/move.lua` for this move."""
        args: list[Argument] = [self.queue, consumer, self.cursor, self.next_cursor]
        args += [len(self.entry_ids), *self.entry_ids, 2 * len(self.versions)]
        for visitor_id, version in self.versions.items():
            args += [visitor_id, version]
        # as JSON where there may be many: an argument takes Redis longer than what stands in it
        numbers = orjson.dumps((self._counts, self._heard, self._tallies))
        args += [len(self.macs), *self.macs, numbers]
        args += arrivals.pack(self._arrived) if self._arrived else (0, "")
        args += [self._effects + len(self._fresh), *self._args]
        for stage, origins in self._fresh.items():
            heads = [(meta, len(events) // 2) for meta, events in origins.items()]
            length = 3 + sum(map(len, origins.values()))
            args += [length, "fresh", stage, orjson.dumps(heads)]
            for events in origins.values():
                args += events
        return args


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of each move, and the bell number of each stage afterwards."""

    results: list[Result]
    bells: dict[Stage, int]


class Mover:
    """Carries out moves for one consumer."""

    def __init__(self, redis: Redis, consumer: str, window_ms: int) -> None:
        self.consumer = consumer
        self._window_ms = window_ms
        self._script = script(redis, "move")

    async def apply(self, moves: Iterable[Move]) -> Moved:
        """Carry out *moves*, each atomic on its own, in one call."""
        moves = list(moves)
        args: list[Argument] = [self._window_ms, len(moves)]
        for move in moves:
            args += move.pack(self.consumer)
        results, bells = await self._script(args=args)
        numbers = {stage: int(bell or 0) for stage, bell in zip(Stage, bells, strict=True)}
        return Moved([Result(result) for result in results], numbers)

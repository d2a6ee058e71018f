"""The inbox: where the receiver puts deliveries, and nothing is answered 2xx before it said yes.

One flush is one stream entry, written with its counters in one script; what `ACK_POLICY` promises beyond
that (fsync, a replica) is one wait per flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1, sha256
from time import time
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.utils import str_if_bytes

from pipeline import arrivals, keys
from pipeline.deliveries import Delivery
from pipeline.line import Line, Word
from pipeline.origins import Origin
from pipeline.outcomes import Reason
from pipeline.queues import create_groups
from pipeline.scripts import script, text, words_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from pipeline.spill import Piece

AckPolicy = Literal["stored", "fsynced", "replicated"]

#: how long Redis may take to fsync or to hear from a replica; the receiver answers within 250 ms
WAIT_MS = 150
#: how long `put` waits where the caller does not say
WITHIN_S = 5.0
# what the way to Redis and back may take beside its own waiting
_WAY_MS = 20
# what reading an answer takes that has come already
_READ_S = 0.005
# Redis 6 wraps what a command in a script says

#: how long it is known how far a spilled file has been stored, should it lie somewhere for that long
SPILLED_MS = 30 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class _Put:
    """A script that stores, by its text and its digest."""

    text: str
    digest: str

    @classmethod
    def named(cls, name: str) -> _Put:
        return cls(text(name), sha1(text(name).encode(), usedforsecurity=False).hexdigest())


_PUT, _PUT_SPILLED = _Put.named("put"), _Put.named("put_spilled")


class NotStored(Exception):
    """The deliveries may not be acknowledged: Redis refused them or kept less than was promised."""


class NoAnswer(NotStored):
    """Nothing was heard from Redis in time; it may have stored the deliveries all the same."""


class NotPossible(Exception):
    """This Redis cannot give what `ACK_POLICY` promises. The message says what to change."""


@dataclass(frozen=True, slots=True)
class Room:
    """How full Redis is, in bytes; *limit_bytes* 0 means that it has no limit."""

    used_bytes: int
    limit_bytes: int


class Inbox:
    """Stores deliveries at the level of durability that *ack_policy* names."""

    def __init__(self, redis: Redis, ack_policy: AckPolicy = "stored") -> None:
        self._redis = redis
        self._policy = ack_policy
        self._line = Line(redis.connection_pool)
        # what was spilled never makes a flush wait for its turn
        self._second_line = Line(redis.connection_pool)
        self._put_malformed = script(redis, "put_malformed")
        self._wait: tuple[str | int, ...] | None = None

    async def start(self) -> None:
        """Make the queues and check that Redis can give what was promised; raises `NotPossible`."""
        await create_groups(self._redis)
        await self.check()

    async def check(self) -> None:
        """Check that Redis can give what was promised, writing nothing; raises `NotPossible`."""
        if self._policy == "fsynced":
            await self._prepare_fsync()
        if self._policy == "replicated":
            replicas = (await self._redis.info("replication")).get("connected_slaves", 0)
            if not replicas:
                raise NotPossible(
                    "ACK_POLICY=replicated needs a replica, and this Redis has none connected: "
                    "add one, or set ACK_POLICY=stored."
                )
            self._wait = ("WAIT", 1, WAIT_MS)

    async def _prepare_fsync(self) -> None:
        persistence = await self._redis.info("persistence")
        if not persistence.get("aof_enabled"):
            raise NotPossible(
                "ACK_POLICY=fsynced needs an append-only file: set `appendonly yes` in Redis."
            )
        if await self._fsyncs_always():
            return  # the reply itself comes after the fsync
        try:
            await self._redis.execute_command("WAITAOF", 0, 0, 1)
        except ResponseError:
            raise NotPossible(
                "ACK_POLICY=fsynced needs `appendfsync always` and `no-appendfsync-on-rewrite no`,"
                " or a Redis of 7.2 or newer."
            ) from None
        self._wait = ("WAITAOF", 1, 0, WAIT_MS)

    async def _fsyncs_always(self) -> bool:
        try:
            found = await self._redis.config_get("*appendfsync*")
        except ResponseError:  # managed servers refuse CONFIG
            return False
        config = {str_if_bytes(name): str_if_bytes(value) for name, value in found.items()}
        # "yes" suspends every fsync while the file is rewritten, those of `always` too
        pauses = config.get("no-appendfsync-on-rewrite") == "yes"
        return config.get("appendfsync") == "always" and not pauses

    async def put(self, deliveries: Sequence[Delivery]) -> int:
        """Store *deliveries* as one entry; return the bell number of `unpack`. Raises `NotStored`."""
        (stored,) = await self.put_entries([deliveries], WITHIN_S)
        if isinstance(stored, NotStored):
            raise stored
        return stored

    async def put_entries(
        self, entries: Sequence[Sequence[Delivery]], within_s: float
    ) -> list[int | NotStored]:
        """Store each of *entries* for itself, in one write; what is promised is waited for once.

        Return for each the bell number of `unpack`, or why it may not be acknowledged; `NoAnswer` is
        that of an entry of which nothing was heard after *within_s* seconds.
        """
        packed = [[delivery.pack() for delivery in entry] for entry in entries]
        return await self._store(self._line, _PUT, packed, within_s)

    async def put_spilled(
        self, name: str, pieces: Sequence[Piece], within_s: float
    ) -> tuple[int, int]:
        """Store *pieces* of the spilled file *name*, each once, however often this is called.

        Return how far that file has been stored, which is elsewhere when *pieces* were not those that come next, and
        the bell number of `unpack`. Raises `NotStored`; some of them may be stored then.
        """
        calls: list[Sequence[Word]] = [
            (name, piece.start, piece.end, SPILLED_MS, *piece.payloads) for piece in pieces
        ]
        stored = await self._store(self._second_line, _PUT_SPILLED, calls, within_s)
        for one in stored:
            if isinstance(one, NotStored):
                raise one
        place, bell = stored[-1]
        return int(place), int(bell)

    async def _store(
        self, line: Line, put: _Put, calls: Sequence[Sequence[Word]], within_s: float
    ) -> list[Any]:
        """Return the answer to each of *calls*, or why what it brought may not be acknowledged."""
        stored: list[Any] = []
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                late = loop.call_later(within_s, _let_go_soon, loop, limit)
                try:
                    await self._ask(line, put, calls, stored, within_s)
                finally:
                    late.cancel()
        except TimeoutError:
            rest: NotStored = NoAnswer("Redis did not answer in time")
        except (RedisError, OSError) as error:
            rest = _not_stored(error)
        else:
            rest = NotStored("Redis did not confirm it")
        stored += [rest] * (len(calls) - len(stored))
        return [_not_stored(one) if isinstance(one, RedisError) else one for one in stored]

    async def _ask(
        self,
        line: Line,
        put: _Put,
        calls: Sequence[Sequence[Word]],
        stored: list[Any],
        within_s: float,
    ) -> None:
        """Fill *stored* with what is known of each call, also when the server does not know the script."""
        await self._write(line, calls, ("EVALSHA", put.digest, 0), stored, within_s)
        unknown = [i for i, one in enumerate(stored) if isinstance(one, NoScriptError)]
        if unknown:  # the server is new or was restarted; the text teaches it the script
            again: list[Any] = []
            try:
                texts = [calls[i] for i in unknown]
                await self._write(line, texts, ("EVAL", put.text, 0), again, within_s)
            finally:
                for i, one in zip(unknown, again, strict=False):
                    stored[i] = one

    async def _write(
        self,
        line: Line,
        calls: Sequence[Sequence[Word]],
        how: Sequence[Word],
        stored: list[Any],
        within_s: float,
    ) -> None:
        """Fill *stored* with what is known of each call."""
        commands: list[Sequence[Word]] = [(*how, *call) for call in calls]
        if self._wait is None:
            await line.ask(commands, stored)
            return
        *command, most_ms = self._wait
        # Redis's own time ends before ours: an answer "not in time" leaves the connection whole
        wait_ms = max(1, min(int(most_ms), int(within_s * 1000) - _WAY_MS))
        replies: list[Any] = []
        await line.ask([*commands, (*command, wait_ms)], replies)
        *answers, reached = replies
        if (less := self._less_than_promised(reached)) is not None:
            answers = [one if isinstance(one, RedisError) else less for one in answers]
        stored[:] = answers

    def _less_than_promised(self, reached: Any) -> NotStored | None:
        """Return why what is stored may not be acknowledged, where the answer to the wait does not say that it may."""
        if isinstance(reached, RedisError):  # it may not wait, or became a replica while it did
            return NotStored(
                f"Redis stored the delivery, but does not confirm that it is {self._policy}: {words_of(reached)}"
            )
        if (reached[0] if isinstance(reached, list) else reached) < 1:
            return NotStored(f"Redis stored the delivery, but not {self._policy} within the time.")
        return None

    async def bury(self, delivery: Delivery, reason: Reason, error: str) -> str:
        """Keep a body that was answered 400 as a dead letter; return its id. Raises `NotStored`.

        The same body from the same source again within a day only raises the letter's count.
        """
        digest = sha256(delivery.source.encode() + b"\n" + delivery.body).hexdigest()
        origin = Origin(delivery.source, delivery.received_at_ms, tag=delivery.tag)
        letter: list[str | bytes | int] = [
            *("error", error[:500].encode("utf-8", "replace"), "attempts", 0, "count", 1),
            *("first_seen_at", delivery.received_at_ms, "payload", delivery.pack()),
            *("meta", origin.pack()),
        ]
        note: arrivals.Note = (
            *(delivery.id, delivery.source, 1, len(delivery.body), delivery.received_at_ms),
            *("refused", "dead", 0, 0, 0, delivery.tag or ""),
        )
        args = [digest, delivery.id, delivery.source, reason, len(letter), *letter]
        args.append(arrivals.pack([note])[1])
        try:
            return bytes(await self._put_malformed(args=args)).decode()
        except (RedisError, OSError) as failure:
            raise _not_stored(failure) from failure

    async def count_refused(self, counts: Mapping[str, int]) -> None:
        """Add refused requests, by cause: token, signature, too_large; note when. Raises redis-py's errors."""
        now_ms = int(time() * 1000)
        async with self._redis.pipeline(transaction=False) as pipe:
            for cause, n in counts.items():
                pipe.hincrby(keys.REFUSED, cause, n)
                pipe.hset(keys.REFUSED, f"{cause}:last", now_ms)
            await pipe.execute()

    async def room(self) -> Room:
        """Return how full Redis is. Raises redis-py's errors."""
        memory = await self._redis.info("memory")
        return Room(int(memory["used_memory"]), int(memory.get("maxmemory", 0)))


def _let_go_soon(loop: asyncio.AbstractEventLoop, limit: asyncio.Timeout) -> None:
    """End the wait unless the answer is there: a process that was busy finds both the answer and that it is late."""
    loop.call_later(_READ_S, _let_go, loop, limit)


def _let_go(loop: asyncio.AbstractEventLoop, limit: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # it has ended meanwhile
        limit.reschedule(loop.time())


def _not_stored(error: Exception) -> NotStored:
    """Return why it was not stored."""
    return NotStored(f"Redis did not store the delivery: {words_of(error)}")

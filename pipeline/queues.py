"""Queues: Redis streams with one consumer group, read in large takes, left only by moves.

What a worker takes stays in its hands (the group's pending list) until a move takes it out. What it gives
back, and what dead workers held, belongs to the consumer `released`, from which anyone takes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from pipeline import heartbeats, keys
from pipeline.outcomes import Stage
from pipeline.scripts import Script, script

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: entries that Redis gives back in one step, which keeps it busy for a few milliseconds
A_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry in a worker's hands: its payloads, their origins, how far earlier slices came.

    *is_retried* tells of a delivery that came back from the dead letters, which is an entry of its own.
    """

    queue: str
    id: str
    payloads: Sequence[bytes]
    origins: Sequence[bytes]
    cursor: str = ""
    attempts: int = 0
    is_retried: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """Entries taken; none when the queue is empty or an operator paused its stage."""

    entries: list[Entry]
    is_paused: bool = False
    others: int = 0
    """How many entries, in whosever hands, the other queue has that was asked about."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """How many batches were sealed, and in how many seconds more is ripe (None: nothing waits).

    *retried* are those of what came back from the dead letters, beside *batches*.
    """

    batches: int
    wait_s: float | None
    retried: int = 0


def fields(raw: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Split an entry's field list into payloads and origins."""
    payloads = [raw[i + 1] for i in range(0, len(raw), 2) if raw[i] == b"p"]
    origins = [raw[i + 1] for i in range(0, len(raw), 2) if raw[i] == b"m"]
    return payloads, origins


async def create_groups(redis: Redis) -> None:
    """Make every queue and its consumer group, where they are missing; also on a full server."""
    names = keys.ALL_QUEUES
    await script(redis, "create_groups")(args=names)


def _lost_groups(error: ResponseError) -> bool:
    """Tell whether a queue or its group is missing: another database, a replica that was behind."""
    return "NOGROUP" in str(error) or "no such key" in str(error).lower()


class Queues:
    """Takes entries for one consumer and gives them back."""

    def __init__(self, redis: Redis, consumer: str) -> None:
        self._redis = redis
        self.consumer = consumer
        self._take = script(redis, "take")
        self._seal = script(redis, "seal")
        self._adopt = script(redis, "adopt")
        self._release = script(redis, "release")
        self._give_back = script(redis, "give_back")
        self._failed = script(redis, "failed")

    async def take(
        self,
        queue: str,
        stage: Stage,
        *,
        most: int,
        most_bytes: int = 4_000_000,
        other: str = "",
    ) -> Taken:
        """Take up to *most* entries, and no more once they hold *most_bytes*; look into the queue *other*, too."""
        args: list[str | int] = [queue, stage, self.consumer, most, most_bytes, other]
        state, rows, others = await self._with_groups(self._take, args)
        entries = [
            Entry(
                *(queue, row[0].decode(), *fields(row[1]), row[2].decode(), int(row[3] or 0)),
                is_retried=row[1][-2] == b"r",
            )
            for row in rows
        ]
        return Taken(entries, is_paused=state == -2, others=others)

    async def seal(self, stage: Stage, *, most: int, batches: int, ripe_s: float) -> Sealed:
        """Seal up to *batches* batches of up to *most* items in each line; an incomplete one once it is ripe."""
        args: list[str | int] = [stage, most, batches, int(ripe_s * 1000)]
        sealed, wait, retried = await self._with_groups(self._seal, args)
        return Sealed(int(sealed), wait / 1000 if wait >= 0 else None, int(retried))

    async def _with_groups(self, run: Script, args: Sequence[str | int]) -> Any:
        """Run a script; when the groups are missing, make them and run it again."""
        try:
            return await run(args=args)
        except ResponseError as error:
            if not _lost_groups(error):
                raise
        await create_groups(self._redis)
        return await run(args=args)

    async def give_back(self, queue: str, entry_ids: Iterable[str]) -> None:
        """Let anyone take these entries at once, as far as they are still this consumer's."""
        ids = list(entry_ids)
        if ids:
            await self._with_groups(self._give_back, [queue, self.consumer, len(ids), *ids])

    async def release(self, stage: Stage, *, spares: str = "") -> int:
        """Give back whatever this consumer still holds of *stage*: leftovers of a drain that failed.

        Nothing is given back of the queue *spares*.
        """
        return await self.release_all(*(name for name in keys.QUEUES[stage] if name != spares))

    async def release_all(self, *queues: str) -> int:
        """Give back whatever this consumer still holds of *queues*; return how many entries."""
        return await self._page_by_page(self._release, [self.consumer, len(queues), *queues])

    async def adopt(self) -> int:
        """Give back what dead workers hold in any queue; return how many entries.

        A missing queue is made anew.
        """
        names = keys.ALL_QUEUES
        args: list[str | int] = [self.consumer, heartbeats.FRESH_MS, len(names), *names]
        return await self._page_by_page(self._adopt, args)

    async def _page_by_page(self, run: Script, args: Sequence[str | int]) -> int:
        """Run a script that gives back so many entries at a time until nothing is left; return how many."""
        given, page = 0, A_PAGE
        while page == A_PAGE:
            page = int(await self._with_groups(run, [A_PAGE, *args]))
            given += page
        return given

    async def failed(self, entry: Entry) -> int:
        """Count one more failed attempt at *entry*; return how many, 0 when it is no longer ours."""
        return int(await self._failed(args=[entry.queue, self.consumer, entry.id]))

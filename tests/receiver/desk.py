"""A receiver's group commit and spill on a real Redis, without HTTP; its inbox can be told to refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis

from pipeline import keys
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.home import Home
from pipeline.inbox import Inbox, NotStored
from pipeline.queues import fields
from pipeline.spill import Piece, Spill
from pipeline.wake import Bell, arq_redis
from receiver.group_commit import GroupCommit
from receiver.limits import Limits
from receiver.metrics import Metrics
from receiver.opening import Opening
from receiver.room import RoomWatch
from receiver.spilling import Spilling

MANY = 1 << 26
#: what is drained together, as one stream entry
BATCH = Limits().deliveries_per_entry
PATIENCE_S = 60.0


async def until(check: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait until *check* is true."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = check()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


async def stored(redis: Redis) -> list[bytes]:
    """Return the bodies in the inbox, in order; redis-py would make a dict of an entry's fields, and keep the last."""
    rows = await redis.eval(
        "return redis.call('XRANGE', KEYS[1], '-', '+')", 1, keys.queue("unpack")
    )
    packed = [payload for row in rows for payload in fields(row[1])[0]]
    return [Delivery.unpack(payload).body for payload in packed]


def delivery(n: int) -> Delivery:
    """Return delivery number *n*."""
    return Delivery(new_delivery_id(), "events", b"%d" % n, 1_700_000_000_000)


class Gated(Inbox):
    """The real inbox, whose stores can be refused or held, or their answers lost."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.refuses: NotStored | None = None
        self.loses: NotStored | None = None
        self.tries = 0
        self.uses_its_time = False
        self.times: list[float] = []
        self.pieces = 0
        self.most = 1 << 30
        self.holds_at = 1 << 30
        self.gate = asyncio.Event()

    async def put_entries(
        self, entries: Sequence[Sequence[Delivery]], within_s: float
    ) -> list[int | NotStored]:
        """Store, unless it is refused."""
        self.times.append(within_s)
        if self.uses_its_time:
            await asyncio.sleep(within_s)
        if self.refuses:
            return [self.refuses] * len(entries)
        told = await super().put_entries(entries, within_s)
        return [self.loses] * len(entries) if self.loses else told

    async def put_spilled(
        self, name: str, pieces: Sequence[Piece], within_s: float
    ) -> tuple[int, int]:
        """Store, unless it is refused."""
        self.tries += 1
        if self.pieces >= self.holds_at:
            await self.gate.wait()
        if self.refuses:
            raise self.refuses
        done = await super().put_spilled(name, pieces[: self.most], within_s)
        self.pieces += len(pieces[: self.most])
        return done


class Desk:
    """A group commit with its spill, and the tasks of both."""

    def __init__(
        self,
        redis: Redis,
        home: Home,
        limits: Limits | None = None,
        *,
        has_looked: bool = True,
        **of_spill: int,
    ) -> None:
        self.redis = redis
        self.inbox = Gated(redis)
        self.metrics = Metrics()
        self.opening = Opening(self.inbox)
        self.opening.problem = None
        self.spill = Spill(home, MANY, **of_spill)
        bell = Bell(arq_redis(redis.connection_pool))
        room = RoomWatch(self.inbox)
        self.spilling = Spilling(self.spill, self.inbox, bell, self.opening, room, self.metrics)
        if has_looked:  # and nothing was there
            self.spilling._precedence.end()
        self.commit = GroupCommit(self.inbox, bell, self.metrics, limits, self.spilling)
        self.tasks = [asyncio.create_task(self.commit.run())]

    def drain(self) -> None:
        """Begin to drain."""
        self.tasks.append(asyncio.create_task(self.spilling.run()))

    async def put(self, first: int, beyond: int) -> list[bool]:
        """Put deliveries by their numbers; return which were spilled."""
        return await asyncio.gather(*(self.commit.put(delivery(n)) for n in range(first, beyond)))

    async def close(self) -> None:
        """Stop it as a death would: what is spilled stays."""
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.commit.finish()
        await self.spilling.close()

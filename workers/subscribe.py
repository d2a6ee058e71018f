"""Subscribe: asks AudiencePoint to watch addresses, thirty a call, each address once.

The answer counts invalid addresses without naming them, and the call is safe to repeat, so a batch with
invalid ones is halved until each stands alone. There is no call to unsubscribe.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, cast

from pipeline import keys
from pipeline.addresses import digest
from pipeline.moves import Move
from pipeline.origins import Origin
from pipeline.outcomes import Stage
from pipeline.queues import Entry, Sealed
from workers.clients.audiencepoint import AudiencePoint, Subscription
from workers.clients.errors import Rejected
from workers.dispatch import MOST_ITEMS, WIDTH, Batch, Item
from workers.fates import Verdict
from workers.switched_off import finish

if TYPE_CHECKING:
    from workers.context import Context

#: what AudiencePoint says of them (APIs 1.5, the List Subscription Model)
INVALID = "AudiencePoint counted the address as invalid: invalid email address or hash format"


class Subscribe:
    """The errand of the stage `subscribe`. A payload is an address as it leaves: plain, or its hash."""

    stage = Stage.SUBSCRIBE
    vendor = "audiencepoint"
    rank = 1

    def __init__(self, context: Context, client: AudiencePoint) -> None:
        self._context = context
        self._client = client
        self.calls_per_s = context.settings.audiencepoint_rate
        self._ripe_s = context.settings.forward_max_wait_s

    async def seal(self) -> Sealed:
        """Make batches of up to thirty addresses, hashed and plain apart."""
        return await self._context.queues.seal(
            self.stage, most=MOST_ITEMS, batches=WIDTH, ripe_s=self._ripe_s
        )

    async def call(self, items: Sequence[Item]) -> Subscription:
        """Subscribe the addresses; raises `Rejected` when any of them is invalid."""
        addresses = dict.fromkeys(item.payload.decode() for item in items)
        counts = await self._client.subscribe(list(addresses))
        if counts.invalid:
            raise Rejected(INVALID, status=200)
        return counts

    async def settle(self, move: Move, batch: Batch, answer: object) -> str:
        """Remember each address as subscribed."""
        move.settle(self.stage, "done", len(batch.items))
        for item in batch.items:
            address_hash = digest(item.payload.decode())
            move.subscription(address_hash, "subscribed", self._context.visitor_keep_ms)
        counts = cast(Subscription, answer)
        return f"done new={counts.new} existing={counts.existing}"

    async def bury(
        self, move: Move, item: Item, verdict: Verdict, error: str, attempts: int
    ) -> None:
        """Bury one address; it is not tried again at its person's next visit."""
        origin, address_hash = Origin.unpack(item.origin), digest(item.payload.decode())
        move.bury(
            self.stage,
            verdict.reason,
            error,
            item.payload,
            origin,
            attempts=attempts,
            digest=address_hash,
        )
        move.subscription(address_hash, "dead", self._context.visitor_keep_ms)
        move.settle(self.stage, "dead")

    def identities(self, item: Item) -> list[str]:
        """Return the address's hash."""
        return [digest(item.payload.decode())]


async def leave_unwatched(context: Context, until: float) -> None:
    """Count what waits as ignored: `SUBSCRIBE=off` watches nobody."""
    redis = context.redis

    async def end(batch: Entry) -> Move:
        # first, because an address that counts as waiting would never be queued again; twice is harmless
        async with redis.pipeline(transaction=False) as pipe:
            for payload in batch.payloads:
                pipe.hdel(keys.address(digest(payload.decode())), "subscription")
            await pipe.execute()
        move = Move(batch.queue, [batch.id])
        move.settle(Stage.SUBSCRIBE, "ignored", len(batch.payloads))
        return move

    await finish(context, Stage.SUBSCRIBE, until, end)
    while not context.stopping.is_set() and monotonic() < until:
        # only a sealed batch can be in one worker's hands
        sealed = await context.queues.seal(
            Stage.SUBSCRIBE, most=MOST_ITEMS, batches=WIDTH, ripe_s=0.0
        )
        if not sealed.batches:
            return
        await finish(context, Stage.SUBSCRIBE, until, end)

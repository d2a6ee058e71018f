"""Subscribe: asks AudiencePoint to watch addresses, thirty a call, each address once.

The answer counts invalid addresses without naming them, and the call is safe to repeat, so a batch with
invalid ones is halved until each stands alone. There is no call to unsubscribe.

With `VERIFY=before_subscribe` the addresses of a batch are verified first (`workers.verify`); what is Invalid or a
Spamtrap is ignored. When the time for it is up, what is known by then is subscribed, and the rest goes on as a batch
of its own. Nothing is kept of that in the queues, so the setting may change at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from pipeline import keys
from pipeline.addresses import digest
from pipeline.moves import Move
from pipeline.origins import Origin
from pipeline.outcomes import Stage
from pipeline.queues import Entry, Sealed
from workers.batches import MOST_ITEMS, Batch, Item, attempts, batch_fields
from workers.clients.audiencepoint import AudiencePoint, Subscription
from workers.clients.errors import Rejected
from workers.dispatch import Uncalled
from workers.fates import Verdict
from workers.switched_off import finish_sealed
from workers.verify import Judged, Verify
from workers.width import WIDTH

if TYPE_CHECKING:
    from workers.context import Context

#: what AudiencePoint says of them (APIs 1.5, the List Subscription Model)
INVALID = "AudiencePoint counted the address as invalid: invalid email address or hash format"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one batch: how many addresses were subscribed, and what was judged of the others."""

    counts: Subscription
    judged: Judged = field(default_factory=Judged)


class Known(Answer, Uncalled):
    """Everything was known from earlier verifications: nobody was called."""

    __slots__ = ()


class Subscribe:
    """The errand of the stage `subscribe`. A payload is an address as it leaves: plain, or its hash."""

    stage = Stage.SUBSCRIBE
    vendor = "audiencepoint"
    rank = 1
    in_batches = True

    def __init__(self, context: Context, client: AudiencePoint) -> None:
        self._context = context
        self._client = client
        self.calls_per_s = context.settings.audiencepoint_rate
        self._ripe_s = context.settings.forward_max_wait_s
        is_on = context.settings.verify == "before_subscribe"
        self._verify = Verify(context, client, self.vendor, self.rank) if is_on else None

    async def seal(self) -> Sealed:
        """Make batches of up to thirty addresses, hashed and plain apart."""
        return await self._context.queues.seal(
            self.stage, most=MOST_ITEMS, batches=WIDTH, ripe_s=self._ripe_s
        )

    async def call(self, items: Sequence[Item]) -> Answer:
        """Verify the addresses, where that is wanted, and subscribe; raises `Rejected` when any is invalid."""
        addresses = {digest(address): address for address in map(_address, items)}
        judged = await self._verify.judge(addresses) if self._verify else Judged()
        out = judged.left.union(judged.unwanted)
        wanted = [address for name, address in addresses.items() if name not in out]
        if not wanted:
            kind = Answer if judged.calls else Known
            return kind(Subscription(0, 0, 0), judged)
        counts = await self._client.subscribe(wanted)
        if counts.invalid:
            raise Rejected(INVALID, status=200)
        return Answer(counts, judged)

    async def settle(self, move: Move, batch: Batch, answer: object) -> str:
        """Remember each address as subscribed; let what was not verified yet wait, and ignore who is unwanted."""
        told, keep_ms = cast(Answer, answer), self._context.visitor_keep_ms
        judged, left, fates = told.judged, list[Item](), Counter[str]()
        for item in batch.items:
            name = digest(_address(item))
            if name in judged.left:
                left.append(item)
            elif result := judged.unwanted.get(name):
                fates[result] += 1
                move.settle(self.stage, "ignored")
                # not remembered here: when the result holds no longer, the next sighting asks again
                move.subscription(name, "", keep_ms)
            else:
                move.settle(self.stage, "done")
                move.subscription(name, "subscribed", keep_ms)
        if left:
            again = attempts(0, batch.mark, 0)
            move.pass_on(keys.batches(batch.line), batch_fields(left, batch.root, again))
            fates["unverified"] = len(left)
        words = [f"done new={told.counts.new} existing={told.counts.existing}"]
        return " ".join([*words, *(f"{result}={n}" for result, n in fates.items())])

    async def bury(
        self, move: Move, item: Item, verdict: Verdict, error: str, attempts: int
    ) -> None:
        """Bury one address; it is not tried again at its person's next visit."""
        origin, address_hash = Origin.unpack(item.origin), digest(_address(item))
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
        return [digest(_address(item))]


def _address(item: Item) -> str:
    return item.payload.decode()


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

    await finish_sealed(context, Stage.SUBSCRIBE, until, end, most=MOST_ITEMS)

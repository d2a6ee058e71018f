"""Notify: tells a CRM that the scores of an address changed, one message a call.

A message is made in the move that keeps the scores, so there is one for each change that was kept and none for
any other. It waits as the bytes that leave, its id among them: a retry, also one from the dead letters, is the
same message to whoever knows it already. Messages leave in the order of their changes, but several at once, and
one that failed later than others: of two about the same person the later `timestamp` counts. Nothing is
coalesced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING

import orjson

from pipeline.addresses import digest, is_address, normal
from pipeline.moves import Move
from pipeline.origins import Origin
from pipeline.outcomes import Stage
from pipeline.queues import Entry, Sealed
from pipeline.visitors import Visitor
from workers.batches import Batch, Item
from workers.clients.crm import Crm
from workers.fates import Verdict
from workers.switched_off import finish_sealed
from workers.width import WIDTH

if TYPE_CHECKING:
    from workers.context import Context

TYPE = "score.changed"


def message(visitor: Visitor, email: str, before: Mapping[str, str], email_format: str) -> bytes:
    """Return what leaves when the scores of *email*, plain or hashed, became those of *visitor*.

    *before* are the scores until then, of which only those that are others now leave.
    """
    changed = [name for name, value in visitor.scores.items() if before.get(name) != value]
    return orjson.dumps(
        {
            "id": f"msg_{token_hex(12)}",
            "type": TYPE,
            "timestamp": visitor.scores_changed_at,
            "data": {
                "visitor": visitor.id,
                "emailAddress": _as_it_leaves(visitor, email, email_format),
                "scores": visitor.scores,
                "before": {name: before.get(name) for name in changed},
            },
        }
    )


def _as_it_leaves(visitor: Visitor, email: str, email_format: str) -> str:
    """Return the address hashed, or plain where that is wanted and known."""
    address_hash = digest(email)
    if email_format != "plain":
        return address_hash
    if is_address(email):
        return normal(email)
    return next((mail for mail in visitor.emails if digest(mail) == address_hash), address_hash)


class Notify:
    """The errand of the stage `notify`. A payload is a message as it leaves."""

    stage = Stage.NOTIFY
    vendor = "crm"
    rank = 0
    in_batches = False
    calls_per_s = 0.0

    def __init__(self, context: Context, client: Crm) -> None:
        self._context = context
        self._client = client

    async def seal(self) -> Sealed:
        """Make a batch of each message, at once."""
        return await self._context.queues.seal(self.stage, most=1, batches=WIDTH, ripe_s=0.0)

    async def call(self, items: Sequence[Item]) -> None:
        """Send the message."""
        (item,) = items
        await self._client.tell(orjson.loads(item.payload)["id"], item.payload)

    async def settle(self, move: Move, batch: Batch, answer: object) -> str:
        """Count the message as done."""
        move.settle(self.stage, "done", len(batch.items))
        return "done"

    async def bury(
        self, move: Move, item: Item, verdict: Verdict, error: str, attempts: int
    ) -> None:
        """Bury the message."""
        origin = Origin.unpack(item.origin)
        move.bury(self.stage, verdict.reason, error, item.payload, origin, attempts=attempts)
        move.settle(self.stage, "dead")

    def identities(self, item: Item) -> list[str]:
        """Return the hash of the address, and the visitor's id."""
        data = orjson.loads(item.payload)["data"]
        return [digest(data["emailAddress"]), data["visitor"]]


async def leave_untold(context: Context, until: float) -> None:
    """Count what waits as ignored: without SCORES_WEBHOOK_URL nobody is told."""

    async def end(batch: Entry) -> Move:
        move = Move(batch.queue, [batch.id])
        move.settle(Stage.NOTIFY, "ignored", len(batch.payloads))
        return move

    await finish_sealed(context, Stage.NOTIFY, until, end, most=1)

"""Forward: sends mail events to AudiencePoint, at most thirty a request.

The events wait as the JSON that leaves, so a batch's body is their concatenation: the same batch always makes
the same bytes, and a retry is byte-identical. AudiencePoint accepts or refuses a batch as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import orjson

from pipeline.addresses import digest
from pipeline.moves import Move
from pipeline.origins import Origin
from pipeline.outcomes import Stage
from pipeline.queues import Sealed
from workers.batches import MOST_ITEMS, Batch, Item
from workers.clients.audiencepoint import AudiencePoint, Receipt
from workers.fates import Verdict
from workers.width import WIDTH

if TYPE_CHECKING:
    from workers.context import Context


class Forward:
    """The errand of the stage `forward`."""

    stage = Stage.FORWARD
    vendor = "audiencepoint"
    rank = 0
    in_batches = True

    def __init__(self, context: Context, client: AudiencePoint) -> None:
        self._context = context
        self._client = client
        self.calls_per_s = context.settings.audiencepoint_rate
        self._ripe_s = context.settings.forward_max_wait_s

    async def seal(self) -> Sealed:
        """Make batches of up to thirty events, hashed and plain apart."""
        return await self._context.queues.seal(
            self.stage, most=MOST_ITEMS, batches=WIDTH, ripe_s=self._ripe_s
        )

    async def call(self, items: Sequence[Item]) -> Receipt:
        """Post the events; the answer is the receipt of the batch as a whole."""
        return await self._client.post_events(body(items))

    async def settle(self, move: Move, batch: Batch, answer: object) -> str:
        """Count the events as done; the receipt is logged beside the batch's id."""
        move.settle(self.stage, "done", len(batch.items))
        return f"done sequence_number={cast(Receipt, answer).sequence_number}"

    async def bury(
        self, move: Move, item: Item, verdict: Verdict, error: str, attempts: int
    ) -> None:
        """Bury one event."""
        origin = Origin.unpack(item.origin)
        move.bury(self.stage, verdict.reason, error, item.payload, origin, attempts=attempts)
        move.settle(self.stage, "dead")

    def identities(self, item: Item) -> list[str]:
        """Return the hash of the event's address."""
        return [digest(orjson.loads(item.payload)["email"])]


def body(items: Sequence[Item]) -> bytes:
    """Return the request's body, the oldest event first: the same items always give the same bytes.

    No order is documented, or promised; they came from the sender in any.
    """
    in_order = sorted([item.payload for item in items], key=_occurred_at)
    return b'{"events":[' + b",".join(in_order) + b"]}"


def _occurred_at(payload: bytes) -> bytes:
    """Return when the event occurred, as it is written: texts of that form are in the order of time."""
    # in JSON a quotation mark within a text has a backslash before it
    return payload.partition(b'"occurred_at_utc":"')[2][:19]

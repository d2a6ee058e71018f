"""Drills: one invented event that `relay doctor` sends the whole way, to a dry end.

It comes in at the receiver as any delivery to `events` does, lies in the inbox, is taken apart by a worker and waits in
`forward`; where batches are sealed it is taken out and counted as ignored. It never joins a batch, so no vendor ever
hears of it, and it counts for no sender. What tells it from others is an address of a domain that cannot exist
(`invalid`, RFC 2606) together with a number of ours; each place that it comes to leaves a mark for some minutes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson

from pipeline import keys
from pipeline.mail_events import iso_second
from pipeline.outcomes import MailEvent, Outcome, Stage

if TYPE_CHECKING:
    from redis.asyncio import Redis

SOURCE = "events"
#: the places that leave a mark, in the order of the way
PLACES = (Stage.UNPACK, Stage.FORWARD)
#: longer than anybody waits for it; `lua/seal.lua` has the same
KEEP_MS = 600_000

_DOMAIN = "@drill.relay.invalid"
_NUMBER = re.compile(r"[0-9a-f]{16}")


def body(number: str, now: float) -> bytes:
    """Return the body of the drill *number* (16 hex digits) at Unix time *now*."""
    event = {
        "email": f"doctor{_DOMAIN}",
        "type": "Open",
        "occurred_at_utc": iso_second(int(now)),
        "send_id": number,
    }
    return orjson.dumps(event)


def number_of(outcome: Outcome) -> str | None:
    """Return the drill's number, None for what is no drill."""
    if not isinstance(outcome, MailEvent) or not outcome.email.endswith(_DOMAIN):
        return None
    return outcome.send_id if _NUMBER.fullmatch(outcome.send_id) else None


async def came_to(redis: Redis, number: str) -> list[Stage]:
    """Return the places that the drill *number* has come to."""
    marks = await redis.mget([keys.drill(number, place) for place in PLACES])
    return [place for place, mark in zip(PLACES, marks, strict=True) if mark]

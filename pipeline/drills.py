"""Drills: invented work that goes the way of real work, to a dry end. No vendor hears of it; it counts for no sender.

One is an event that `relay doctor` sends. It comes in at the receiver as any delivery to `events` does, lies in the
inbox, is taken apart by a worker and waits in `forward`; where batches are sealed it is taken out and counted as
ignored. What tells it from others is an address of a domain that cannot exist (`invalid`, RFC 2606) together with a
number of ours.

The other is a sample delivery of any source, sent from the console with the drill's tag. A worker reads it as it reads
every delivery, notes what it understood, and that is its end: `unpack` counts it as ignored.

Each place that a drill comes to leaves a mark for some minutes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from pipeline import keys
from pipeline.mail_events import iso_second
from pipeline.outcomes import MailEvent, Outcome, Stage, Unreadable
from pipeline.senders import word_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

SOURCE = "events"
#: the places that leave a mark, in the order of the way
PLACES = (Stage.UNPACK, Stage.FORWARD)
#: longer than anybody waits for it; `lua/seal.lua` has the same
KEEP_MS = 600_000

_DOMAIN = "@drill.relay.invalid"
_NUMBER = re.compile(r"[0-9a-f]{16}")
_TAG = re.compile(r"drill-([0-9a-f]{16})")


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


def tag(number: str) -> str:
    """Return what a sample delivery of the drill *number* is tagged with."""
    return f"drill-{number}"


def number_in(tag: str) -> str | None:
    """Return the number of the drill that a delivery with this *tag* belongs to, None for any other tag."""
    found = _TAG.fullmatch(tag)
    return found[1] if found else None


def note(outcomes: Iterable[Outcome], unreadable: Unreadable | None) -> bytes:
    """Return the mark that tells what was read of a sample: how many outcomes of each word, or why it is none."""
    told = {
        "outcomes": Counter(map(word_of, outcomes)),
        "error": f"{unreadable.reason}: {unreadable.error}" if unreadable else None,
    }
    return orjson.dumps(told)


async def read_as(redis: Redis, number: str) -> dict[str, Any] | None:
    """Return what a worker noted of the sample of the drill *number* (`note`); None as long as none has read it."""
    mark = await redis.get(keys.drill(number, Stage.UNPACK))
    return None if mark is None else dict(orjson.loads(mark))


async def came_to(redis: Redis, number: str) -> list[Stage]:
    """Return the places that the drill *number* has come to."""
    marks = await redis.mget([keys.drill(number, place) for place in PLACES])
    return [place for place, mark in zip(PLACES, marks, strict=True) if mark]

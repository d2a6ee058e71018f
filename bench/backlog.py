"""Work to measure with: mail events of ordinary size, each one different, stored as deliveries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.inbox import Inbox

if TYPE_CHECKING:
    from redis.asyncio import Redis

_AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"


@dataclass(frozen=True, slots=True)
class Shape:
    """How events come: this many in a delivery, this many deliveries stored together."""

    name: str
    events_per_delivery: int
    deliveries_per_flush: int


#: the hard case: a busy sender that posts each event alone
SINGLE = Shape("1 event a delivery, 64 a flush", 1, 64)
THIRTY = Shape("30 events a delivery, 8 a flush", 30, 8)
#: an idle receiver stores each delivery as an entry of its own
ALONE = Shape("1 event a delivery, 1 a flush", 1, 1)


def event(number: int) -> dict[str, object]:
    """Return the mail event *number*: about 330 bytes, an Open with everything a sender tells."""
    second = number % 60
    return {
        "email": f"reader.{number}@example.com",
        "type": "Open",
        "occurred_at_utc": f"2026-01-15T12:{number // 60 % 60:02}:{second:02}",
        "send_id": f"campaign-0042-{number:08}",
        "client": "Apple Mail",
        "os": "iOS",
        "device": "mobile",
        "ip_address": f"192.0.2.{number % 250}",
        "user_agent": _AGENT,
        "machine_open": False,
    }


def body_of(size: int) -> bytes:
    """Return one delivery's body of exactly *size* bytes."""
    one = event(1)
    one["user_agent"] = ""
    missing = size - len(orjson.dumps(one))
    one["user_agent"] = (_AGENT + " ").ljust(missing, "x")[:missing]
    return orjson.dumps(one)


def bodies(events: int, shape: Shape) -> Iterator[tuple[bytes, int]]:
    """Yield deliveries' bodies and how many events each holds."""
    for first in range(0, events, shape.events_per_delivery):
        last = min(first + shape.events_per_delivery, events)
        if shape.events_per_delivery == 1:
            yield orjson.dumps(event(first)), 1
        else:
            items = [event(number) for number in range(first, last)]
            yield orjson.dumps({"events": items}), last - first


async def fill(redis: Redis, events: int, shape: Shape) -> tuple[int, int]:
    """Store *events* mail events in the inbox as a receiver does; return deliveries and their bytes."""
    inbox = Inbox(redis)
    await inbox.start()
    return await _put_all(inbox, events, shape)


async def _put_all(inbox: Inbox, events: int, shape: Shape) -> tuple[int, int]:
    flush: list[Delivery] = []
    deliveries = size = 0
    for body, _ in bodies(events, shape):
        now = int(time.time() * 1000)
        flush.append(Delivery(new_delivery_id(), "events", body, now, "application/json"))
        deliveries, size = deliveries + 1, size + len(body)
        if len(flush) == shape.deliveries_per_flush:
            await inbox.put(flush)
            flush = []
    if flush:
        await inbox.put(flush)
    return deliveries, size

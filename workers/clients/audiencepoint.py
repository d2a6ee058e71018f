"""AudiencePoint's calls that the flow needs: post events, subscribe addresses (APIs 1.5).

Requests are made and answers read by pure functions; `AudiencePoint` only carries them. What may go
wrong: a 200 whose body lacks the keys is a failure passed through from behind the gateway, and a
wrong path answers 403 as a wrong key does; `refusals` knows them all.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from workers.clients.http import VendorHttp
from workers.clients.messages import Answer, Request
from workers.clients.refusals import failure

VENDOR = "AudiencePoint"
EVENTS_PATH = "/events"
SUBSCRIPTION_PATH = "/list-subscription"

#: Addresses per call. Documented for events and scores, proposed by us for subscriptions.
MOST_ADDRESSES = 30

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the calls live below the base URL. Not documented: every one is a setting."""

    events: str = EVENTS_PATH
    subscription: str = SUBSCRIPTION_PATH


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a batch of events is queued: 56 digits that do not fit a number, and a shard."""

    sequence_number: str
    shard_id: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """How many addresses were added, were subscribed before, or were refused. Not which."""

    new: int
    existing: int
    invalid: int


def headers(key: str) -> dict[str, str]:
    """Return the headers that every call to AudiencePoint carries."""
    return {"X-API-Key": key}


def events_request(events_body: bytes, path: str = EVENTS_PATH) -> Request:
    """Return the request for a sealed batch: *events_body* is `{"events": […]}`, sent as it is."""
    return Request("POST", path, events_body)


def read_events(answer: Answer, path: str = EVENTS_PATH) -> Receipt:
    """Return the receipt of a batch, or raise the `CallFailed` that *answer* means."""
    members = answer.members()
    sequence_number = members.get("SequenceNumber")
    # A number would be a vendor's change of mind, and still proof that the batch is stored.
    is_proof = bool(sequence_number) and isinstance(sequence_number, str | int | float)
    if not answer.is_success or not is_proof:
        raise failure(answer, VENDOR, path, path_setting="AUDIENCEPOINT_EVENTS_PATH")
    return Receipt(str(sequence_number), str(members.get("ShardId") or ""))


def subscription_request(addresses: Sequence[str], path: str = SUBSCRIPTION_PATH) -> Request:
    """Return the request that subscribes 1 to 30 different *addresses*, plain or hashed.

    Raises `ValueError` for any other number, for repeated and for empty ones.
    """
    if not 1 <= len(addresses) <= MOST_ADDRESSES:
        raise ValueError(f"1 to {MOST_ADDRESSES} addresses a call, not {len(addresses)}")
    if len(set(addresses)) < len(addresses) or not all(addresses):
        raise ValueError("addresses must be different from each other and not empty")
    return Request("POST", path, orjson.dumps({"emailAddresses": list(addresses)}))


def read_subscription(answer: Answer, path: str = SUBSCRIPTION_PATH) -> Subscription:
    """Return the three counts, or raise the `CallFailed` that *answer* means."""
    members = answer.members()
    counts = [_count(members.get(name)) for name in ("new", "existing", "invalid")]
    if not answer.is_success or None in counts:
        raise failure(answer, VENDOR, path, path_setting="AUDIENCEPOINT_SUBSCRIPTION_PATH")
    new, existing, invalid = (count or 0 for count in counts)
    return Subscription(new, existing, invalid)


def _count(value: object) -> int | None:
    """Return a count given as a number or, as AudiencePoint's scores are, as digits in a string."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class AudiencePoint:
    """The calls, over one `VendorHttp`. Every failure is a `CallFailed`."""

    def __init__(self, http: VendorHttp, paths: Paths | None = None) -> None:
        self._http = http
        self._paths = paths or Paths()

    async def post_events(self, body: bytes) -> Receipt:
        """Post one sealed batch, byte for byte."""
        path = self._paths.events
        return read_events(await self._http.send(events_request(body, path)), path)

    async def subscribe(self, addresses: Sequence[str]) -> Subscription:
        """Subscribe to score changes of 1 to 30 different *addresses*. Safe to repeat."""
        path = self._paths.subscription
        answer = await self._http.send(subscription_request(addresses, path))
        counts = read_subscription(answer, path)
        told = counts.new + counts.existing + counts.invalid
        if told != len(addresses):
            _log.warning("subscription counts do not add up: sent=%d told=%d", len(addresses), told)
        return counts

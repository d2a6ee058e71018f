"""Event ingestion: up to thirty mail events a call, queued as a whole or not at all.

The Event Ingestion Model is documented (docs.audiencepoint.com, APIs 1.5): `email`, `type`,
`occurred_at_utc` as `YYYY-MM-DDThh:mm:ss` without zone, `send_id`, and optional strings. Its path is
not. What may go wrong: a 200 whose body lacks the receipt is a failure passed through from behind
the gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.addresses import clean, is_hash
from workers.clients.audiencepoint.answers import refused
from workers.clients.messages import Answer, Request, json_bytes

EVENTS_PATH = "/events"
_SETTING = "AUDIENCEPOINT_EVENTS_PATH"

#: Events a call (documented: Event Ingestion, Send event data).
MOST_EVENTS = 30

Event = Mapping[str, object]
"""An object of the Event Ingestion Model."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a batch of events is queued: 56 digits that do not fit a number, and a shard."""

    sequence_number: str
    shard_id: str


def events_request(events_body: bytes, path: str = EVENTS_PATH) -> Request:
    """Return the request for a sealed batch: *events_body* is `{"events": […]}`, sent as it is."""
    return Request("POST", path, events_body)


def calls(events: Sequence[Event]) -> Iterator[tuple[int, ...]]:
    """Yield the positions of the *events* of each call: thirty at most, in their order, plain and hashed apart.

    Raises `ValueError` for an event without an address before anything is yielded.
    """
    kinds: dict[bool, list[int]] = {False: [], True: []}
    for position, event in enumerate(events):
        address = event.get("email") if isinstance(event, Mapping) else None
        if not isinstance(address, str) or not clean(address):
            raise ValueError(f"event {position} has no address")
        kinds[is_hash(clean(address))].append(position)
    for alike in kinds.values():
        for start in range(0, len(alike), MOST_EVENTS):
            yield tuple(alike[start : start + MOST_EVENTS])


def body_of(events: Sequence[Event]) -> bytes:
    """Return the body of one call: `{"events": […]}`."""
    return json_bytes({"events": [dict(event) for event in events]})


def read_events(answer: Answer, path: str = EVENTS_PATH) -> Receipt:
    """Return the receipt of a batch, or raise the `CallFailed` that *answer* means."""
    members = answer.members()
    sequence_number = members.get("SequenceNumber")
    # A number would be a vendor's change of mind, and still proof that the batch is stored.
    is_proof = bool(sequence_number) and isinstance(sequence_number, str | int | float)
    if not answer.is_success or not is_proof:
        raise refused(answer, path, _SETTING)
    return Receipt(str(sequence_number), str(members.get("ShardId") or ""))

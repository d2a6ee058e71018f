"""AudiencePoint's stand-in: the three calls the relay makes, with the rules of APIs 1.5.

Documented are the bodies, the limits of thirty and the event model; statuses and error texts are
those of the gateway it seems to stand behind. Where the vendor says nothing, this is lenient and
counts (a batch that mixes plain and hashed addresses), so that a test can insist on better.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hmac import compare_digest
from itertools import count
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.addresses import hash_of, is_valid
from sandbox.desk import Announce, Answer, Desk, Refused, Transported, say_nothing
from sandbox.faults import Faults
from sandbox.memory import Memory
from sandbox.people import is_known

MOST_PER_CALL = 30
# API Gateway's own limit of a request body.
MOST_BYTES = 10 * 1024 * 1024
TYPES = frozenset({"Open", "Click", "Send", "SoftBounce", "HardBounce", "Unsubscribe", "Complaint"})
_REQUIRED = ("email", "type", "occurred_at_utc", "send_id")
_TEXTS = ("domain", "client", "browser", "os", "device", "ip_address", "user_agent")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
# Kinesis numbers have 56 digits; this is the first of a stream of its own.
_FIRST_SEQUENCE_NUMBER = 4964 * 10**52
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PARTS_OF_DAY = ("Night", "Morning", "Afternoon", "Evening")
_FREQUENCIES = ("Hyper-engaged", "No Limit", "Daily", "Weekly", "Monthly")


def create(
    memory: Memory,
    faults: Faults,
    key: str = "sandbox",
    announce: Announce = say_nothing,
) -> Transported:
    """Return the app; mount it under `/audiencepoint/v1`."""

    def admit(request: Request) -> None:
        given = request.headers.get("x-api-key", "")
        if not compare_digest(given.encode(), key.encode()):
            raise Refused(Answer(403, {"message": "Forbidden"}))
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Refused(Answer(415, {"message": "Unsupported Media Type"}))

    def route(name: str, handle: Callable[[bytes], Answer]) -> Route:
        desk = Desk(name, admit, handle, memory, faults, announce)
        return Route(f"/{name}", desk.serve, methods=["POST"])

    return Transported(
        routes=[
            route("events", _event_ingestion(memory)),
            route("list-subscription", _list_subscription(memory)),
            route("scores", _scores(memory)),
        ],
        exception_handlers={404: _unknown_path, 405: _unknown_path},
    )


async def _unknown_path(request: Request, error: Exception) -> Response:
    """Answer as the gateway does to a path or method it does not have, whatever the key."""
    return Answer(403, {"message": "Missing Authentication Token"}).response()


def _event_ingestion(memory: Memory) -> Callable[[bytes], Answer]:
    numbers = count(_FIRST_SEQUENCE_NUMBER)

    def handle(raw: bytes) -> Answer:
        events = _few(_message(raw), "events")
        for event in events:
            _check_event(event)
        memory.keep_batch(events, raw)
        receipt = {"SequenceNumber": str(next(numbers)), "ShardId": "shardId-000000000001"}
        return Answer(200, receipt, len(events))

    return handle


def _check_event(event: object) -> None:
    """Hold one event against the Event Ingestion Model."""
    if not isinstance(event, dict):
        raise _refusal("an event is an object")
    for name in _REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise _refusal(f"{name} is required and a string")
    if event["type"] not in TYPES:
        raise _refusal("type is unknown")
    if not _TIME.fullmatch(event["occurred_at_utc"]):
        raise _refusal("occurred_at_utc is not YYYY-MM-DDThh:mm:ss")
    for name in _TEXTS:
        if name in event and not isinstance(event[name], str):
            raise _refusal(f"{name} is a string")
    if not isinstance(event.get("machine_open", False), bool):
        raise _refusal("machine_open is a boolean")


def _list_subscription(memory: Memory) -> Callable[[bytes], Answer]:
    def handle(raw: bytes) -> Answer:
        # No limit is stated for this call alone, so none is enforced; the largest is counted.
        addresses = _addresses(_message(raw))
        valid = [each for each in addresses if is_valid(each)]
        new, existing = memory.subscribe(valid)
        invalid = len(addresses) - len(valid)
        return Answer(200, {"new": new, "existing": existing, "invalid": invalid}, len(addresses))

    return handle


def _scores(memory: Memory) -> Callable[[bytes], Answer]:
    def handle(raw: bytes) -> Answer:
        message = _message(raw)
        addresses = _addresses(message)
        _at_most_thirty(addresses, "emailAddresses")
        wanted = message.get("scoreSelection") or list(_scores_of("nobody@example.com"))
        if not _is_texts(wanted) or set(wanted) - set(_scores_of("nobody@example.com")):
            raise _refusal("scoreSelection names an unknown score")
        memory.keep_score_request(message)
        return Answer(200, [_scored(each, wanted) for each in addresses], len(addresses))

    return handle


def _scored(address: str, wanted: list[str]) -> dict[str, str]:
    """Return one object of the Scores Model: every value is a string."""
    if not is_valid(address):
        return {"emailAddress": address, "matched": "invalid"}
    if not is_known(address):
        return {"emailAddress": address, "matched": "no"}
    chosen = {name: value for name, value in _scores_of(address).items() if name in wanted}
    return {"emailAddress": address, "matched": "yes", **chosen}


def _scores_of(address: str) -> dict[str, str]:
    """Invent scores that are always the same for the same address, plain or hashed."""
    dice = int(hash_of(address)[:8], 16)
    hour = dice % 168
    return {
        "domain_owner": "example.com",
        "best_day_of_week": _DAYS[hour // 24],
        "best_time_of_day": _PARTS_OF_DAY[hour % 24 // 6],
        "last_touch": "2026-01-12 09:04:00 AM",
        "send_time": str(hour),
        "score": str(dice % 6),
        "frequency": _FREQUENCIES[dice % 5],
        "codes": "446120|448140|448120",
        "devices": "Desktop|Mobile",
        "email_clients": "Gmail|iOS",
        "first_touch": "2024-03-02 11:30:00 AM",
        "last_send_no_bounce": "2026-01-11 08:00:00 AM",
        "last_seen": "2026-01-12 09:04:00 AM",
        "last_seen_auto_open": "FALSE",
    }


def _message(raw: bytes) -> dict[str, Any]:
    if len(raw) > MOST_BYTES:
        raise Refused(Answer(413, {"message": "Request Too Long"}))
    try:
        message = orjson.loads(raw)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, dict):
        raise Refused(Answer(400, {"message": "Invalid request body"}))
    return message


def _few(message: dict[str, Any], name: str) -> list[Any]:
    """Return the list *name*: one to thirty things."""
    things = message.get(name)
    if not isinstance(things, list) or not things:
        raise _refusal(f"{name} is required and not empty")
    _at_most_thirty(things, name)
    return things


def _at_most_thirty(things: list[Any], name: str) -> None:
    if len(things) > MOST_PER_CALL:
        raise _refusal(f"{name} holds more than {MOST_PER_CALL}")


def _addresses(message: dict[str, Any]) -> list[str]:
    addresses = message.get("emailAddresses")
    if not _is_texts(addresses) or not addresses:
        raise _refusal("emailAddresses is required: strings, not empty")
    found: list[str] = addresses
    return found


def _is_texts(things: object) -> bool:
    return isinstance(things, list) and all(isinstance(each, str) for each in things)


def _refusal(why: str) -> Refused:
    return Refused(Answer(400, {"message": f"Invalid request body: {why}"}))

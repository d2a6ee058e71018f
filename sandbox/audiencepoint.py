"""AudiencePoint's stand-in: its five calls, with the rules of APIs 1.5.

Documented are the bodies, the limits of thirty and the event model; statuses and error texts are
those of the gateway it seems to stand behind. Where the vendor says nothing, this is lenient and
counts (a batch that mixes plain and hashed addresses), so that a test can insist on better.
"""

from __future__ import annotations

from itertools import count

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox import audiencepoint_scores as scores
from sandbox import audiencepoint_sto as sto
from sandbox import audiencepoint_verification as verification
from sandbox.addresses import is_valid
from sandbox.audiencepoint_rules import addresses_of, few, is_time, message_of, refusal
from sandbox.desk import Answer, Asked, Desks, Handle, Refused, Transported
from sandbox.memory import Memory

TYPES = frozenset({"Open", "Click", "Send", "SoftBounce", "HardBounce", "Unsubscribe", "Complaint"})
_REQUIRED = ("email", "type", "occurred_at_utc", "send_id")
_TEXTS = ("domain", "client", "browser", "os", "device", "ip_address", "user_agent")
# Kinesis numbers have 56 digits; this is the first of a stream of its own.
_FIRST_SEQUENCE_NUMBER = 4964 * 10**52


def create(desks: Desks) -> Transported:
    """Return the app; mount it under `/audiencepoint/v1`."""
    memory = desks.memory

    def admit(request: Request) -> None:
        if not desks.is_key(request.headers.get("x-api-key", "")):
            raise Refused(Answer(403, {"message": "Forbidden"}))
        if request.method == "GET":
            return
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Refused(Answer(415, {"message": "Unsupported Media Type"}))

    def route(name: str, handle: Handle, *methods: str) -> Route:
        return Route(
            f"/{name}", desks.open(name, admit, handle).serve, methods=methods or ("POST",)
        )

    return Transported(
        routes=[
            route("events", _event_ingestion(memory)),
            route("list-subscription", _list_subscription(memory)),
            route("scores", scores.scores(memory, desks.settings)),
            route("email-verification", verification.verified(memory), "GET", "POST"),
            route("sto", sto.send_times(memory)),
        ],
        exception_handlers={404: _unknown_path, 405: _unknown_path},
    )


async def _unknown_path(request: Request, error: Exception) -> Response:
    """Answer as the gateway does to a path or method it does not have, whatever the key."""
    return Answer(403, {"message": "Missing Authentication Token"}).response()


def _event_ingestion(memory: Memory) -> Handle:
    numbers = count(_FIRST_SEQUENCE_NUMBER)

    def handle(asked: Asked) -> Answer:
        events = few(message_of(asked), "events")
        for event in events:
            _check_event(event)
        memory.keep_batch(events, asked.raw)
        receipt = {"SequenceNumber": str(next(numbers)), "ShardId": "shardId-000000000001"}
        return Answer(200, receipt, len(events))

    return handle


def _check_event(event: object) -> None:
    """Hold one event against the Event Ingestion Model."""
    if not isinstance(event, dict):
        raise refusal("an event is an object")
    for name in _REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise refusal(f"{name} is required and a string")
    if event["type"] not in TYPES:
        raise refusal("type is unknown")
    if not is_time(event["occurred_at_utc"]):
        raise refusal("occurred_at_utc is not YYYY-MM-DDThh:mm:ss")
    for name in _TEXTS:
        if name in event and not isinstance(event[name], str):
            raise refusal(f"{name} is a string")
    if not isinstance(event.get("machine_open", False), bool):
        raise refusal("machine_open is a boolean")


def _list_subscription(memory: Memory) -> Handle:
    def handle(asked: Asked) -> Answer:
        # No limit is stated for this call alone, so none is enforced; the largest is counted.
        addresses = addresses_of(message_of(asked))
        valid = [each for each in addresses if is_valid(each)]
        new, existing = memory.subscribe(valid)
        invalid = len(addresses) - len(valid)
        return Answer(200, {"new": new, "existing": existing, "invalid": invalid}, len(addresses))

    return handle

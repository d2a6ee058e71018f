"""AudienceLab's stand-in: `POST /enrich` as observed, over a small table of invented people.

It refuses what the vendor refuses: keys it does not know, at the top or in the filter, and a
missing `is_or_match`. Answers have the live service's UPPER_CASE keys, not its page's lower-case.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from time import time
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.desk import Announce, Answer, Desk, Refused, Transported, say_nothing
from sandbox.faults import Faults
from sandbox.memory import Memory
from sandbox.people import FILTERS, Row, people_matching

_KEYS = {"filter", "is_or_match", "fields", "request_id"}
_UNKNOWN_KEY = "Malformed JSON/Unknown Field detected: <nil>"


def create(
    memory: Memory,
    faults: Faults,
    key: str = "sandbox",
    announce: Announce = say_nothing,
) -> Transported:
    """Return the app; mount it under `/audiencelab`."""

    def admit(request: Request) -> None:
        if not _is_right(request, key):
            raise Refused(_error(401, "UNAUTHORIZED", "Invalid API key"))

    desk = Desk("enrich", admit, _enrich(memory), memory, faults, announce)
    return Transported(
        routes=[Route("/enrich", desk.serve, methods=["POST"])],
        exception_handlers={404: _unknown_path, 405: _unknown_path},
    )


def _is_right(request: Request, key: str) -> bool:
    """Take the key from either header: one is documented, the other was in use before."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    given = request.headers.get("x-api-key", bearer)
    return compare_digest(given.encode(), key.encode())


async def _unknown_path(request: Request, error: Exception) -> Response:
    return _error(404, "NOT_FOUND", "Not found").response()


def _enrich(memory: Memory) -> Callable[[bytes], Answer]:
    def handle(raw: bytes) -> Answer:
        message = _message(raw)
        people = _find(message)
        memory.keep_enrich_request(message, len(people))
        echo = {"request_id": message["request_id"]} if "request_id" in message else {}
        found = {"timestamp": int(time() * 1000), "found": len(people), "result": people}
        return Answer(200, echo | found, len(people))

    return handle


def _message(raw: bytes) -> dict[str, Any]:
    """Return the request, held against the vendor's rules."""
    try:
        message = orjson.loads(raw)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, dict) or set(message) - _KEYS:
        raise _refusal(_UNKNOWN_KEY)
    if not isinstance(message.get("is_or_match"), bool):
        raise _refusal("is_or_match is required")
    if not isinstance(message.get("request_id", ""), str):
        raise _refusal("request_id is a string")
    _check_filter(message.get("filter"))
    _check_fields(message.get("fields", []))
    return message


def _check_filter(chosen: object) -> None:
    if not isinstance(chosen, dict) or not chosen:
        raise _refusal("filter is required")
    for name, value in chosen.items():
        if name not in FILTERS:
            raise _refusal(f"invalid filter field: {name.upper()}")
        if not isinstance(value, str) or not value:
            raise _refusal(f"invalid filter value: {name.upper()}")


def _check_fields(names: object) -> None:
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise _refusal("fields is an array of strings")


def _find(message: dict[str, Any]) -> list[Row]:
    chosen: dict[str, str] = message["filter"]
    people = people_matching(chosen, any_will_do=message["is_or_match"])
    names = {each.upper() for each in message.get("fields", ())}
    if not names:
        return people
    return [{name: value for name, value in row.items() if name in names} for row in people]


def _refusal(why: str) -> Refused:
    return Refused(_error(400, "VALIDATION_ERROR", why))


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message, "details": {}}})

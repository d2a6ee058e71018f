"""What AudiencePoint's stand-ins share: its refusals and the requests it can read."""

from __future__ import annotations

import re
from typing import Any

import orjson

from sandbox.desk import Answer, Asked, Refused

MOST_PER_CALL = 30
# API Gateway's own limit of a request body.
MOST_BYTES = 10 * 1024 * 1024
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")


def refusal(why: str) -> Refused:
    """Return the refusal of a request, to be raised."""
    return Refused(Answer(400, {"message": f"Invalid request body: {why}"}))


def message_of(asked: Asked) -> dict[str, Any]:
    """Return the JSON object that a request is."""
    if len(asked.raw) > MOST_BYTES:
        raise Refused(Answer(413, {"message": "Request Too Long"}))
    try:
        message = orjson.loads(asked.raw)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, dict):
        raise Refused(Answer(400, {"message": "Invalid request body"}))
    return message


def few(message: dict[str, Any], name: str) -> list[Any]:
    """Return the list *name*: one to thirty things."""
    things = message.get(name)
    if not isinstance(things, list) or not things:
        raise refusal(f"{name} is required and not empty")
    at_most_thirty(things, name)
    return things


def at_most_thirty(things: list[Any], name: str) -> None:
    """Refuse more than thirty."""
    if len(things) > MOST_PER_CALL:
        raise refusal(f"{name} holds more than {MOST_PER_CALL}")


def addresses_of(message: dict[str, Any]) -> list[str]:
    """Return the addresses a call is about: at least one."""
    addresses = message.get("emailAddresses")
    if not is_texts(addresses) or not addresses:
        raise refusal("emailAddresses is required: strings, not empty")
    found: list[str] = addresses
    return found


def is_texts(things: object) -> bool:
    """Tell whether *things* is a list of texts, which may be empty."""
    return isinstance(things, list) and all(isinstance(each, str) for each in things)


def is_time(value: object) -> bool:
    """Tell whether *value* is a time as this vendor writes it: no zone letter, no fraction."""
    return isinstance(value, str) and _TIME.fullmatch(value) is not None

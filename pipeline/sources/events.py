"""Source `events`: AudiencePoint's own event objects, for programs that speak its model already.

One object, an array, or `{"events": [...]}`. Whoever writes these objects chose every word of them,
so nothing is guessed or repaired: another time format, a wrong type or a missing field is dead,
alone, with the reason. Only three things are forgiven: unknown keys are dropped, a null means that
an optional field is not set, and white space around an address is trimmed, as its hash demands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline import mail_events
from pipeline.addresses import clean, is_hash
from pipeline.deliveries import Delivery
from pipeline.outcomes import (
    EventType,
    Invalid,
    MailEvent,
    Outcome,
    Reason,
    Stage,
    Unreadable,
)
from pipeline.sources import Rules
from pipeline.sources.json_body import as_json, as_sent, check_json, read_json
from pipeline.sources.json_sender import by_token_only

_REQUIRED = ("email", "type", "occurred_at_utc", "send_id")
_OPTIONAL = ("domain", "client", "browser", "os", "device", "ip_address", "user_agent")
_TYPES = {str(kind): kind for kind in EventType}


class Events:
    """The source `events`."""

    name = "events"
    success: Literal[200, 202] = 202
    keeps_headers: frozenset[str] = frozenset()

    def check(self, body: bytes, content_type: str) -> None:
        """Raise `Malformed` unless *body* is JSON."""
        check_json(body)

    verify = staticmethod(by_token_only)

    def parse(self, delivery: Delivery, rules: Rules, now: float) -> list[Outcome]:
        """Return one `MailEvent` or `Invalid` for each object of the body."""
        outcomes = [_outcome(item, now) for item in _items(read_json(delivery.body))]
        return as_sent(outcomes, delivery.body, _items)


EVENTS = Events()


class _WrongField(Exception):
    """A field breaks the model; the message names it."""


def _items(body: object) -> list[object]:
    if isinstance(body, list):
        return body
    if isinstance(body, dict):
        if isinstance(body.get("events"), list):
            return list(body["events"])
        if any(name in body for name in _REQUIRED):
            return [body]
    raise Unreadable(Reason.UNKNOWN_SHAPE, 'neither an event, an array, nor {"events": [...]}')


def _outcome(item: object, now: float) -> Outcome:
    try:
        event = _event(item)
    except _WrongField as wrong:
        return Invalid(Stage.FORWARD, str(wrong), as_json(item))
    error = mail_events.problem(event, now)
    return Invalid(Stage.FORWARD, error, as_json(item)) if error else event


def _event(item: object) -> MailEvent:
    if not isinstance(item, dict):
        raise _WrongField("the event is not an object")
    _check_types(item)
    kind = _TYPES.get(item["type"])
    if kind is None:
        raise _WrongField("type is not one of " + " ".join(_TYPES))
    email = clean(item["email"])
    return MailEvent(
        email=email.lower() if is_hash(email) else email,
        type=kind,
        occurred_at_utc=item["occurred_at_utc"],
        send_id=item["send_id"],
        domain=item.get("domain"),
        client=item.get("client"),
        browser=item.get("browser"),
        os=item.get("os"),
        device=item.get("device"),
        ip_address=item.get("ip_address"),
        user_agent=item.get("user_agent"),
        machine_open=item.get("machine_open") if kind is EventType.OPEN else None,
    )


def _check_types(item: Mapping[str, object]) -> None:
    for name in _REQUIRED:
        if not isinstance(item.get(name), str):
            missing = item.get(name) is None
            raise _WrongField(f"{name} is missing" if missing else f"{name} is not a string")
    for name in _OPTIONAL:
        value = item.get(name)
        if value is not None and not isinstance(value, str):
            raise _WrongField(f"{name} is not a string")
    machine_open = item.get("machine_open")
    if machine_open is not None and not isinstance(machine_open, bool):
        raise _WrongField("machine_open is not a boolean")

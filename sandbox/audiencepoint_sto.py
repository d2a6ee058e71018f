"""AudiencePoint's send time optimisation: up to thirty addresses and a campaign's two ends.

The answer is an array of one object, and its last key is spelled `defaultSendTIme`. What an entry
of an address looks like is told nowhere; the names here are invented.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sandbox.addresses import hash_of, is_valid
from sandbox.audiencepoint_rules import (
    addresses_of,
    at_most_thirty,
    is_time,
    message_of,
    refusal,
)
from sandbox.desk import Answer, Asked, Handle
from sandbox.memory import Memory
from sandbox.people import is_known


def send_times(memory: Memory) -> Handle:
    """`POST /v1/sto`."""

    def handle(asked: Asked) -> Answer:
        message = message_of(asked)
        addresses = addresses_of(message)
        at_most_thirty(addresses, "emailAddresses")
        start, end = (_required_time(message, name) for name in ("startTimeUtc", "endTimeUtc"))
        if end <= start:
            raise refusal("endTimeUtc is not after startTimeUtc")
        default = end + timedelta(minutes=20)
        if message.get("defaultSendTime") is not None:
            default = _required_time(message, "defaultSendTime")
        memory.keep_send_time_request(message)
        told = {
            "emailAddresses": [_timed(each, start, end, default) for each in addresses],
            "startTimeUtc": start.isoformat(),
            "endTimeUtc": end.isoformat(),
            "defaultSendTIme": default.isoformat(),
        }
        return Answer(200, [told], len(addresses))

    return handle


def _required_time(message: dict[str, Any], name: str) -> datetime:
    value = message.get(name)
    if not isinstance(value, str) or not is_time(value):
        raise refusal(f"{name} is required: YYYY-MM-DDThh:mm:ss")
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        raise refusal(f"{name} is no time") from error


def _timed(address: str, start: datetime, end: datetime, default: datetime) -> dict[str, str]:
    """Return a whole hour of the campaign for somebody who is known, else the default."""
    at = default
    if is_valid(address) and is_known(address):
        hours = int((end - start) / timedelta(hours=1)) + 1
        at = start + timedelta(hours=int(hash_of(address)[:8], 16) % hours)
    return {"emailAddress": address, "sendTimeUtc": at.isoformat()}

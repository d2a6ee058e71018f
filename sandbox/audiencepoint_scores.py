"""AudiencePoint's scores: up to thirty addresses, a bare array of texts.

Scores are invented from the address and stay as they are until `settings.scores` changes them, so
that whoever polls finds a change. An address that is set to None is left out of the answer.
"""

from __future__ import annotations

from typing import Any

from sandbox.addresses import hash_of, is_valid
from sandbox.audiencepoint_rules import (
    addresses_of,
    at_most_thirty,
    is_texts,
    message_of,
    refusal,
)
from sandbox.desk import Answer, Asked, Handle
from sandbox.memory import Memory
from sandbox.people import is_known
from sandbox.settings import Settings

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PARTS_OF_DAY = ("Night", "Morning", "Afternoon", "Evening")
_FREQUENCIES = ("Hyper-engaged", "No Limit", "Daily", "Weekly", "Monthly")
_NUMBERS = ("score", "send_time")
_BOOLEANS = ("last_seen_auto_open",)


def scores(memory: Memory, settings: Settings) -> Handle:
    """`POST /v1/scores`."""
    names = list(_scores_of("nobody@example.com"))

    def handle(asked: Asked) -> Answer:
        message = message_of(asked)
        addresses = addresses_of(message)
        at_most_thirty(addresses, "emailAddresses")
        wanted = message.get("scoreSelection") or names
        if not is_texts(wanted) or set(wanted) - set(names):
            raise refusal("scoreSelection names an unknown score")
        memory.keep_score_request(message)
        found = [_scored(each, wanted, settings) for each in addresses]
        told = [_typed(each) if settings.scores_typed else each for each in found if each]
        return Answer(200, told[::-1] if settings.scores_reversed else told, len(addresses))

    return handle


def _scored(address: str, wanted: list[str], settings: Settings) -> dict[str, str] | None:
    """Return one object of the Scores Model: every value is a string."""
    if not is_valid(address):
        return {"emailAddress": address, "matched": "invalid"}
    changed = settings.scores_set(address)
    if changed is None:
        return None
    if not changed and not is_known(address):
        return {"emailAddress": address, "matched": "no"}
    matched = changed.get("matched", "yes")
    if matched != "yes":
        return {"emailAddress": address, "matched": matched}
    told = _scores_of(address) | changed
    chosen = {name: value for name, value in told.items() if name in wanted}
    return {"emailAddress": address, "matched": "yes", **chosen}


def _typed(scored: dict[str, str]) -> dict[str, Any]:
    """Return what another edition of the service might answer: numbers and booleans as such."""
    typed: dict[str, Any] = dict(scored)
    for name in _NUMBERS:
        if name in scored:
            typed[name] = int(scored[name])
    for name in _BOOLEANS:
        if name in scored:
            typed[name] = scored[name] == "TRUE"
    return typed


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

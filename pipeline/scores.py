"""AudiencePoint's Scores Model (APIs 1.5): what one address's scores are, pushed or asked for.

All values are strings in the model, also numbers and truths, so what comes is first of all kept as
text under the vendor's own name (`texts`), unknown fields too, because the next edition of the model
may bring them. `score_of` reads the same as typed values. What may go wrong: AM or PM beside an hour
of a 24-hour clock, numbers that are numbers after all, every field but two left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pipeline.sources.json_body import as_json

ADDRESS = "emailAddress"
MATCHED = "matched"

#: The scores, as `scoreSelection` names them.
NAMES = (
    "domain_owner",
    "best_day_of_week",
    "best_time_of_day",
    "last_touch",
    "send_time",
    "score",
    "frequency",
    "codes",
    "devices",
    "email_clients",
    "first_touch",
    "last_send_no_bounce",
    "last_seen",
    "last_seen_auto_open",
)

#: Any of these names makes an object one address's scores, not an envelope.
MODEL = frozenset((ADDRESS, MATCHED, *NAMES))

_ENVELOPES = ("scores", "events")
_WHOLE = re.compile(r"(\d{1,9})(?:\.0*)?", re.ASCII)
# The model's own form is `2022-12-14 09:04:00 AM`; ISO 8601 is what its next edition might have.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ]+(\d\d?):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?"
    r"(?: *([AP])\.?M\.?)? *(Z|UTC|GMT|[+-][01]\d:?[0-5]\d)?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Score:
    """One address's scores as typed values. None, or an empty tuple: not told, or not readable.

    Times are ISO 8601 in UTC, `YYYY-MM-DDThh:mm:ssZ`.
    """

    address: str
    #: yes, no (never seen), invalid (no address), err (the vendor could not tell)
    matched: str
    domain_owner: str | None = None
    best_day_of_week: str | None = None
    best_time_of_day: str | None = None
    #: the last open or click
    last_touch: str | None = None
    #: the hour of the week, 0 to 167; which day and zone it begins with is not documented
    send_time: int | None = None
    #: 0 to 5: how likely to interact
    score: int | None = None
    frequency: str | None = None
    #: codes of industries
    codes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    email_clients: tuple[str, ...] = ()
    first_touch: str | None = None
    last_send_no_bounce: str | None = None
    #: the last open, click or unsubscribe
    last_seen: str | None = None
    #: whether that was a machine of Apple, Gmail or Yahoo
    last_seen_auto_open: bool | None = None
    #: fields that the model does not have, as they came
    other: Mapping[str, object] = field(default_factory=dict)
    #: every field but the address, as text under the vendor's name
    raw: Mapping[str, str] = field(default_factory=dict)


def items(body: object) -> list[object] | None:
    """Return what a body holds: one object, an array, or one of the envelopes; None for other shapes."""
    if isinstance(body, list):
        return body
    if isinstance(body, dict):
        if not MODEL.isdisjoint(body):
            return [body]
        for envelope in _ENVELOPES:
            if isinstance(body.get(envelope), list):
                return list(body[envelope])
    return None


def texts(item: Mapping[str, object]) -> dict[str, str]:
    """Return every field of *item* but the address as text; null is no field."""
    return {
        name: _text(value) for name, value in item.items() if name != ADDRESS and value is not None
    }


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"  # as the model spells last_seen_auto_open
    return as_json(value).decode()


def score_of(address: str, item: Mapping[str, object]) -> Score:
    """Return the scores of *address* that *item* tells; without `matched` the vendor could not tell."""
    raw = texts(item)
    return Score(
        address=address,
        matched=raw.get(MATCHED, "").strip().lower() or "err",
        domain_owner=_word(raw, "domain_owner"),
        best_day_of_week=_word(raw, "best_day_of_week"),
        best_time_of_day=_word(raw, "best_time_of_day"),
        last_touch=utc_time(raw.get("last_touch", "")),
        send_time=_whole(raw, "send_time", most=167),
        score=_whole(raw, "score", most=5),
        frequency=_word(raw, "frequency"),
        codes=_words(item, raw, "codes"),
        devices=_words(item, raw, "devices"),
        email_clients=_words(item, raw, "email_clients"),
        first_touch=utc_time(raw.get("first_touch", "")),
        last_send_no_bounce=utc_time(raw.get("last_send_no_bounce", "")),
        last_seen=utc_time(raw.get("last_seen", "")),
        last_seen_auto_open=_truth(raw, "last_seen_auto_open"),
        other={name: value for name, value in item.items() if name not in MODEL},
        raw=raw,
    )


def _word(raw: Mapping[str, str], name: str) -> str | None:
    return raw.get(name, "").strip() or None


def _words(item: Mapping[str, object], raw: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the parts of a pipe-delimited text, or of an array."""
    value = item.get(name)
    parts = map(_text, value) if isinstance(value, list) else raw.get(name, "").split("|")
    return tuple(part.strip() for part in parts if part.strip())


def _whole(raw: Mapping[str, str], name: str, most: int) -> int | None:
    """Return a whole number from 0 to *most*, written as the model's string or as a number."""
    found = _WHOLE.fullmatch(raw.get(name, "").strip())
    return int(found[1]) if found and int(found[1]) <= most else None


def _truth(raw: Mapping[str, str], name: str) -> bool | None:
    return {"true": True, "false": False}.get(raw.get(name, "").strip().lower())


def utc_time(text: str) -> str | None:
    """Return a time of the model as ISO 8601 in UTC; None for what is none.

    Whether its clock has 12 or 24 hours is not documented: AM and PM count up to hour 12 and not
    beyond it, so that `18:04:00 PM`, and even `18:04:00 AM`, is 18:04. A time without zone is UTC.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    day, hours, minutes, seconds, half, zone = found.groups()
    hour = int(hours)
    if half and hour <= 12:
        hour = hour % 12 + (12 if half in "Pp" else 0)
    try:
        local = datetime.fromisoformat(f"{day}T{hour:02}:{minutes}:{seconds or '00'}")
        moment = local - _offset(zone or "Z")
    except (ValueError, OverflowError):  # the 30th of February, 25:00, before the year 1
        return None
    return f"{moment.isoformat()}Z"


def _offset(zone: str) -> timedelta:
    """Return how far *zone* is ahead of UTC."""
    if zone.isalpha():
        return timedelta()
    digits = zone[1:].replace(":", "")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -ahead if zone[0] == "-" else ahead

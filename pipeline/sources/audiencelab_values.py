"""Single values as AudienceLab spells them: unknown markers, lists in one string, addresses, times.

Everything is text on this wire, and unknown is spelt in four ways: an empty string, a null, the
word `null`, and the `{{PLACEHOLDER}}` of a workflow template that was never rendered. What may go
wrong here is silent: an "" taken for a fact overwrites one, and a company name split at its comma
is two companies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import orjson

from pipeline.addresses import is_address, is_hash, normal

#: seen on the wire as seconds and as milliseconds, both also as text
UNIX_TIME = re.compile(r"\d{9,13}(?:\.\d{1,6})?")
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")
#: a second count this large lies after the year 5000: it is milliseconds
FIRST_MILLISECONDS = 100_000_000_000
NOT_A_DIGIT = re.compile(r"[^0-9]+")
SHORTEST_PHONE = 7


def text(value: object) -> str | None:
    """Return *value* as trimmed text (JSON text of a list or object), None when it says nothing."""
    if isinstance(value, str):
        known = value.strip()
        # sixty times an event: the first character rules out nearly every placeholder
        if not known or known == "null" or (known[0] == "{" and _is_placeholder(known)):
            return None
        return known
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return _json_text(value)


def _is_placeholder(known: str) -> bool:
    return known.startswith("{{") and known.endswith("}}")


def _json_text(value: object) -> str | None:
    if not value:
        return None
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        # it reads a thousand levels deep but writes 254; nothing of this vendor is nested so
        return None


def texts(value: object) -> list[str]:
    """Return the known parts of a multi-value column: `a, b`, `a,b`, or a JSON list."""
    parts = aligned_texts(value)
    return [part for part in parts if part] if "" in parts else parts


def aligned_texts(value: object) -> list[str]:
    """Like `texts`, but an unknown part between others stays as an empty one.

    Phone columns and their `_DNC` columns are read side by side: were a gap closed in one of them,
    a number would take over its neighbour's permission to be called.
    """
    if isinstance(value, list):
        parts = [text(part) or "" for part in value]
    elif whole := text(value):
        parts = [part.strip() for part in whole.split(",")]
        if "null" in whole or "{{" in whole:
            parts = [text(part) or "" for part in parts]
    else:
        return []
    return parts if any(parts) else []


def as_hash(value: object) -> str | None:
    """Return 64 lower-case hex digits, or None: documentation samples say `abc123` here."""
    known = normal(value) if isinstance(value, str) else ""
    return known if is_hash(known) else None


def addresses(parts: Iterable[str]) -> list[str]:
    """Return the plausible e-mail addresses among *parts*: lower-cased, once each, in order."""
    return [part for part in dict.fromkeys(map(normal, parts)) if _is_plausible(part)]


def _is_plausible(part: str) -> bool:
    # a template rendered by half still has its braces
    return "{{" not in part and is_address(part)


def hashes(parts: Iterable[str]) -> list[str]:
    """Return the SHA-256 values among *parts*, lower-cased, once each, in their order."""
    return list(dict.fromkeys(part.lower() for part in parts if is_hash(part)))


def phones(parts: Iterable[str]) -> list[str]:
    """Return the parts with enough digits to be a number, once each, spelt as they came."""
    return [part for part in dict.fromkeys(parts) if _digits(part) >= SHORTEST_PHONE]


def _digits(part: str) -> int:
    return len(NOT_A_DIGIT.sub("", part))


def instant(value: object) -> datetime | None:
    """Return the time *value* names, in UTC: ISO-8601 (UTC without an offset) or Unix time."""
    known = text(value) if isinstance(value, str | int | float) else None
    if known is None:
        return None
    try:
        if ISO_TIME.match(known):
            return _in_utc(datetime.fromisoformat(known))
        return _from_unix(float(known)) if UNIX_TIME.fullmatch(known) else None
    except (ValueError, OverflowError):
        return None


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _from_unix(seconds: float) -> datetime:
    return datetime.fromtimestamp(
        seconds / 1000 if seconds >= FIRST_MILLISECONDS else seconds, tz=UTC
    )


def spell(time: datetime) -> str:
    """Return *time* as ISO-8601 UTC with `Z`, one spelling per instant: no zero fraction."""
    return time.isoformat().replace("+00:00", "Z")


def json_inside(value: object) -> object:
    """Return *value*, read as JSON when it is text: segment rows carry objects in a string."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None

"""A mail event on its way out: what would be refused, the bytes that leave, what identifies it.

AudiencePoint answers 200 as soon as a batch is queued and says nothing afterwards (APIs 1.5, Event
Ingestion), so every rule of the event model is checked here before sending: one wrong event must
lie in the dead letters alone and never poison the twenty-nine others. All of it is on the hot path.
"""

from __future__ import annotations

import re
import socket
from datetime import date
from functools import lru_cache
from hashlib import blake2b
from math import isfinite
from typing import Literal

import orjson

from pipeline.addresses import clean, digest, domain_of, is_address, is_hash
from pipeline.outcomes import EventType, MailEvent

EmailFormat = Literal["sha256", "plain"]

# A day of slack for wrong clocks and unlabelled zones.
_FURTHEST_AHEAD_S = 24 * 60 * 60
_AHEAD = "occurred_at_utc is more than 24 hours ahead"
# The model names no limit. A Message-ID is within one line of a header, which has at most so many characters:
# https://www.rfc-editor.org/rfc/rfc5322#section-2.1.1
_LONGEST_SEND_ID = 998
# Free texts are cut: a user agent can be of any length.
_LONGEST_TEXT = 1024

_TYPES = frozenset(str(kind) for kind in EventType)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)", re.ASCII)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_NUMBER = re.compile(r"(\d{1,25})(?:\.\d{0,25})?", re.ASCII)
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,]\d{1,25})?)?"
    r" ?(?:Z|UTC|GMT|([+-])([01]\d|2[0-3])(?::?([0-5]\d))?)?",
    re.ASCII | re.IGNORECASE,
)
# as nearly every sender that writes a date writes it: then the text is the answer
_UTC = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:[.,]\d{1,25})?"
    r"(?: ?(?:Z|UTC|[+-]00:?00))?",
    re.ASCII,
)
_DAY_S = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_SECONDS = [f":{number:02}" for number in range(60)]
# a number above it tells of smaller parts than seconds
_MOST_S = 100_000_000_000
# no calendar has seconds before and after these
_FIRST_S = (date.min.toordinal() - _EPOCH_DAY) * _DAY_S
_LAST_S = (date.max.toordinal() - _EPOCH_DAY + 1) * _DAY_S - 1


def problem(event: MailEvent, now: float) -> str | None:
    """Return why AudiencePoint would refuse *event*, without personal data; None when it is right.

    *now* is Unix time in seconds.
    """
    return _problem_but_time(event) or _time_problem(event.occurred_at_utc, now)


def problem_of_sender(event: MailEvent, now: float, *, has_address: bool) -> str | None:
    """Return the `problem` of *event*, whose type is one, whose id is not empty, whose time `utc_second` wrote.

    *has_address* when its address was found to be one (`is_address`) already.
    """
    is_usual = has_address and len(event.send_id) <= _LONGEST_SEND_ID and event.send_id.isascii()
    if not is_usual and (error := _problem_but_time(event)):
        return error
    # texts of one form are in the order of time
    return _AHEAD if event.occurred_at_utc > _latest(int(now)) else None


def _problem_but_time(event: MailEvent) -> str | None:
    if not (is_address(event.email) or is_hash(event.email)):
        return "email is neither an address nor 64 hex digits"
    if event.type not in _TYPES:
        return "type is not one of " + " ".join(EventType)
    if not event.send_id.strip():
        return "send_id is missing or empty"
    if len(event.send_id) > _LONGEST_SEND_ID:
        return f"send_id is longer than {_LONGEST_SEND_ID} characters"
    if not event.send_id.isascii() and _SURROGATES.search(event.send_id):
        return "send_id is not valid Unicode"
    return None


def wire(event: MailEvent, email_format: EmailFormat) -> bytes:
    """Return the JSON object that leaves for AudiencePoint: the fields of its model that are set.

    *event* has no `problem`. With `sha256` a plain address leaves as its hash and with its domain;
    with `plain` an address that is known only as a hash stays one.
    """
    hashed = is_hash(event.email)
    to_hash = hashed or email_format == "sha256"
    fields: dict[str, object] = {
        "email": digest(event.email) if to_hash else clean(event.email),
        "type": event.type,
        "occurred_at_utc": event.occurred_at_utc,
        "send_id": event.send_id,
    }
    if domain := domain_of(event.email) if to_hash and not hashed else event.domain:
        _put_text(fields, "domain", domain)
    if event.client:
        _put_text(fields, "client", event.client)
    if event.browser:
        _put_text(fields, "browser", event.browser)
    if event.os:
        _put_text(fields, "os", event.os)
    if event.device:
        _put_text(fields, "device", event.device)
    if event.ip_address and (ip := valid_ip(event.ip_address)):
        fields["ip_address"] = ip
    if event.user_agent:
        _put_text(fields, "user_agent", event.user_agent)
    if event.machine_open is not None and event.type == EventType.OPEN:
        fields["machine_open"] = event.machine_open
    return orjson.dumps(fields)


def is_hashed(event: MailEvent, email_format: EmailFormat) -> bool:
    """Tell whether the address leaves as a hash: plain and hashed ones never share a batch."""
    return email_format == "sha256" or is_hash(event.email)


def fingerprint(source: str, event: MailEvent) -> str:
    """Return what makes *event* the same when it comes again: 32 hex digits.

    The sender's own id alone would not do: one call of some senders tells of several recipients
    under one id. Where there is none, the message's id takes its place.
    """
    kind, ident = ("p", event.provider_id) if event.provider_id else ("s", event.send_id)
    # the free text stands last, so that nothing in it can be taken for another part
    parts = f"{source}\n{event.type}\n{digest(event.email)}\n{event.occurred_at_utc}\n{kind}{ident}"
    return blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def valid_ip(text: str) -> str | None:
    """Return *text* trimmed when it is an IPv4 or IPv6 address, else None."""
    ip = text.strip()
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    except (OSError, ValueError):
        return None
    return ip


def utc_second(value: object) -> str | None:
    """Return a sender's time as `YYYY-MM-DDThh:mm:ss` in UTC; None when it is no time (see `unix_second`)."""
    if isinstance(value, str):
        match = _UTC.fullmatch(value)
        if match and _midnight(match[1]) is not None:
            return value[:19].replace(" ", "T")
    elif (type(value) is int or type(value) is float) and 0 < value <= _MOST_S:
        return iso_second(int(value))
    second = unix_second(value)
    return None if second is None else iso_second(second)


def unix_second(value: object) -> int | None:
    """Return a sender's time in Unix seconds, floored; None when it is no time, or not within the years 1 to 9999.

    Takes Unix time in s, ms, µs or ns, told apart by magnitude, as a number or as text (SendGrid's
    Single Send sample and Brevo's `ts_epoch` are in ms where others are in s), and ISO-8601 with
    any fraction; an offset is respected, no zone means UTC.
    """
    if isinstance(value, str):
        second = _from_text(value.strip())
    elif type(value) is int or (type(value) is float and isfinite(value)):  # a bool is no time
        second = _from_unix(value)
    else:
        return None
    return second if second is not None and _FIRST_S <= second <= _LAST_S else None


def iso_second(second: int) -> str:
    """Return the Unix *second* as `YYYY-MM-DDThh:mm:ss`; `unix_second` has returned it."""
    return _minute(second // 60) + _SECONDS[second % 60]


@lru_cache(maxsize=4096)  # of the many events of a campaign most fall into a few
def _minute(number: int) -> str:
    day, in_day = divmod(number, 24 * 60)
    on = date.fromordinal(_EPOCH_DAY + day).isoformat()
    return f"{on}T{in_day // 60:02}:{in_day % 60:02}"


@lru_cache(maxsize=8)
def _latest(now: int) -> str:
    return iso_second(now + _FURTHEST_AHEAD_S)


def _time_problem(occurred_at_utc: str, now: float) -> str | None:
    match = _TIME.fullmatch(occurred_at_utc)
    if match is None:
        return "occurred_at_utc is not YYYY-MM-DDThh:mm:ss"
    day, hour, minute, second = match.groups()
    midnight = _midnight(day)
    if midnight is None:
        return "occurred_at_utc is not a date of the calendar"
    if midnight + int(hour) * 3600 + int(minute) * 60 + int(second) > now + _FURTHEST_AHEAD_S:
        return _AHEAD
    return None


@lru_cache(maxsize=1024)  # events of one hour share a day or two
def _midnight(day: str) -> int | None:
    try:
        return (date.fromisoformat(day).toordinal() - _EPOCH_DAY) * _DAY_S
    except ValueError:
        return None


def _put_text(fields: dict[str, object], name: str, text: str) -> None:
    if not text.isprintable():
        text = _CONTROLS.sub("", text)
    text = text.strip()[:_LONGEST_TEXT]
    if text:
        fields[name] = text


def _from_text(text: str) -> int | None:
    if text[4:5] != "-":  # as every date has it, and no number
        number = _NUMBER.fullmatch(text)
        return _from_unix(int(number[1])) if number else None
    match = _ISO.fullmatch(text)
    midnight = _midnight(match[1]) if match else None
    if match is None or midnight is None:
        return None
    _, hour, minute, second, sign, off_hours, off_minutes = match.groups()
    found = midnight + int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if sign:
        offset = int(off_hours) * 3600 + int(off_minutes or 0) * 60
        found += -offset if sign == "+" else offset
    return found


def _from_unix(number: float) -> int | None:
    # zero and below is a sender's "no time", never the time of a mail
    if number <= 0:
        return None
    if number <= _MOST_S:
        return int(number)
    per_second = 1_000
    if number > 1e17:
        per_second = 1_000_000_000
    elif number > 1e14:
        per_second = 1_000_000
    # // keeps integers exact: nanoseconds do not fit a float
    return int(number // per_second)

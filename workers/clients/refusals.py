"""Turns an answer that is not a success into the failure it means: one table, no I/O.

AudiencePoint documents no status and no error body; the table follows what AWS API Gateway, which
seems to stand in front of it, answers. AudienceLab has four error shapes. What may go wrong: 403
has two meanings (key, or path), 429 has two (rate, or quota), and vendors echo what they were sent,
so their words are masked before they are kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from pipeline.addresses import mask
from workers.clients.errors import (
    CallFailed,
    Misconfigured,
    QuotaExceeded,
    Rejected,
    Unavailable,
    UnknownField,
)
from workers.clients.messages import Answer

#: The contract allows a dead letter 500 characters of error.
LONGEST_SENTENCE = 500

#: A vendor that asks for more than a day is wrong, or is about to change its mind.
LONGEST_RETRY_AFTER_S = 24 * 3600.0

# The year 5138 in seconds; in milliseconds it is 1973. A larger number is milliseconds.
_LATEST_UNIX_TIME = 100_000_000_000

# Enough of a body to find its words, little enough to search: gateways answer whole HTML pages.
_READ_CHARACTERS = 16_384

_QUOTA_WORDS = frozenset({"limit exceeded", "limit exceeded."})
_UNKNOWN_PATH_WORDS = "missing authentication token"
_UNKNOWN_FIELD_WORDS = "unknown field"

# Both vendors' key shapes; telephone numbers: 10 to 15 digits in a row, so that times survive.
_SECRETS = re.compile(r"\bsk_[\w-]{8,}|\b\d+:[A-Za-z0-9]{40}\b")
# Our own hooks, whose address is a key: `/hooks/pixel/TOKEN`.
_HOOKS = re.compile(r"(/hooks/[\w-]+/)[\w-]+")
_NUMBERS = re.compile(r"(?<!\w)\+?\d{10,15}(?!\w)")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_SECONDS = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def failure(
    answer: Answer,
    vendor: str,
    path: str,
    *,
    path_setting: str,
    now: Callable[[], float] = time.time,
) -> CallFailed:
    """Return the failure that *answer* means; the caller raises it.

    *vendor* is `AudiencePoint` or `AudienceLab`; in capitals it begins the names of its settings.
    *path_setting* is the setting to look at when the vendor does not know *path*.
    """
    kind, sentence = _judge(answer, vendor, path, path_setting)
    return kind(
        _cut(sentence),
        status=answer.status,
        retry_after_s=_wait_s(answer, now),
        # 504: the gateway gave up on a backend that may yet finish. 2xx: something took it.
        maybe_stored=answer.status == 504 or answer.is_success,
    )


def _judge(
    answer: Answer, vendor: str, path: str, path_setting: str
) -> tuple[type[CallFailed], str]:
    """Return the kind of failure and its sentence."""
    own_words = words(answer)
    said = f'{answer.status}: "{own_words}"' if own_words else str(answer.status)
    wrong_path = f"{vendor} does not know the path {path} ({said}): check {path_setting}"
    match answer.status:
        case 403 if _is_unknown_path(answer, own_words):
            return Misconfigured, wrong_path
        case 401 | 403:
            key_setting = f"{vendor.upper()}_API_KEY"
            return Misconfigured, f"{vendor} refuses the key ({said}): check {key_setting}"
        case 404 | 405 | 410:
            return Misconfigured, wrong_path
        case _ if 300 <= answer.status < 400:
            url_setting = f"{vendor.upper()}_BASE_URL"
            there = f"it is not followed, set {url_setting} to where it leads"
            return Misconfigured, f"{vendor} answers with a redirect ({said}): {there}"
        case 415:
            return Misconfigured, f"{vendor} takes no JSON at {path} ({said}): check {path_setting}"
        case 402:
            return QuotaExceeded, f"{vendor} wants to be paid first ({said})"
        case 429 if _is_quota(answer, own_words):
            return QuotaExceeded, f"{vendor}'s quota is used up ({said})"
        case 429:
            return Unavailable, f"{vendor} asks for fewer requests ({said})"
        # 407 is a proxy's, 408 and 425 ask for the same again: none is about what was sent.
        case status if status < 400 or status >= 500 or status in (407, 408, 425):
            missing = " without the expected keys" if answer.is_success else ""
            return Unavailable, f"{vendor} gave no usable answer{missing} ({said})"
        case 400 if _UNKNOWN_FIELD_WORDS in own_words.lower():
            return UnknownField, f"{vendor} does not know this form of request ({said})"
        case _:
            return Rejected, f"{vendor} refused the request ({said})"


def _is_unknown_path(answer: Answer, own_words: str) -> bool:
    """Whether a 403 is API Gateway's odd way to say that there is no such path or method."""
    error_type = answer.headers.get("x-amzn-errortype", "")
    return error_type.startswith("MissingAuthenticationToken") or (
        _UNKNOWN_PATH_WORDS in own_words.lower()
    )


def _is_quota(answer: Answer, own_words: str) -> bool:
    """Whether a 429 is the quota's. Exact words: "Rate limit exceeded" is only the rate."""
    error_type = answer.headers.get("x-amzn-errortype", "")
    return error_type.startswith("LimitExceeded") or own_words.lower() in _QUOTA_WORDS


def words(answer: Answer) -> str:
    """Return the vendor's own words, masked, on one line, at most `LONGEST_SENTENCE` characters.

    From a 2xx only a proper error message is taken: its other content is about people.
    """
    found = _message(answer.members())
    if not found and not answer.is_success:
        found = answer.body[:_READ_CHARACTERS].decode("utf-8", "replace")
    found = _BLANKS.sub(" ", found[:_READ_CHARACTERS]).strip()
    for secret in sorted(answer.secrets, key=len, reverse=True):
        found = found.replace(secret, "[key]")
    found = _HOOKS.sub(r"\1[token]", _SECRETS.sub("[key]", found))
    return mask(_NUMBERS.sub("[number]", found), LONGEST_SENTENCE)


def _message(members: Mapping[str, object]) -> str:
    """Return the message of any known error shape, or an empty text.

    `{"error": {"code", "message"}}`, `{"error": "…"}`, `{"message": …}`, `{"status": …}` are
    AudienceLab's; `{"message"}`, `{"__type", "message"}`, `{"errorMessage"}` AWS's.
    """
    error = members.get("error")
    if isinstance(error, dict):
        parts = (error.get("code"), error.get("message"))
        return ": ".join(part for part in parts if isinstance(part, str) and part)
    names = ("message", "Message", "errorMessage", "status")
    candidates = (error, *(members.get(name) for name in names))
    return next((text for text in candidates if isinstance(text, str) and text), "")


def _wait_s(answer: Answer, now: Callable[[], float]) -> float | None:
    """Return the seconds that the vendor asks us to wait, or None."""
    wanted = retry_after_s(answer.headers, now)
    return reset_s(answer, now) if wanted is None and answer.status == 429 else wanted


def reset_s(answer: Answer, now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds until `X-RateLimit-Reset`, at most a day; None without a plausible one.

    Up to a day's worth is seconds, more is a Unix time in seconds or milliseconds. One that is
    further away than a day, or more than an hour past, is nonsense and says nothing.
    """
    limit = answer.rate_limit
    if limit is None or limit.reset is None:
        return None
    if limit.reset <= LONGEST_RETRY_AFTER_S:
        return limit.reset
    until = limit.reset / 1000 if limit.reset > _LATEST_UNIX_TIME else limit.reset
    its_time = _unix_time(answer.headers.get("date", ""))
    wait = until - (now() if its_time is None else its_time)
    return _clamp(wait) if -3600 <= wait <= LONGEST_RETRY_AFTER_S else None


def retry_after_s(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that `Retry-After` asks for, between 0 and a day; None without one.

    Both forms of RFC 9110, section 10.2.3. A date is read against the answer's own `Date`, when it
    has one, because the two clocks may differ.
    """
    wanted = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(wanted):
        return _clamp(float(wanted))
    until = _unix_time(wanted)
    if until is None:
        return None
    since = _unix_time(headers.get("date", ""))
    return _clamp(until - (now() if since is None else since))


def _unix_time(http_date: str) -> float | None:
    """Return the Unix time of an HTTP date, or None."""
    try:
        moment = parsedate_to_datetime(http_date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    # The parser of the standard library lets all four out, depending on the nonsense it is given.
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _clamp(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def _cut(sentence: str) -> str:
    if len(sentence) <= LONGEST_SENTENCE:
        return sentence
    return sentence[: LONGEST_SENTENCE - 1] + "…"

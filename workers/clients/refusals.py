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
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import ceil
from urllib.parse import urlsplit

from pipeline.addresses import mask
from workers.clients.errors import (
    LONGEST_SENTENCE,
    CallFailed,
    Misconfigured,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unavailable,
    UnknownField,
)
from workers.clients.messages import NO_JSON, Answer

#: Characters of a host that is told. No name that resolves is longer than 253.
LONGEST_HOST = 262

#: A vendor that asks for more than a day is wrong, or is about to change its mind.
LONGEST_RETRY_AFTER_S = 24 * 3600.0

# The year 5138 in seconds; in milliseconds it is 1973. A larger number is milliseconds.
_LATEST_UNIX_TIME = 100_000_000_000

# Enough of a body to find its words, little enough to search: gateways answer whole HTML pages.
_READ_CHARACTERS = 16_384

_QUOTA_WORDS = frozenset({"limit exceeded", "limit exceeded."})
_UNKNOWN_PATH_WORDS = "missing authentication token"
_UNKNOWN_FIELD_WORDS = "unknown field"

# Bodies that say nothing, which a gateway sends for want of words.
_NO_WORDS = frozenset({"null", "{}", "[]", '""'})

_SHAPES: dict[type, str] = {list: "a list", str: "a text", type(None): "null"}

# Both vendors' key shapes; telephone numbers: 10 to 15 digits in a row, so that times survive.
_SECRETS = re.compile(r"\bsk_[\w-]{8,}|\b\d+:[A-Za-z0-9]{40}\b")
# Our own hooks, whose address is a key: `/hooks/pixel/TOKEN`.
_HOOKS = re.compile(r"(/hooks/[\w-]+/)[\w-]+")
_NUMBERS = re.compile(r"(?<!\w)\+?\d{10,15}(?!\w)")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
# `ThrottlingException`, `ProvisionedThroughputExceededException`, perhaps with a namespace and `#` before it
_TOO_MUCH = re.compile(r"Throttl|ThroughputExceeded|TooManyRequests|RequestLimitExceeded")
_SECONDS = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def failure(
    answer: Answer,
    vendor: str,
    path: str,
    *,
    path_setting: str,
    changes: bool = False,
    now: Callable[[], float] = time.time,
) -> CallFailed:
    """Return the failure that *answer* means; the caller raises it.

    *vendor* is `AudiencePoint` or `AudienceLab`; in capitals it begins the names of its settings.
    *path_setting* is the setting to look at when the vendor does not know *path*. *changes* says
    that the call makes or deletes something: a 5xx, which may come after that was done, leaves
    unclear whether it was.
    """
    wait_s = _wait_s(answer, now)
    call = _Call(answer, vendor, path, path_setting, wait_s)
    own_words = words(answer)
    kind, sentence = call.judge(own_words)
    if (over := len(sentence) - LONGEST_SENTENCE) > 0:  # what to do stands behind the words
        sentence = call.judge(own_words, f"{own_words[: -over - 1]}…")[1]
    return kind(
        _cut(sentence),
        status=answer.status,
        retry_after_s=wait_s,
        # 504: the gateway gave up on a backend that may yet finish. 2xx: something took it.
        maybe_stored=answer.is_success or answer.status == 504 or (changes and answer.status > 499),
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """An answer that is not a success, and what was asked for."""

    answer: Answer
    vendor: str
    path: str
    path_setting: str
    wait_s: float | None

    def judge(self, own_words: str, quoted: str | None = None) -> tuple[type[CallFailed], str]:
        """Return the kind of failure and its sentence, which has *own_words* as they are *quoted*."""
        status, vendor = self.answer.status, self.vendor
        quoted = own_words if quoted is None else quoted
        said = f'{status}: "{quoted}"' if quoted else str(status)
        if (sentence := self._misconfigured(own_words.lower(), said)) is not None:
            return Misconfigured, sentence
        match status:
            case 402:
                return QuotaExceeded, f"{vendor} wants to be paid first ({said})"
            case 429 if _is_quota(self.answer, own_words):
                until = "" if self.wait_s is None else f" for {_span(self.wait_s)}"
                return QuotaExceeded, f"{vendor}'s quota is used up{until} ({said})"
            case 429:
                return Throttled, self._unavailable(said, has_words=bool(own_words))
            # 407 is a proxy's, 408 and 425 ask for the same again: none is about what was sent.
            case _ if status < 400 or status >= 500 or status in (407, 408, 425):
                return Unavailable, self._unavailable(said, has_words=bool(own_words))
            case 400 if _is_throttled(self.answer):
                return Throttled, self._unavailable(said, has_words=bool(own_words))
            case 400 if _UNKNOWN_FIELD_WORDS in own_words.lower():
                return UnknownField, f"{vendor} does not know this form of request ({said})"
            case _:
                return Rejected, f"{vendor} refused the request ({said})"

    def _misconfigured(self, own_words: str, said: str) -> str | None:
        """Return the sentence of an answer that only another setting can change; else None."""
        status, vendor = self.answer.status, self.vendor
        check_path = f"check {self.path_setting}"
        if status in (404, 405, 410) or (
            status == 403 and _is_unknown_path(self.answer, own_words)
        ):
            return f"{vendor} does not know the path {self.path} ({said}): {check_path}"
        if status in (401, 403):
            return f"{vendor} refuses the key ({said}): check {vendor.upper()}_API_KEY"
        if status == 415:
            return f"{vendor} takes no JSON at {self.path} ({said}): {check_path}"
        if 300 <= status < 400:
            there = f"it is not followed, set {self._url_setting} to where it leads"
            where = _host_of(self.answer.headers.get("location", ""))
            return f"{vendor} answers with a redirect{where} ({said}): {there}"
        return None

    def _unavailable(self, said: str, *, has_words: bool) -> str:
        """Return the sentence of an answer that may be another the next time."""
        vendor, status = self.vendor, self.answer.status
        asks = "" if self.wait_s is None else f" to wait {_span(self.wait_s)}"
        if status == 429:
            return f"{vendor} asks for fewer requests{asks and f', and{asks}'} ({said})"
        if status in (407, 511):
            proxy = f"a proxy on the way to {vendor} wants a sign-in ({said})"
            return f"{proxy}: check HTTPS_PROXY and {self._url_setting}"
        if not self.answer.is_success:
            return f"{vendor} gave no usable answer{asks and f', and asks{asks}'} ({said})"
        came = f"{vendor} gave no usable answer, but {_what_came(self.answer)} ({said})"
        if has_words:  # a failure that the service passes through
            return came
        return f"{came}: check {self._url_setting}, and whether a proxy stands in the way"

    @property
    def _url_setting(self) -> str:
        return f"{self.vendor.upper()}_BASE_URL"


def _what_came(answer: Answer) -> str:
    """Return in words what came in place of the JSON that was due, and from which host."""
    decoded, body = answer.decoded(), answer.body.lstrip()
    if isinstance(decoded, dict):
        what = "JSON without the expected keys"
    elif decoded is not NO_JSON:
        what = f"JSON of another shape, {_SHAPES.get(type(decoded), 'a single value')},"
    elif not body:
        what = "an empty body"
    elif body[:1] in (b"{", b"["):
        what = "JSON that breaks off"
    else:
        what = "HTML, not JSON," if body[:1] == b"<" else "a text, not JSON,"
    return f"{what} from {answer.host}" if answer.host else what.rstrip(",")


def _host_of(location: str) -> str:
    """Return in words where a redirect leads: the host only, the rest may be a secret."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return f" to {mask(f'{parts.scheme}://{host}', LONGEST_HOST)}" if host and parts.scheme else ""


def _span(seconds: float) -> str:
    """Return a wait in words: seconds up to five minutes, minutes up to two hours, then hours."""
    if seconds <= 300:
        return f"{ceil(seconds)} s"
    return f"{ceil(seconds / 60)} min" if seconds <= 7200 else f"{ceil(seconds / 3600)} h"


def _is_unknown_path(answer: Answer, own_words: str) -> bool:
    """Whether a 403 is API Gateway's odd way to say that there is no such path or method."""
    error_type = answer.headers.get("x-amzn-errortype", "")
    return error_type.startswith("MissingAuthenticationToken") or (_UNKNOWN_PATH_WORDS in own_words)


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
        found = "" if found.strip() in _NO_WORDS else found
    found = _BLANKS.sub(" ", found[:_READ_CHARACTERS]).strip()
    for secret in sorted(answer.secrets, key=len, reverse=True):
        found = found.replace(secret, "[key]")
    found = _HOOKS.sub(r"\1[token]", _SECRETS.sub("[key]", found))
    return mask(_NUMBERS.sub("[number]", found), LONGEST_SENTENCE)


def _is_throttled(answer: Answer) -> bool:
    """Tell whether a 400 is of AWS's services, which say so that too much was asked for.

    https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html
    """
    kind = answer.members().get("__type") or answer.headers.get("x-amzn-errortype")
    return isinstance(kind, str) and bool(_TOO_MUCH.search(kind))


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

"""What an export holds: which visitors, which facts of them, and how these are written. Nothing here needs Redis.

JSON Lines are exact: every value as it is kept. CSV is for people and their spreadsheets, which take a cell that
begins with `=`, `+`, `-`, `@` or white space for a formula or swallow it, and a sender or a visitor may have put it
there; so such a cell gets an apostrophe in front, also a telephone number with its plus.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from io import StringIO
from typing import Protocol

import orjson

from pipeline.scores import MATCHED, NAMES, Score, score_of
from pipeline.sources.audiencelab_columns import COLUMNS as OF_AUDIENCELAB
from pipeline.visitors import Visitor

# "CSV Injection" of OWASP names the signs and their full-width twins; what cannot be seen may stand before them
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_UNKNOWN = Score(address="", matched="err")
BETWEEN = "|"
"""Stands between the values of a list in one cell, as in AudiencePoint's own lists."""


class Row:
    """One visitor of an export."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor

    @cached_property
    def score(self) -> Score | None:
        """Return the scores as typed values, read when they are asked for; None when there are none."""
        address = self.visitor.identified_address() or ""
        return score_of(address, self.visitor.scores) if self.visitor.scores else None


# which facts ----------------------------------------------------------------------------------------------

Read = Callable[[Row], object]


def _of_visitor(name: str) -> Read:
    return lambda row: getattr(row.visitor, name)


def _of_score(name: str) -> Read:
    return lambda row: getattr(row.score, name, None)


def _of_audiencelab(name: str) -> Read:
    return lambda row: row.visitor.fields.get(name)


_KEPT = """
    id uuid edid hem_sha256 emails personal_emails business_emails verified_emails digests hashes phones tags
    sources pages first_seen_at last_seen_at scores_changed_at enrichment enriched_at
"""
_OTHER_NAMES = {"UUID", "EDID", "HEM_SHA256", "EMAIL_RAW"}
_FIELDS = {each.name for each in OF_AUDIENCELAB.values() if each.says_who} - _OTHER_NAMES

#: every column there is, by its name: what the relay keeps, AudiencePoint's scores, AudienceLab's fields in capitals
COLUMNS: Mapping[str, Read] = {
    **{name: _of_visitor(name) for name in _KEPT.split()},
    "address": lambda row: row.visitor.identified_address(),
    **{name: _of_score(name) for name in (MATCHED, *NAMES)},
    **{name: _of_audiencelab(name) for name in sorted(_FIELDS)},
}

#: the columns of a CSV for which none are named
USUAL = (
    *(
        "id",
        "address",
        "FIRST_NAME",
        "LAST_NAME",
        "COMPANY_NAME",
        "tags",
        "first_seen_at",
        "last_seen_at",
    ),
    *(
        "matched",
        "score",
        "frequency",
        "send_time",
        "best_day_of_week",
        "best_time_of_day",
        "last_seen",
    ),
    "scores_changed_at",
)


# which visitors -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Which visitors are meant; each part that is set must hold. Times are Unix milliseconds.

    Whoever has no score, no time, no frequency is none of those that a filter on it means.
    """

    changed_since_ms: int | None = None
    score_min: int | None = None
    score_max: int | None = None
    #: any of them, the case ignored
    frequencies: tuple[str, ...] = ()
    #: AudiencePoint's `last_seen`: the last open, click or unsubscribe anywhere
    seen_since_ms: int | None = None
    seen_before_ms: int | None = None
    #: the last sighting at one's own sites
    visited_since_ms: int | None = None
    visited_before_ms: int | None = None
    #: any of them
    tags: tuple[str, ...] = ()

    def admits(self, row: Row) -> bool:
        """Tell whether *row* is meant."""
        visitor = row.visitor
        return (
            _is_in(visitor.scores_changed_at, self.changed_since_ms, None)
            and _is_in(visitor.last_seen_at, self.visited_since_ms, self.visited_before_ms)
            and (not self.tags or not set(self.tags).isdisjoint(visitor.tags))
            and (not self._reads_scores or self._admits_scores(row.score or _UNKNOWN))
        )

    @property
    def _reads_scores(self) -> bool:
        wanted = (self.score_min, self.score_max, self.seen_since_ms, self.seen_before_ms)
        return bool(self.frequencies) or any(each is not None for each in wanted)

    def _admits_scores(self, score: Score) -> bool:
        return (
            _is_in(score.last_seen, self.seen_since_ms, self.seen_before_ms)
            and self._admits_score(score.score)
            and self._admits_frequency(score.frequency)
        )

    def _admits_score(self, value: int | None) -> bool:
        if self.score_min is None and self.score_max is None:
            return True
        least = 0 if self.score_min is None else self.score_min
        most = 5 if self.score_max is None else self.score_max
        return value is not None and least <= value <= most

    def _admits_frequency(self, word: str | None) -> bool:
        wanted = {each.casefold() for each in self.frequencies}
        return not wanted or (word is not None and word.casefold() in wanted)


def _is_in(at: str | None, since_ms: int | None, before_ms: int | None) -> bool:
    """Tell whether the time *at* is *since_ms* or later and earlier than *before_ms*, as far as these are set."""
    if since_ms is None and before_ms is None:
        return True
    try:
        at_ms = round(datetime.fromisoformat(at or "").timestamp() * 1000)
    except ValueError:  # none, or one that nobody can read
        return False
    return (since_ms is None or at_ms >= since_ms) and (before_ms is None or at_ms < before_ms)


# how they are written -------------------------------------------------------------------------------------


class Form(Protocol):
    """A form of export: what stands before all rows, and the rows of one page."""

    def head(self) -> bytes:
        """Return what comes first."""

    def page(self, rows: Iterable[Row]) -> bytes:
        """Return *rows* as written."""


class Csv:
    """RFC 4180: UTF-8 without a byte order mark, CRLF, a header."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns or USUAL

    def head(self) -> bytes:
        """Return the header."""
        return _lines([self._columns])

    def page(self, rows: Iterable[Row]) -> bytes:
        """Return a line for each of *rows*."""
        return _lines([cell(COLUMNS[name](row)) for name in self._columns] for row in rows)


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


class JsonLines:
    """An object a line; without columns all of the visitor, as `relay visitors show --json` begins."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def head(self) -> bytes:
        """Return nothing: every line stands for itself."""
        return b""

    def page(self, rows: Iterable[Row]) -> bytes:
        """Return a line for each of *rows*."""
        return b"".join(
            orjson.dumps(self._object(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows
        )

    def _object(self, row: Row) -> dict[str, object]:
        if not self._columns:
            return row.visitor.view()
        return {name: COLUMNS[name](row) for name in self._columns}


FORMS: Mapping[str, Callable[[Sequence[str]], Form]] = {"csv": Csv, "jsonl": JsonLines}


def cell(value: object) -> str:
    """Return *value* as the text of one cell that no spreadsheet takes for a formula."""
    text = _text(value)
    return f"'{text}" if _FORMULA.match(text) else text


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple) and not any(isinstance(each, dict) for each in value):
        return BETWEEN.join(map(str, value))
    return orjson.dumps(value).decode() if isinstance(value, list | tuple | dict) else str(value)

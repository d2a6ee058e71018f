"""Finding the events in whatever is wrapped around them, and telling the vendor's tests apart.

Three senders, two generations and every user's own template: the same rows come alone, in arrays,
under seven keys, one inside the other. What may go wrong: a receiver that misses one envelope reads
a whole batch as a single event without a person, and loses all of it without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.sources.audiencelab_columns import (
    Columns,
    column_of,
    has_known_column,
    has_person_column,
    read_columns,
)
from pipeline.sources.audiencelab_values import json_inside

#: lists whose name says that events or people are in them; a page's `data` may list anything
NAMED = ("events", "result", "visitors")
LISTS = (*NAMED, "data")
ENVELOPES = (*LISTS, "payload", "visitor", "event")
#: an object with one of these is an event, whatever else it has
MARKS = ("resolution", "RESOLUTION", "event_data", "EVENT_DATA")
#: what an envelope around many says about each of them
SHARED = frozenset({"JOB_ID", "PIXEL_ID"})
PROBE_KEYS = frozenset({"test", "ping"})
#: the deepest envelope known is three; a hostile one must not exhaust the stack
DEEPEST = 8

#: the person of the pixel dialog's Test button, whom receivers keep as a test persona
TEST_PERSONA = "dc0016d3803db4912441edb1b0"
#: the job of the audience dialog's Test button
TEST_JOB = "3c709b29-1814-40ba-99d5-4d29fe05678f"


def is_probe(document: object) -> bool:
    """Say whether *document* only asks if somebody is there: {}, [], {"test": …}, {"ping": …}."""
    if isinstance(document, dict):
        return PROBE_KEYS.issuperset(document)
    return document == []


def is_test(columns: Columns) -> bool:
    """Say whether a row belongs to a Test button.

    The persona or the job alone is enough: nobody else has them. The sample's pixel id and time are
    no evidence: documentation and other people's examples use them with other persons, and losing
    somebody is worse than keeping an invented one.
    """
    return (
        columns.person.get("UUID") == TEST_PERSONA
        or columns.event.get("JOB_ID") == TEST_JOB
        or columns.event.get("EVENT_TYPE") == "test"
    )


def open_envelopes(document: object) -> Iterator[object]:
    """Yield the rows in *document*, in order; among them, as it is, what is not even an object."""
    return _open(document, {}, DEEPEST)


def names_events(document: object, depth: int = DEEPEST) -> bool:
    """Say whether *document* is meant to hold events, whatever they look like: an array, or a list's name."""
    if not isinstance(document, dict):
        return isinstance(document, list)
    if any(_is_filled_list(document.get(name)) for name in NAMED):
        return True
    inside = (document[key] for key in ENVELOPES if isinstance(document.get(key), dict))
    return depth > 0 and any(names_events(one, depth - 1) for one in inside)


def _is_filled_list(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _open(document: object, around: Mapping[str, object], depth: int) -> Iterator[object]:
    if isinstance(document, list):
        for item in document:
            # a list inside a list is no envelope anybody sends
            yield from _open(item, around, depth - 1) if isinstance(item, dict) else (item,)
    elif not isinstance(document, dict):
        yield document
    elif depth > 0 and (inside := _inside(document)) is not None:
        known = {**around, **document}
        shared = _around(inside, known)
        if inside is document.get("event") or any(map(_says_who, around)):
            shared |= _beside(inside, known, depth - 1)
        yield from _open(inside, shared, depth - 1)
    elif not _is_empty_envelope(document):
        yield {**around, **document} if around and has_known_column(document) else document


def _inside(document: Mapping[str, object]) -> object:
    """Return what *document* is an envelope of, or None when it is no envelope or an empty one."""
    if any(mark in document for mark in MARKS):
        return None
    # some send events and visitors side by side: nobody is left out
    lists = [rows for key in LISTS if isinstance(rows := document.get(key), list)]
    if filled := [rows for rows in lists if _holds_rows(rows)]:
        return [row for rows in filled for row in rows]
    for key in ENVELOPES:
        if _holds_rows(inside := document.get(key)):
            return inside
    # not a single object in a list of events: each of its items is a wrong one
    named = next((inside for key in NAMED if _is_filled_list(inside := document.get(key))), None)
    return None if named is None or has_known_column(document) else named


def _holds_rows(inside: object) -> bool:
    if isinstance(inside, list):
        return any(isinstance(item, dict) for item in inside)
    if not isinstance(inside, dict):
        return False
    return has_known_column(inside) or any(key in inside for key in ENVELOPES)


def _is_empty_envelope(document: Mapping[str, object]) -> bool:
    # a Go sender writes an empty list as null
    empty = any(key in document and document[key] in ([], None) for key in LISTS)
    return empty and not has_person_column(document) and not any(m in document for m in MARKS)


def _around(inside: object, document: Mapping[str, object]) -> dict[str, object]:
    """Return what *document* says about every row inside it.

    Beside one object that is all it says about the event, never about a person: the `email` next to
    a `visitor` is the agency's. Beside a list only what a batch has in common.
    """
    return {
        key: value
        for key, value in document.items()
        if isinstance(value, str | int | float) and _is_shared(key, isinstance(inside, list))
    }


def _beside(inside: object, document: Mapping[str, object], depth: int) -> dict[str, object]:
    """Return who stands in *document* beside an event that is of nobody: a workflow's template may tell them apart."""
    if not _is_of_nobody(inside, depth):
        return {}
    return {key: value for key, value in document.items() if _says_who(key)}


def _is_of_nobody(inside: object, depth: int) -> bool:
    if not isinstance(inside, dict) or has_person_column(inside) or depth <= 0:
        return False
    more = (inside[key] for key in (*MARKS, *ENVELOPES) if isinstance(inside.get(key), dict | list))
    return all(_is_of_nobody(one, depth - 1) for one in more)


def _says_who(key: str) -> bool:
    column = column_of(key)
    return column is not None and column.says_who


def _is_shared(key: str, by_many: bool) -> bool:
    column = column_of(key)
    if column is None or column.says_who:
        return False
    return column.name in SHARED if by_many else True


def people(row: Mapping[str, object]) -> list[Columns]:
    """Return the columns of each person in *row*: one, or as many as its resolution lists.

    About the event the row knows best (its resolution may repeat it), about the person the
    resolution.
    """
    outer = read_columns(row)
    resolution = outer.objects.get("RESOLUTION")
    parts = resolution if isinstance(resolution, list) else [resolution]
    inner = [read_columns(part) for part in map(json_inside, parts) if isinstance(part, dict)]
    return [_joined(outer, part) for part in inner] or [outer]


def _joined(outer: Columns, inner: Columns) -> Columns:
    return Columns(
        {**inner.event, **outer.event},
        {**outer.person, **inner.person},
        {**inner.objects, **outer.objects},
    )

"""Reading a JSON body the same way in every source, and writing one event of it back.

The same bytes are read twice: the receiver checks the form before it answers, `unpack` reads the
meaning later. Both must agree on what JSON is, so both come here. What may go wrong: a wrong event
must be kept as it was sent, but orjson rounds numbers of more than 64 bits, and reads 1 024 levels
of nesting where it writes only 254. A sender that cuts a subject in the middle of an emoji writes half
of a surrogate pair, which JSON's grammar allows (RFC 8259, 8.2) and orjson does not: it becomes U+FFFD,
so that one odd text does not cost all events of a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import orjson

from pipeline.outcomes import Invalid, Outcome, Reason, Unreadable
from pipeline.sources import Malformed, json_pieces

_BOM = (
    b"\xef\xbb\xbf"  # some .NET senders put it before their JSON; RFC 8259 lets a reader ignore it
)
# in JSON that orjson wrote: a float, or an integer that became one
_FLOAT = re.compile(rb"(?:^|[\[:,])-?[0-9]+[.e]")

# an odd number of backslashes, so that the last one begins an escape, and a half without the other
_ESCAPE = rb"(?<!\\)((?:\\\\)*)\\u"
_HIGH, _LOW = rb"[dD][89abAB][0-9a-fA-F]{2}", rb"[dD][c-fC-F][0-9a-fA-F]{2}"
_HALVES = (
    re.compile(_ESCAPE + _HIGH + rb"(?!\\u" + _LOW + rb")"),
    re.compile(rb"(?<!\\u" + _HIGH + rb")" + _ESCAPE + _LOW),
)

T = TypeVar("T")
Items = Callable[[object], Iterable[object]]
"""Finds the events in the JSON value of a body, whatever numbers are in it."""


def check_json(body: bytes) -> None:
    """Raise `Malformed` unless *body* is one JSON document; an empty body is none."""
    try:
        _with_whole_pairs(json_pieces.check, body)
    except orjson.JSONDecodeError as error:
        raise Malformed(_why(body, error)) from None


def read_json(body: bytes) -> object:
    """Return the JSON value in *body*; raise `Unreadable` (malformed) when there is none."""
    try:
        return _with_whole_pairs(json_pieces.read, body)
    except orjson.JSONDecodeError as error:
        raise Unreadable(Reason.MALFORMED, _why(body, error)) from None


def as_json(value: object) -> bytes:
    """Return the JSON of *value*, which came from `read_json`, however deeply it is nested.

    Its long numbers are rounded already: `as_sent` puts those of wrong events right.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _deep_json(value)


def as_sent(outcomes: list[Outcome], body: bytes, items: Items) -> list[Outcome]:
    """Return *outcomes*, one for each of *items*, with every number of the wrong ones as *body* has it.

    The body is read once more for it, but only when a wrong event holds a number that may have been rounded.
    """
    if Invalid not in map(type, outcomes):
        return outcomes
    if not any(isinstance(one, Invalid) and _FLOAT.search(one.payload) for one in outcomes):
        return outcomes
    return [
        replace(one, payload=as_json(item)) if isinstance(one, Invalid) else one
        for one, item in zip(outcomes, items(_with_spelt_numbers(body)), strict=True)
    ]


def _with_whole_pairs(read: Callable[[bytes], T], body: bytes) -> T:
    text = body.removeprefix(_BOM)
    try:
        return read(text)
    except orjson.JSONDecodeError:
        whole = _without_halves(text)
        if whole == text:
            raise
    return read(whole)


def _without_halves(text: bytes) -> bytes:
    """Return *text* with U+FFFD in place of each escaped half of a surrogate pair."""
    for half in _HALVES:
        text = half.sub(rb"\1\\ufffd", text)
    return text


def _with_spelt_numbers(body: bytes) -> object:
    text = _without_halves(body.removeprefix(_BOM))
    try:
        value: object = json.loads(text, parse_int=orjson.Fragment, parse_float=orjson.Fragment)
    except RecursionError:  # nested deeper than json reads: better rounded than lost
        value = orjson.loads(text)
    return value


def _why(body: bytes, error: orjson.JSONDecodeError) -> str:
    # orjson's message names the place and what it missed there, never the text itself
    if not body.strip():
        return "the body is empty, not JSON"
    return f"the body is not JSON: {error}"


def _deep_json(value: object) -> bytes:
    # bytes are never a JSON value, so on this stack they stand for text that is ready
    done: list[bytes] = []
    todo: list[object] = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, bytes):
            done.append(item)
        elif isinstance(item, dict):
            pairs = [(orjson.dumps(key) + b":", inner) for key, inner in item.items()]
            todo += _reversed_between(b"{", pairs, b"}")
        elif isinstance(item, list):
            todo += _reversed_between(b"[", [(b"", inner) for inner in item], b"]")
        else:
            done.append(orjson.dumps(item))
    return b"".join(done)


def _reversed_between(
    opening: bytes, pairs: list[tuple[bytes, object]], closing: bytes
) -> list[object]:
    parts: list[object] = [opening]
    for position, (label, inner) in enumerate(pairs):
        parts += [b"," + label if position else label, inner]
    parts.append(closing)
    return parts[::-1]

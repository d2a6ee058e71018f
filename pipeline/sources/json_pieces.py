"""Reading a large JSON body in pieces, so that other threads have their turn in between.

orjson holds the interpreter's lock from the first byte to the last: on 20 MiB it stops a whole process for some
hundred milliseconds, in whatever thread it runs. Most of a large body is one long array of events, alone or in an
object around it. It is cut between two of them, and each part read as an array of its own. Where to cut is tried rather
than found out: a part that was cut inside of an event or a text is no JSON. What cannot be cut is read at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import orjson

#: some milliseconds each
PIECE = 1 << 18
#: what is shorter is read at once
LARGE = 1 << 20

# an array, or an object with nothing in brackets before it
_BEGIN = re.compile(rb'[ \t\r\n]*(?:\{[^\[\]{}]*"(\w+)"[ \t\r\n]*:[ \t\r\n]*)?\[')
_BETWEEN = re.compile(rb"\}[ \t\r\n]*(,)[ \t\r\n]*\{")
# cuts inside of an event, of those that were tried: lists in events that are longer than a piece
_MOST_WRONG = 100


class _Uncut(Exception):
    """It cannot be read in pieces; it may not even be JSON."""


def read(text: bytes) -> object:
    """Return what `orjson.loads` does, or raise what it raises."""
    if len(text) > LARGE:
        try:
            return _joined(text)
        except _Uncut:
            pass
    value: object = orjson.loads(text)
    return value


def check(text: bytes) -> None:
    """Raise `orjson.JSONDecodeError` unless *text* is JSON; never holds more than a piece of what it says."""
    if len(text) > LARGE:
        try:
            begin, end, _ = _bounds(text)
            for _ in _parts(text, begin, end):
                pass
        except _Uncut:
            pass
        else:
            return
    orjson.loads(text)


def _joined(text: bytes) -> object:
    begin, end, name = _bounds(text)
    items: list[object] = []
    for part in _parts(text, begin, end):
        items += part
    if name is None:
        return items
    frame: dict[str, object] = orjson.loads(text[:begin] + text[end:])
    frame[name] = items
    return frame


def _bounds(text: bytes) -> tuple[int, int, str | None]:
    """Return where the array's items begin and end, and its name in the object around it."""
    found = _BEGIN.match(text)
    if found is None:
        raise _Uncut
    begin, end, name = found.end(), text.rfind(b"]"), found[1]
    around = text[:begin] + text[end:]
    try:
        frame = orjson.loads(around)
    except orjson.JSONDecodeError:
        raise _Uncut from None
    if name is None:
        if frame != []:
            raise _Uncut
        return begin, end, None
    # the last one of two with the same name counts
    if frame.get(name.decode()) != [] or around.count(b'"' + name + b'"') != 1:
        raise _Uncut
    return begin, end, name.decode()


def _parts(text: bytes, begin: int, end: int) -> Iterator[list[object]]:
    """Yield the items of the array between *begin* and *end*, some at a time."""
    wrong = 0
    while end - begin > 2 * PIECE:
        at = begin + PIECE
        while True:
            cut = _BETWEEN.search(text, at, end)
            if cut is None:
                raise _Uncut
            try:
                part = orjson.loads(b"[" + text[begin : cut.start(1)] + b"]")
                break
            except orjson.JSONDecodeError:
                wrong += 1
                if wrong > _MOST_WRONG:
                    raise _Uncut from None
                at = cut.end(1)
        yield part
        begin = cut.end(1)
    try:
        yield orjson.loads(b"[" + text[begin:end] + b"]")
    except orjson.JSONDecodeError:
        raise _Uncut from None

"""Reading a JSON body the same way in every source, and writing one event of it back.

The same bytes are read twice: the receiver checks the form before it answers, `unpack` reads the
meaning later. Both must agree on what JSON is, so both come here. What may go wrong: orjson reads
1 024 levels of nesting but writes only 254, and a wrong event must still be kept as it was.
"""

from __future__ import annotations

import orjson

from pipeline.outcomes import Reason, Unreadable
from pipeline.sources import Malformed

_BOM = (
    b"\xef\xbb\xbf"  # some .NET senders put it before their JSON; RFC 8259 lets a reader ignore it
)


def check_json(body: bytes) -> None:
    """Raise `Malformed` unless *body* is one JSON document; an empty body is none."""
    try:
        orjson.loads(body.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        raise Malformed(_why(body, error)) from None


def read_json(body: bytes) -> object:
    """Return the JSON value in *body*; raise `Unreadable` (malformed) when there is none."""
    try:
        value: object = orjson.loads(body.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        raise Unreadable(Reason.MALFORMED, _why(body, error)) from None
    return value


def as_json(value: object) -> bytes:
    """Return the JSON of *value*, which came from `read_json`, however deeply it is nested."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _deep_json(value)


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

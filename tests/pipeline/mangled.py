"""Bodies that almost are a sender's: its own samples, with something in them put elsewhere, changed or gone.

Their words and names are the sender's, so that they come further into its file than JSON at large does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from urllib.parse import parse_qsl

import orjson
from hypothesis import strategies as st

from tests.pipeline.sample_outcomes import bare_samples

#: JSON at large, of every type and nested
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_Path = tuple[str | int, ...]
_GONE = object()


@cache
def mangled(source: str) -> st.SearchStrategy[object]:
    """Draw a body of one of the *source*'s samples, changed in up to three places."""
    new = ANY_JSON | st.sampled_from(_values(source)) | st.just(_GONE)
    # a place is a number that is too large for most bodies: a strategy for each body would cost more
    changes = st.lists(st.tuples(st.integers(0, 999), new), min_size=1, max_size=3)
    return st.builds(_changed, st.sampled_from(_bodies(source)), changes)


def _changed(body: object, changes: list[tuple[int, object]]) -> object:
    for place, new in changes:
        paths = list(_paths(body))
        body = _put(body, paths[place % len(paths)], new)
    return None if body is _GONE else body


@cache
def _bodies(source: str) -> list[object]:
    """Return the bodies of the samples; of one that holds many events, one with each of them."""
    found: list[object] = []
    for sample in bare_samples(source):
        body = dict(sample["form"]) if "form" in sample else sample["body"]
        if source == "mailchimp":
            body = dict(parse_qsl(body))
        found += _one_by_one(body)
    return found


def _one_by_one(body: object) -> Iterator[object]:
    if isinstance(body, list) and len(body) > 2:
        yield from ([item] for item in body)
    elif isinstance(body, dict) and (
        many := [name for name, value in body.items() if isinstance(value, list) and len(value) > 2]
    ):
        yield from ({**body, many[0]: [item]} for item in body[many[0]])
    else:
        yield body


@cache
def _values(source: str) -> list[object]:
    """Return each value that stands somewhere in the samples, once."""
    every = (_at(body, path) for body in _bodies(source) for path in _paths(body))
    return list({orjson.dumps(value): value for value in every}.values())


def _inside(value: object) -> object:
    """Return the JSON that a text holds, as SNS packs its messages; anything else as it is."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            inner: object = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
        return inner
    return value


def _parts(value: object) -> list[tuple[str | int, object]]:
    value = _inside(value)
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _paths(value: object) -> Iterator[_Path]:
    yield ()
    for key, part in _parts(value):
        yield from ((key, *path) for path in _paths(part))


def _at(value: object, path: _Path) -> object:
    for step in path:
        value = dict(_parts(value))[step]
    return value


def _put(value: object, path: _Path, new: object) -> object:
    """Return *value* with *new* at *path*, or without what stands there."""
    if not path:
        return new
    parts = dict(_parts(value)) | {path[0]: _put(_at(value, path[:1]), path[1:], new)}
    kept = {key: part for key, part in parts.items() if part is not _GONE}
    whole: object = list(kept.values()) if isinstance(_inside(value), list) else kept
    return orjson.dumps(whole).decode() if isinstance(value, str) else whole

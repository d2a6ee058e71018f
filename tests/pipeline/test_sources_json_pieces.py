"""Large JSON bodies are read in pieces, and come to the same as read at once."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import json_pieces
from pipeline.sources.json_pieces import LARGE, PIECE

ROW = {
    "id": 7,
    "text": 'a "},{" in a text, and \\" too' * 15,  # few rows, which take the tests' time
    "list": [{"a": 1}, {"b": [{}, {}]}],
    "x": 1.5,
}
ROWS = [ROW | {"id": number} for number in range(2 * LARGE // len(orjson.dumps(ROW)))]
PRETTY = orjson.dumps(ROWS, option=orjson.OPT_INDENT_2)
LONG = {"long": [ROW] * (3 * PIECE // len(orjson.dumps(ROW)))}


def wrapped(before: bytes, after: bytes) -> bytes:
    """Return many rows between *before* and *after*."""
    return before + orjson.dumps(ROWS) + after


CUT = {
    "an array": wrapped(b"", b""),
    "an array with spaces": b" \n" + PRETTY + b"\r\n",
    "an object": wrapped(b'{"events":', b"}"),
    "an object that says more": wrapped(
        b'{"a": "b", "n": 1, "events" :', b', "count": 3, "last": null}'
    ),
}
AT_ONCE = {
    "one text": b'"' + b"x" * (2 * LARGE) + b'"',
    "two lists": wrapped(b'{"a": [1], "events":', b"}"),
    "a list behind": wrapped(b'{"events":', b', "b": [2]}'),
    "the same name twice": wrapped(b'{"events":', b', "events": []}'),
    "the name inside": wrapped(b'{"events":', b', "a": {"events": 1}}'),
    "an envelope in an envelope": wrapped(b'{"data": {"events":', b"}}"),
    "a bracket in a text": wrapped(b'{"a": "[", "events":', b"}"),
    "texts": orjson.dumps(["x" * 99] * (LARGE // 50)),
    "events larger than a piece": orjson.dumps([LONG] * 5),
}
WRONG = {
    "cut off": CUT["an object"][:-1],
    "one row cut off": CUT["an array"][:-3],
    "one comma too many": wrapped(b"", b"")[:-1] + b",]",
    "two commas": CUT["an array"].replace(b'},{"id":999,', b'},,{"id":999,'),
    "a comma for nothing": CUT["an array"].replace(b'},{"id":999,', b'},[{"id":999,'),
    "more behind": CUT["an array"] + b"1",
    "no text": wrapped(b'{"events":', b"\xff}"),
}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how much is read at a time."""
    noted: list[int] = []
    loads = orjson.loads

    class Noting:
        JSONDecodeError = orjson.JSONDecodeError

        @staticmethod
        def loads(text: bytes) -> Any:
            noted.append(len(text))
            return loads(text)

    monkeypatch.setattr(json_pieces, "orjson", Noting)
    return noted


@pytest.mark.parametrize("name", CUT)
def test_a_large_body_is_never_read_at_once(name: str, reads: list[int]) -> None:
    """An array of events, alone or in an object, is read some hundred kilobytes at a time, and is all there."""
    assert json_pieces.read(CUT[name]) == orjson.loads(CUT[name])
    json_pieces.check(CUT[name])
    assert max(reads) < 2 * PIECE + 2


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_cannot_be_cut_is_read_all_the_same(name: str, reads: list[int]) -> None:
    """A body of another shape comes to what orjson makes of it, after a bounded number of tries."""
    assert json_pieces.read(AT_ONCE[name]) == orjson.loads(AT_ONCE[name])
    json_pieces.check(AT_ONCE[name])
    assert len(reads) < 300


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_json_is_refused_in_the_same_words(name: str) -> None:
    """Both ways to read tell the error of the whole body, with its place there."""
    with pytest.raises(orjson.JSONDecodeError) as at_once:
        orjson.loads(WRONG[name])
    for way in (json_pieces.read, json_pieces.check):
        with pytest.raises(orjson.JSONDecodeError) as in_pieces:
            way(WRONG[name])
        assert str(in_pieces.value) == str(at_once.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('a"{}[],\\:', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "events", "]"]), inner, max_size=4)
    ),
    max_leaves=30,
)


@settings(deadline=None, max_examples=300)
@given(value=JSON, damage=st.integers(-1, 40), pretty=st.booleans())
def test_any_json_is_read_as_at_once(value: object, damage: int, pretty: bool) -> None:
    """With pieces of a few bytes, whatever is JSON comes to the same, and whatever is not stays refused."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if pretty else 0)
    if damage >= 0:  # a byte less
        text = text[:damage] + text[damage + 1 :]
    expected: list[object] = []
    with contextlib.suppress(orjson.JSONDecodeError):
        expected.append(orjson.loads(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "LARGE", 0)
        for piece in (1, 3, 8):
            patch.setattr(json_pieces, "PIECE", piece)
            found: list[object] = []
            with contextlib.suppress(orjson.JSONDecodeError):
                found.append(json_pieces.read(text))
                json_pieces.check(text)
            assert found == expected

"""The source `scores`: changed scores in any likely envelope, every value kept as text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import Ignored, Invalid, Reason, ScoreChange, Stage, Unreadable
from pipeline.sources import Malformed, Rules
from pipeline.sources.scores import SCORES
from tests.pipeline.sample_outcomes import NOW, delivery, samples, shown

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_OBJECTS = st.dictionaries(
    st.sampled_from(["emailAddress", "matched", "score", "scores", "events", "other"]),
    _JSON | st.sampled_from(["a@example.com", "yes", "err", "invalid"]),
)


@pytest.mark.parametrize("sample", samples("scores"))
def test_a_sample_gives_what_it_expects(sample: dict[str, Any]) -> None:
    """Every sample body gives exactly the outcomes beside it, in the order of the body."""
    found = SCORES.parse(delivery("scores", sample["body"]), Rules(), NOW)
    assert [shown(outcome) for outcome in found] == sample["expect"]


@pytest.mark.parametrize("body", [{}, {"foo": 1}, {"scores": {}}, {"events": 1}, 1, "x", None])
def test_a_body_without_scores_is_of_unknown_shape(body: object) -> None:
    """JSON that is none of the four shapes is unreadable as a whole."""
    with pytest.raises(Unreadable) as caught:
        SCORES.parse(delivery("scores", body), Rules(), NOW)
    assert caught.value.reason is Reason.UNKNOWN_SHAPE


def test_an_empty_body_is_malformed() -> None:
    """Nothing is not JSON: the receiver answers 400."""
    with pytest.raises(Malformed):
        SCORES.check(b"", "application/json")
    with pytest.raises(Unreadable) as caught:
        SCORES.parse(delivery("scores", b""), Rules(), NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_a_wrong_item_is_kept_as_it_came() -> None:
    """An item without a usable address is buried alone in the stage `scores`, with its JSON."""
    wrong = {"emailAddress": "lin", "score": "5"}
    (found,) = SCORES.parse(delivery("scores", [wrong]), Rules(), NOW)
    assert isinstance(found, Invalid)
    assert (found.stage, found.payload) == (Stage.SCORES, orjson.dumps(wrong))


def test_the_token_is_all_the_proof() -> None:
    """There is no signature to check, whatever the headers say."""
    SCORES.verify({"x-signature": "?"}, b"[]", {}, NOW)


@given(st.one_of(_JSON, _OBJECTS, st.lists(_OBJECTS, max_size=3)))
def test_any_json_gives_outcomes_or_is_unreadable(body: object) -> None:
    """No JSON at all makes the parser raise anything else, and every score kept is text."""
    try:
        found = SCORES.parse(delivery("scores", body), Rules(), NOW)
    except Unreadable:
        return
    for outcome in found:
        assert isinstance(outcome, ScoreChange | Ignored | Invalid)
        if isinstance(outcome, ScoreChange):
            assert all(isinstance(value, str) for value in outcome.scores.values())

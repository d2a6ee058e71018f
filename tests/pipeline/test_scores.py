"""The Scores Model: its times, numbers and lists as typed values, whoever has sent them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scores import score_of, utc_time


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2022-12-14 09:04:00 AM", "2022-12-14T09:04:00Z"),
        ("2022-12-14 09:04:00 PM", "2022-12-14T21:04:00Z"),
        ("2022-12-14 12:04:00 AM", "2022-12-14T00:04:00Z"),
        ("2022-12-14 12:04:00 PM", "2022-12-14T12:04:00Z"),
        ("2022-12-14 00:04:00 AM", "2022-12-14T00:04:00Z"),
        ("2022-12-14 13:04:00 AM", "2022-12-14T13:04:00Z"),
        ("2022-12-14 13:04:00 PM", "2022-12-14T13:04:00Z"),
        ("2022-12-14 21:04:00", "2022-12-14T21:04:00Z"),
        (" 2022-12-14 9:04 pm ", "2022-12-14T21:04:00Z"),
        ("2022-12-14T21:04:00Z", "2022-12-14T21:04:00Z"),
        ("2022-12-14T21:04:00.123 UTC", "2022-12-14T21:04:00Z"),
        ("2022-12-14T23:04:00-02:00", "2022-12-15T01:04:00Z"),
        ("2022-12-14T01:04:00+0530", "2022-12-13T19:34:00Z"),
    ],
)
def test_a_time_is_read_on_either_clock(text: str, read: str) -> None:
    """AM and PM count up to hour 12 and not beyond it; without a zone a time is UTC."""
    assert utc_time(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "never",
        "2022-12-14",
        "2022-02-30 09:00:00 AM",
        "2022-12-14 24:00:00",
        "2022-12-14 09:60:00 AM",
        "12/14/2022 09:04:00 AM",
        "0001-01-01 00:00:00+05:00",
        "2022-12-14 09:04:00 AM!",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    """No time is guessed: a date alone, a day that does not exist, another order of the parts."""
    assert utc_time(text) is None


@given(
    st.dictionaries(
        st.text(max_size=8), st.none() | st.text() | st.integers(-(2**63), 2**64 - 1) | st.floats()
    )
)
def test_any_object_can_be_read(item: dict[str, object]) -> None:
    """Whatever an object of JSON holds, its scores can be read."""
    assert score_of("mara@example.com", item).address == "mara@example.com"


@pytest.mark.parametrize(("said", "score"), [("0", 0), (" 5 ", 5), ("3.0", 3), (4, 4), (2.0, 2)])
def test_a_score_is_a_number_as_text_or_as_number(said: object, score: int) -> None:
    """The model's strings and plain numbers come to the same."""
    assert score_of("mara@example.com", {"score": said}).score == score


@pytest.mark.parametrize("said", ["6", "-1", "4.5", "five", "", "٣", True, 7, -2, 4.25, [3]])
def test_what_is_no_score_is_none(said: object) -> None:
    """Outside 0 to 5 there is no score; the text stays in `raw`."""
    read = score_of("mara@example.com", {"score": said})
    assert read.score is None
    assert "score" in read.raw

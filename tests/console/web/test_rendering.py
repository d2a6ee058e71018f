"""How texts become parts of a page."""

from __future__ import annotations

from console.web.rendering import in_words, timed


def test_times_in_a_sentence_are_told_in_the_readers_zone() -> None:
    """Each is a time element with UTC on hover; the rest is escaped, and what only looks like a time is left alone."""
    told = timed('since 2026-01-01T09:00:00.250Z <b>, not 2026-13, until "2026-01-02T09:00:00Z"')
    assert told.count("<time datetime=") == 2
    assert 'title="2026-01-01 09:00:00 UTC">2026-01-01 09:00:00 UTC</time> &lt;b&gt;' in told
    assert "not 2026-13" in told
    assert "<b>" not in told


def test_a_time_that_was_cut_off_stays_a_text() -> None:
    """A sentence may be cut in the middle of a time."""
    assert "<time" not in timed("since 2026-01-01T09:00:00Z", 15)


def test_one_is_no_plural() -> None:
    """Numbers have their thousands apart and words their number."""
    told = (in_words(1, "letter"), in_words(0, "letter"), in_words(2000, "address", "addresses"))
    assert told == ("1 letter", "0 letters", "2\u202f000 addresses")

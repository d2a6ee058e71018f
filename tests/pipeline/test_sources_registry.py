"""The table of sources: every word of a hook's URL leads to the source of that name."""

from __future__ import annotations

from pipeline.sources.registry import SOURCES

_ANSWERED_202 = {"pixel", "audience", "workflow", "scores", "events"}


def test_every_source_stands_under_its_own_name() -> None:
    """The word in the URL and the source's own name are the same."""
    assert all(name == source.name for name, source in SOURCES.items())
    assert set(SOURCES) >= _ANSWERED_202 | {"sendgrid"}


def test_mail_senders_are_answered_200_and_the_others_202() -> None:
    """Several mail senders take nothing but 200; the other sources get 202."""
    assert {name for name, source in SOURCES.items() if source.success == 202} == _ANSWERED_202


def test_kept_headers_are_spelt_as_they_arrive() -> None:
    """Header names are compared in lower case, so they are named in lower case."""
    names = [name for source in SOURCES.values() for name in source.keeps_headers]
    assert names == [name.lower() for name in names]

"""The mail senders' samples: every sender has one, it gives events of now, and names nobody real."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

import pytest

from pipeline import mail_events
from pipeline.deliveries import Delivery
from pipeline.outcomes import MailEvent
from pipeline.sources import Rules
from pipeline.sources.registry import SOURCES
from sandbox.samples import SAMPLES, Sample
from sandbox.samples.mail import MAIL_SENDERS, mail_sample

NOW = 1_793_726_405.678  # 2026-11-03T17:20:05Z


def events_of(sample: Sample) -> list[MailEvent]:
    """Return the mail events of a sample, as its source reads them."""
    source = SOURCES[sample.source]
    source.check(sample.body, sample.content_type)
    delivery = Delivery("0" * 24, sample.source, sample.body, 0, sample.content_type)
    found = source.parse(delivery, Rules(), NOW)
    return [one for one in found if isinstance(one, MailEvent)]


def test_every_mail_sender_has_a_sample() -> None:
    """Whoever can post to `/hooks` can be tried."""
    assert {*SAMPLES, *MAIL_SENDERS} == set(SOURCES)


@pytest.mark.parametrize("source", MAIL_SENDERS)
def test_a_sample_gives_events_of_this_morning(source: str) -> None:
    """Its events are of now, and made a second later they are others: none is taken for a repetition."""
    once, later = (events_of(mail_sample(source, NOW + more)) for more in (0, 1))
    assert once
    assert all(event.occurred_at_utc.startswith("2026-11-03T") for event in once)
    marks = [{mail_events.fingerprint(source, event) for event in each} for each in (once, later)]
    assert not marks[0] & marks[1]


@pytest.mark.parametrize("source", MAIL_SENDERS)
def test_nobody_in_a_sample_is_real(source: str) -> None:
    """Addresses of people and machines are from the ranges kept for examples."""
    text = unquote_plus(mail_sample(source, NOW).body.decode())
    for domain in re.findall(r"[\w.+-]+@([\w.-]+\w)", text):
        assert re.search(r"(^|\.)example\.(com|net|org)$", domain), domain
    for address in re.findall(r"(?i)ip[^\"]*\"\s*:\s*\"([0-9.]+)\"", text):
        assert address.startswith(("192.0.2.", "198.51.100.", "203.0.113.")), address

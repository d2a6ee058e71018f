"""The measurements of reading mail senders read every call of every sender, and each event of it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from bench import agents, calls, mixed, parse
from bench.calls import Caller
from bench.processes import Place, place
from bench.results import WrongCount
from bench.sizes import FULL, TINY
from pipeline.outcomes import MailEvent
from pipeline.sources.registry import SOURCES
from sandbox.samples.mail import MAIL_SENDERS

NOW = 1_900_000_000.0


@pytest.fixture
def at() -> Iterator[Place]:
    """Run a Redis for one measurement."""
    with place("no") as found:
        yield found


@pytest.mark.anyio
async def test_every_sender_is_read_and_so_are_its_events_told_by_events(at: Place) -> None:
    """Each sender has a rate and a ratio to `events`; an event that is not read would end the run."""
    figures = await parse.measure(at, TINY)
    names = {figure.name for figure in figures}
    assert {f"{sender} / events" for sender in (*MAIL_SENDERS, "sendgrid")} <= names
    assert len(figures) == 2 * len(calls.CALLERS)


@pytest.mark.anyio
async def test_a_mixed_stream_is_taken_apart_to_the_last_event(at: Place) -> None:
    """A worker leaves as many events waiting as both streams tell of, none of them twice and none dead."""
    figures = await mixed.measure(at, TINY)
    assert "all senders / events" in {figure.name for figure in figures}


def test_an_event_that_is_not_read_ends_the_run() -> None:
    """A rate is worth nothing when events were left out: here one is expected that was not told."""
    deliveries = list(calls.CALLERS[0].deliveries(0, 30))
    with pytest.raises(WrongCount, match="events of sendgrid that were read: 30 instead of 31"):
        parse.read(deliveries, 31)


def test_every_mail_sender_is_measured() -> None:
    """A sender that joins the table of sources must be given its calls here."""
    mail_sources = {name for name, source in SOURCES.items() if source.success == 200}
    assert {caller.name for caller in calls.CALLERS} == mail_sources


@pytest.mark.parametrize("caller", calls.CALLERS, ids=lambda caller: caller.name)
def test_events_tells_the_same_as_the_sender(caller: Caller) -> None:
    """The yardstick reads the same events, but for the ids that never leave and who is known by a number."""
    for delivery in caller.deliveries(0, 60):
        told = parse.outcomes(delivery, NOW)
        same = parse.outcomes(parse.as_events(told), NOW)
        assert [parse.told_by(one) for one in same] == [parse.told_by(one) for one in told]


def test_people_use_many_different_programs() -> None:
    """Two of ten thousand programs are hardly ever the same text, and some are seen far more often than others."""
    random = Random(7)
    seen = Counter(agents.of_a_person(random).text for _ in range(5_000))
    assert len(seen) > 1_000
    assert seen.most_common(1)[0][1] > 100


def test_a_worker_is_measured_that_knows_every_user_agent() -> None:
    """What is unpacked first tells of each of them once, by events that all count."""
    first = mixed.warm_up(1_000, FULL.mixed_agents)
    told = [one for delivery in first.deliveries for one in parse.outcomes(delivery, NOW)]
    texts = [one.user_agent for one in told if isinstance(one, MailEvent)]
    assert sorted(map(str, texts)) == sorted(agent.text for agent in agents.every_person())
    assert sum(first.sizes) == len(texts) > 10_000

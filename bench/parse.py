"""Parsing: events a second that each sender's `check` and `parse` read, and how that compares with `events`.

Everything runs here, in this process, and its processor time is what counts. Each turn reads calls that were never
read before, so that user agents are as new to it as they are to a worker that has run for a while.
`events` reads the same facts in calls of the same size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import orjson

from bench import calls
from bench.calls import JSON, Caller
from bench.processes import Place
from bench.results import Figure, expect, middle
from bench.sizes import Sizes
from pipeline.deliveries import Delivery, new_delivery_id
from pipeline.outcomes import MailEvent, Outcome, Unaddressed
from pipeline.sources import Rules
from pipeline.sources.registry import SOURCES

BENCH = "parse"
AT_LEAST_PER_S = 20_000
# what never leaves
_OURS = ("provider_id", "recipient")


async def measure(at: Place, sizes: Sizes) -> list[Figure]:
    """Measure every sender and `events`, in turns; the first one, in which every user agent is new, is not counted."""
    rates: dict[str, list[float]] = {one.name: [] for one in calls.CALLERS}
    ratios: dict[str, list[float]] = {one.name: [] for one in calls.CALLERS}
    first, count = 0, sizes.parse_events
    for turn in range(sizes.parse_rounds + 1):
        for caller in calls.CALLERS:
            ours, told = read(list(caller.deliveries(first, count)), count)
            theirs, _ = read([as_events(one) for one in told], count)
            first += count
            if turn:
                rates[caller.name].append(count / ours)
                ratios[caller.name].append(theirs / ours)
    return list(_figures(rates, ratios))


def _figures(rates: dict[str, list[float]], ratios: dict[str, list[float]]) -> Iterator[Figure]:
    for caller in calls.CALLERS:
        name = label(caller)
        yield middle(BENCH, name, rates[caller.name], "events/s", at_least=AT_LEAST_PER_S)
        yield middle(BENCH, f"{caller.name} / events", ratios[caller.name], "x")


def label(caller: Caller) -> str:
    """Return the name of a sender's figure."""
    size = caller.events_per_call
    return f"{caller.name}, {size} event{'s' if size > 1 else ''} a call"


def read(deliveries: Sequence[Delivery], events: int) -> tuple[float, list[list[Outcome]]]:
    """Check and parse *deliveries*, which hold *events* that count; return the processor time and what they tell."""
    now = time.time()
    began = time.process_time()
    told = [outcomes(delivery, now) for delivery in deliveries]
    spent = time.process_time() - began
    found = sum(isinstance(one, MailEvent | Unaddressed) for each in told for one in each)
    expect(f"events of {deliveries[0].source} that were read", found, events)
    return spent, told


def outcomes(delivery: Delivery, now: float) -> list[Outcome]:
    """Return what *delivery* tells, as the receiver and a worker together find out."""
    source = SOURCES[delivery.source]
    source.check(delivery.body, delivery.content_type)
    return source.parse(delivery, Rules(), now)


def as_events(told: Sequence[Outcome]) -> Delivery:
    """Return a delivery of `events` that tells the same in AudiencePoint's own words."""
    events = [told_by(one) for one in told]
    body = orjson.dumps(events[0] if len(events) == 1 else {"events": events})
    return Delivery(new_delivery_id(), "events", body, calls.STORED_AT_MS, JSON)


def told_by(outcome: Outcome) -> dict[str, object]:
    """Return the event object of AudiencePoint's; who is known by a number only gets an address."""
    event = outcome.event if isinstance(outcome, Unaddressed) else outcome
    assert isinstance(event, MailEvent)
    fields = {name: one for name, one in asdict(event).items() if one and name not in _OURS}
    number = (event.recipient or "").rpartition(":")[2]
    return {"email": f"reader.{number}@example.com"} | fields

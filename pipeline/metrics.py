"""Metrics: the numbers that every process tells Prometheus alike, and how a process counts its own.

What lives in Redis is the same whoever asks, so one collector tells it: a receiver tells the books, the console all of
it. A sum over processes would count it several times; take the largest (`max by (...)`). It stands here because
neither the receiver nor the console may import the other, and prometheus_client asks for nothing but Python.

A process's own numbers are plain additions; prometheus_client's counters, with a lock and a look-up of labels each,
only come in when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pipeline import pauses
from pipeline.books import FATES
from pipeline.calls import BOUNDS
from pipeline.paces import CALLING

if TYPE_CHECKING:
    from pipeline.calls import Ever
    from pipeline.dead_letters import Kind
    from pipeline.levels import Level
    from pipeline.outcomes import Stage
    from pipeline.senders import Sender

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Books = Mapping[str, Any]
"""What `relay status --json` prints (`pipeline.books.snapshot`), rates and calls included."""


class Buckets:
    """A histogram: how many values were at most as large as each of *bounds*."""

    def __init__(self, *bounds: float) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count one value, or the same several *times*."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def observe_all(self, values: Iterable[float]) -> None:
        """Count each of *values*; some tenths of a microsecond each."""
        bounds, counts, total = self._bounds, self._counts, 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self._sum += total

    def told(self, name: str, meaning: str) -> Metric:
        """Return it in Prometheus's own words."""
        family = HistogramMetricFamily(name, meaning, labels=())
        self.add_to(family, ())
        return family

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add it to *family*, under *labels*."""
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        counts = list(zip(bounds, accumulate(self._counts), strict=True))
        family.add_metric(labels, counts, self._sum)


def page(*collectors: Collector) -> bytes:
    """Return the text that Prometheus reads."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


@dataclass(eq=False)  # a registry knows its collectors by who they are
class Shared(Collector):
    """What stands in Redis, as far as it was read. *books* are empty when Redis told nothing."""

    books: Books = field(default_factory=dict)
    levels: Mapping[Stage, Level] = field(default_factory=dict)
    dead: Sequence[Kind] = ()
    senders: Mapping[str, Sender] = field(default_factory=dict)
    calls: Mapping[str, Ever] = field(default_factory=dict)

    def collect(self) -> Iterator[Metric]:
        """Return everything in Prometheus's own words; what was not read is left out."""
        up = 1 if self.books else 0
        yield GaugeMetricFamily("relay_redis_up", "Whether Redis told the books.", up)
        yield from _of_books(self.books)
        if self.books:
            yield from _of_whole(self.books)
        if self.levels:
            yield from _of_levels(self.levels)
            # who reads the levels has looked into the spill, too
            spilled = "On the disks that the console sees, not yet in Redis."
            yield GaugeMetricFamily("relay_spilled_waiting", spilled, self.books.get("spilled", 0))
        if self.books and self.senders:
            yield _of_dead(self.dead)
            yield from _of_senders(self.senders)
        if self.calls:
            yield from _of_calls(self.calls)


def _of_books(books: Books) -> Iterator[Metric]:
    # Gauges, not counters: a retried dead letter goes back from `dead` to `waiting`.
    items = "The stages' books."
    yield _gauges("relay_stage_items", items, ("stage", "state"), books.get("stages", {}))
    rates = {name: rate for name, rate in books.get("rates", {}).items() if rate["configured"]}
    yield _gauges("relay_vendor_rate", "Calls a second at most.", ("vendor", "rate"), rates)
    calls = "Calls that all workers may have on their way."
    yield _gauges("relay_stage_calls", calls, ("stage", "calls"), books.get("calls", {}))
    retried = "Entries of queues of what was retried."
    yield _gauges("relay_stage_retried", retried, ("stage", "queue"), books.get("retried", {}))


def _of_whole(books: Books) -> Iterator[Metric]:
    meaning = "What the stage took in, less all that became of it: always 0."
    imbalance = GaugeMetricFamily("relay_stage_imbalance", meaning, labels=("stage",))
    for stage, row in books["stages"].items():
        imbalance.add_metric((stage,), row["in"] - sum(row[fate] for fate in FATES))
    yield imbalance
    yield _of_pauses("stage", books["paused"])
    if "tasks" in books:  # of the console's gauges; a receiver reads no more than the books
        yield _of_pauses("task", books["tasks"])
    yield GaugeMetricFamily("relay_workers", "Workers alive.", books["workers"])
    oldest = "How long the oldest work of all stages has waited."
    yield GaugeMetricFamily("relay_oldest_waiting_seconds", oldest, books["oldest_waiting_s"])
    maybe = "Items of calls that were made again because nobody knows how they ended."
    yield CounterMetricFamily("relay_maybe_duplicate", maybe, books["maybe_duplicate"])


def _of_pauses(what: str, paused: Mapping[str, Any]) -> Metric:
    meaning = f"Whether the {what} is paused, by whom, and whether asked to, without a key, or for its calls."
    family = GaugeMetricFamily(f"relay_{what}_paused", meaning, labels=(what, "by", "why"))
    for name, pause in paused.items():
        found = pauses.why(pause["by"], pause["reason"]) if pause else None
        for why in pauses.WHYS:
            by = "operator" if why == "asked" else "relay"
            family.add_metric((name, by, why), int(why == found))
    return family


def _of_levels(levels: Mapping[Stage, Level]) -> Iterator[Metric]:
    oldest = GaugeMetricFamily(
        "relay_stage_oldest_seconds", "How long the oldest work has waited.", labels=("stage",)
    )
    entries = GaugeMetricFamily(
        "relay_stage_entries", "Sealed batches, and entries in hands.", labels=("stage", "where")
    )
    for stage, level in levels.items():
        oldest.add_metric((stage,), level.oldest_s or 0.0)
        entries.add_metric((stage, "batches"), level.batches)
        entries.add_metric((stage, "in_hands"), level.in_hands)
    yield oldest
    yield entries


def _of_dead(kinds: Sequence[Kind]) -> Metric:
    labels = ("stage", "source", "reason")
    family = GaugeMetricFamily("relay_dead_letters", "Dead letters by kind.", labels=labels)
    for kind in kinds:
        family.add_metric((kind.stage, kind.source, kind.reason), kind.count)
    return family


def _of_senders(senders: Mapping[str, Sender]) -> Iterator[Metric]:
    events = CounterMetricFamily(
        "relay_events", "Events read out of deliveries.", labels=("source", "type", "outcome")
    )
    fates = CounterMetricFamily(
        "relay_sender_deliveries", "Deliveries taken apart.", labels=("source", "fate")
    )
    last = GaugeMetricFamily(
        "relay_sender_last_delivery_timestamp_seconds", "When it came.", labels=("source",)
    )
    for source, sender in senders.items():
        if sender.last_ms is not None:
            last.add_metric((source,), sender.last_ms / 1000)
        for fate, count in sender.deliveries.items():
            if count:  # twenty-two sources, of which a relay has a few
                fates.add_metric((source, fate), count)
        for outcome, counts in (("taken", sender.taken), ("ignored", sender.ignored)):
            for word, count in counts.items():
                events.add_metric((source, word, outcome), count)
        if sender.invalid:
            events.add_metric((source, "", "invalid"), sender.invalid)
    yield from (events, fates, last)


def _of_calls(calls: Mapping[str, Ever]) -> Iterator[Metric]:
    """Tell of each endpoint; *stage* is empty, which to Prometheus is no label, where it is no stage's single call."""
    names = ("stage", "endpoint")
    made = CounterMetricFamily("relay_calls", "Calls to vendors.", labels=(*names, "outcome"))
    took = HistogramMetricFamily(
        "relay_call_seconds", "How long vendors took to answer, or did not.", labels=names
    )
    for endpoint, ever in calls.items():
        stage = endpoint if endpoint in CALLING else ""
        for outcome, count in ever.calls.outcomes.items():
            made.add_metric((stage, endpoint, outcome), count)
        bounds = [*map(str, BOUNDS), "+Inf"]
        counts = accumulate(ever.calls.buckets)
        took.add_metric((stage, endpoint), list(zip(bounds, counts, strict=True)), ever.seconds)
    yield from (made, took)


def _gauges(
    name: str, meaning: str, labels: tuple[str, str], rows: Mapping[str, Mapping[str, object]]
) -> GaugeMetricFamily:
    """Return the numbers of *rows* by their two names; what else stands there is for people."""
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for row, values in rows.items():
        for word, value in values.items():
            if isinstance(value, int | float):
                family.add_metric((row, word), value)
    return family

"""What the receiver counts, and `/metrics`, which tells it to Prometheus.

Counting happens on every request, so it is a plain addition to a dict; prometheus_client's
counters, with a lock and a label lookup each, only come in when somebody asks. The stages' books
are read from Redis at that moment; without Redis the receiver's own numbers are told all the
same, and `relay_redis_up` is 0. Each uvicorn process counts for itself, since its start; whichever is asked tells for
all that share its port (`pipeline.siblings`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from pipeline.metrics import CONTENT_TYPE, Books, Buckets, Shared, page
from pipeline.scripts import words_of
from pipeline.siblings import Siblings
from receiver.answers import answer
from receiver.problems import METHOD_NOT_ALLOWED, Refused, render

log = logging.getLogger(__name__)

# Prometheus's own time-out is 10 s; a Redis that answers no sooner than this is as good as gone.
_BOOKS_WITHIN_S = 0.5


class Metrics(Collector):
    """The receiver's own numbers. *answered* is keyed by source and status."""

    def __init__(self) -> None:
        self.answered: Counter[tuple[str, int]] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.bad_tags: Counter[str] = Counter()
        self.cut_off = 0
        self.spilled = 0
        self.drained = 0
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._flush_size = Buckets(1, 2, 4, 8, 16, 32, 64, 128, 256)
        self._flush_time = Buckets(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
        self._flushes: Counter[str] = Counter()
        self._ages = Buckets(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

    def flushed(self, deliveries: int, took_s: float, result: str) -> None:
        """Note one flush: stored, spilled or failed, in part or whole."""
        self._flushes[result] += 1
        self._flush_size.observe(deliveries)
        self._flush_time.observe(took_s)

    def acknowledged(self, ages_s: Iterable[float]) -> None:
        """Note how long each of some deliveries has waited until it was kept, stored or spilled."""
        self._ages.observe_all(ages_s)

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Tell also what *read* returns at the moment of asking."""
        self.gauges[name] = (meaning, read)

    def collect(self) -> Iterator[Metric]:
        """Return everything in Prometheus's own words."""
        answered = CounterMetricFamily(
            "relay_deliveries", "Hook requests answered.", labels=("source", "status")
        )
        for (source, status), count in self.answered.items():
            answered.add_metric((source, str(status)), count)
        yield answered
        refused = CounterMetricFamily(
            "relay_refused", "Hook requests refused, by cause.", labels=("source", "cause")
        )
        for (source, cause), count in self.refused.items():
            refused.add_metric((source, cause), count)
        yield refused
        yield _by_label("relay_received_bytes", "Bytes of bodies.", "source", self.received_bytes)
        yield _by_label("relay_bad_tags", "Tags left out: not valid.", "source", self.bad_tags)
        cut_off = "Connections cut off: no request came in time."
        yield CounterMetricFamily("relay_cut_off", cut_off, value=self.cut_off)
        yield _by_label("relay_flushes", "Flushes.", "result", self._flushes)
        yield self._flush_size.told("relay_flush_deliveries", "Deliveries stored in one step.")
        yield self._flush_time.told("relay_flush_seconds", "Time that storing them took.")
        yield self._ages.told(
            "relay_acknowledge_seconds", "From a delivery's last byte to its answer with 2xx."
        )
        yield CounterMetricFamily(
            "relay_spilled_deliveries", "Deliveries kept on disk.", self.spilled
        )
        yield CounterMetricFamily(
            "relay_drained_deliveries", "Deliveries stored from there.", self.drained
        )
        for name, (meaning, read) in self.gauges.items():
            yield GaugeMetricFamily(name, meaning, read())


class MetricsPage:
    """`GET /metrics`."""

    def __init__(self, siblings: Siblings, books: Callable[[], Awaitable[Books]]) -> None:
        self._siblings = siblings
        self._books = books

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the text that Prometheus reads."""
        if scope["method"] not in ("GET", "HEAD"):
            refused = Refused(
                METHOD_NOT_ALLOWED, "Ask with GET.", headers=[(b"allow", b"GET, HEAD")]
            )
            await answer(send, *render(refused))
            return
        text = b"".join(await asyncio.gather(self._siblings.page(), self._stages()))
        headers = [
            (b"content-type", CONTENT_TYPE.encode()),
            (b"content-length", str(len(text)).encode()),
        ]
        await answer(send, 200, headers, text)

    async def _stages(self) -> bytes:
        try:
            async with asyncio.timeout(_BOOKS_WITHIN_S):
                books = await self._books()
        except Exception as error:
            log.warning("metrics without the books error=%s", words_of(error))
            books = {}
        return page(Shared(books))


def _by_label(name: str, meaning: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, meaning, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family

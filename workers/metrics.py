"""What one worker counts, and `GET /metrics`, which tells it to Prometheus where WORKER_METRICS_PORT is set.

Of several workers on one machine the first has the port, and tells the numbers of all (`pipeline.siblings`); when it
ends, another one takes over.

Only what no other process knows: how large batches were, how long unpacking took, how long an item was on its way.
Stages, dead letters and senders live in Redis; receivers and the console tell of them.

The page is served in the worker's own loop. prometheus_client's server is a thread that wakes twice a second for
nothing and would read these numbers while they are changed; uvicorn would take the signals that stop a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from time import time
from typing import TYPE_CHECKING

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.metrics import CONTENT_TYPE, Buckets
from pipeline.siblings import Siblings

if TYPE_CHECKING:
    from pipeline.outcomes import Stage
    from pipeline.settings import Settings

log = logging.getLogger(__name__)

#: a head is a few hundred bytes, and on its way when the connection is
MOST_HEAD_BYTES = 8 * 1024
HEAD_WITHIN_S = 5.0
#: who did not get the port tries again this often
AGAIN_S = 5.0


def _sizes() -> Buckets:
    return Buckets(1, 2, 5, 10, 15, 20, 25, 29, 30, 100, 1000)


def _ways() -> Buckets:
    # up to a day: an outage of a vendor is a long way
    return Buckets(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)


class Metrics(Collector):
    """The worker's own numbers."""

    def __init__(self) -> None:
        self._unpacked = Buckets(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
        self._sizes: dict[Stage, Buckets] = {}
        self._ways: dict[Stage, Buckets] = {}

    def unpacked(self, entries: int, took_s: float) -> None:
        """Note that *entries* were taken apart together; each counts with its share of the time."""
        if entries:
            self._unpacked.observe(took_s / entries, entries)

    def accepted(self, stage: Stage, origins: Sequence[bytes]) -> None:
        """Note that the stage's vendor accepted a batch of items with these packed *origins*."""
        if stage not in self._sizes:
            self._sizes[stage], self._ways[stage] = _sizes(), _ways()
        self._sizes[stage].observe(len(origins))
        now_ms, ways = time() * 1000, self._ways[stage]
        # those of one delivery have the same
        for origin, items in Counter(origins).items():
            # as `Origin.unpack` reads it, and nothing else of it; a number that is missing is no reason to fail
            words = origin.split(b"|", 2)
            if len(words) > 1 and words[1].isdigit():
                ways.observe(max(0.0, now_ms - int(words[1])) / 1000, items)

    def collect(self) -> Iterator[Metric]:
        """Return everything in Prometheus's own words."""
        meaning = "Time to take an entry (the deliveries of one flush) apart."
        yield self._unpacked.told("relay_unpack_seconds", meaning)
        sizes = "Items of a batch that its vendor accepted."
        yield _by_stage("relay_batch_items", sizes, self._sizes)
        ways = "From a delivery's arrival until its vendor accepted what came of it."
        yield _by_stage("relay_end_to_end_seconds", ways, self._ways)


def _by_stage(name: str, meaning: str, rows: dict[Stage, Buckets]) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=("stage",))
    for stage, buckets in rows.items():
        buckets.add_to(family, (stage,))
    return family


@asynccontextmanager
async def served(metrics: Metrics, settings: Settings) -> AsyncIterator[None]:
    """Serve the page until the block ends, if that is wanted, or have the worker that has the port tell it."""
    host, port = settings.worker_metrics_host, settings.worker_metrics_port
    if not port:
        yield
        return
    siblings = Siblings(settings.data_home(), "worker", metrics)
    siblings.answer_on(port)
    tried = asyncio.Event()
    serving = _serve(siblings, host, port, tried)
    tasks = [asyncio.create_task(job) for job in (siblings.run(), serving)]
    try:
        await tried.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(siblings: Siblings, host: str, port: int, tried: asyncio.Event) -> None:
    """Answer on *port* as soon as it is free, until cancelled; *tried* is set after the first try."""
    asking: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_answer_one(reader, writer, siblings))
        asking.add(task)
        task.add_done_callback(asking.discard)
        task.add_done_callback(lambda _: writer.close())  # also when it never began

    server, tries = None, 0
    while server is None:
        try:
            server = await asyncio.start_server(begin, host, port, limit=MOST_HEAD_BYTES)
        except (OSError, UnicodeError) as error:  # a host that is no name is the latter
            tries += 1
            tried.set()
            # whoever has it may have begun at the same moment: one that tells nothing by now is none of us
            if tries == 2 and not await siblings.are_there():
                why = getattr(error, "strerror", None) or type(error).__name__
                log.warning("no metrics of this worker host=%s port=%d error=%s", host, port, why)
            await asyncio.sleep(AGAIN_S)
    tried.set()
    try:
        await asyncio.Future()
    finally:
        server.close()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _answer_one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, siblings: Siblings
) -> None:
    """Answer one request; who asks too much, too slowly or nothing gets no more than a closed connection."""
    with suppress(OSError, EOFError, asyncio.LimitOverrunError):  # a time-out is an OSError
        async with asyncio.timeout(HEAD_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer_to(head, await siblings.page()))
            await writer.drain()


def answer_to(head: bytes, text: bytes) -> bytes:
    """Return the whole answer to a request with this *head*; *text* is the page's."""
    method, _, rest = head.partition(b" ")
    if rest.split(b" ", 1)[0].partition(b"?")[0] != b"/metrics":
        return _answer("404 Not Found", b"Metrics are at /metrics.\n")
    if method not in (b"GET", b"HEAD"):
        return _answer("405 Method Not Allowed", b"Ask with GET.\n", "Allow: GET, HEAD\r\n")
    whole = _answer("200 OK", text)
    return whole.removesuffix(text) if method == b"HEAD" else whole


def _answer(status: str, text: bytes, more: str = "") -> bytes:
    kind = CONTENT_TYPE if status.startswith("200") else "text/plain; charset=utf-8"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n"
        f"{more}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + text

"""Spans of a worker: one for each delivery it takes apart, and for each call what shows where its events went out.

A call carries events of several traces, and a span belongs to one. So the call's own span belongs to the trace of the
first event and links to the others; each of those gets a span of the same name and time that links to the call's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import time_ns
from typing import TYPE_CHECKING

from opentelemetry.trace import Span, SpanContext, SpanKind

from pipeline import spans, traces
from pipeline.moves import Move, Result
from pipeline.outcomes import Stage
from workers.clients.errors import CallFailed
from workers.clients.http import Answered

if TYPE_CHECKING:
    from pipeline.deliveries import Delivery
    from pipeline.spans import Spans
    from workers.reading import OurFault, Read


class Traced:
    """What a worker tells."""

    def __init__(self, told: Spans) -> None:
        self._spans = told

    def unpacking(self, reads: Iterable[Read], began_ns: int) -> None:
        """Begin the span of each delivery that was read, and let its events go on in it."""
        for one in reads:
            if one.waits:  # it comes again
                continue
            one.span = self._unpack(one.delivery, began_ns)
            one.delivery.trace = spans.mark_of(one.span)

    def not_read(self, delivery: Delivery, began_ns: int, fault: OurFault) -> None:
        """Tell of a try in which our own code failed to read *delivery*."""
        span = self._unpack(delivery, began_ns)
        _fail(span, fault)
        span.end()

    def broken_off(self, reads: Iterable[Read], fault: OurFault) -> None:
        """End the spans of a try that our own code failed in: what left goes on below them, the rest in the next."""
        for one in reads:
            if one.span is None:
                continue
            if one.delivery.id == fault.delivery_id:
                _fail(one.span, fault)
            one.span.set_attribute("relay.fate", "again")
            one.span.end()
            one.span = None

    def _unpack(self, delivery: Delivery, began_ns: int) -> Span:
        return self._spans.begin(
            "unpack",
            SpanKind.INTERNAL,
            spans.parent_of(delivery.headers.get(traces.HEADER)),
            {"relay.source": delivery.source, "relay.delivery": delivery.id},
            began_ns,
        )

    def unpacked(self, moves: Sequence[Move], results: Sequence[Result]) -> None:
        """End the spans of deliveries that *moves* have taken out; what somebody else did is told there."""
        for move, result in zip(moves, results, strict=True):
            if result is Result.DONE:
                for span in move.spans or ():
                    span.end()

    @contextmanager
    def calling(
        self,
        stage: Stage,
        vendor: str,
        batch_id: str,
        origins: Sequence[bytes],
        calls: Sequence[Answered] | None = None,
    ) -> Iterator[None]:
        """Tell of the call that is made inside; of none when nobody was called, which *calls* shows."""
        marks = dict.fromkeys(mark for one in origins if (mark := traces.mark_in(one)))
        places = [place for mark in marks if (place := spans.place_of(mark))]
        if not places:
            yield
            return
        each = self._begun(places, stage, vendor, batch_id, len(origins))
        try:
            yield
        except BaseException as failure:  # only looked at
            status = failure.status if isinstance(failure, CallFailed) else None
            spans.fail(each, type(failure).__name__, status)
            calls = None
            raise
        finally:
            if calls is None or calls:  # a span that does not end is told to nobody
                for span in each:
                    span.end()

    def _begun(
        self, places: Sequence[SpanContext], stage: Stage, vendor: str, batch_id: str, items: int
    ) -> list[Span]:
        """Begin the spans of one call, one in each trace; the first is the call's own."""
        attributes: spans.Attributes = {
            "peer.service": vendor,
            "relay.stage": str(stage),
            "relay.batch": batch_id,
            "relay.items": items,
        }
        name, began_ns = str(stage), time_ns()
        begin, others = self._spans.begin, places[1:]
        call = begin(name, SpanKind.CLIENT, places[0], attributes, began_ns, others)
        link = [call.get_span_context()]
        kind = SpanKind.INTERNAL
        return [call, *(begin(name, kind, one, attributes, began_ns, link) for one in others)]


def _fail(span: Span, fault: OurFault) -> None:
    spans.fail([span], type(fault.__cause__ or fault).__name__)

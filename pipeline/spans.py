"""Spans: the only module that knows OpenTelemetry. `traces.open_spans` imports it when traces are on.

What is told of a piece of work: names, ids, numbers, the kind of a failure. Never a word of a sender's or a vendor's,
which may hold an address; so no exception is recorded, and no `tracestate` is taken over.

Spans leave by a thread of OpenTelemetry's own, from a queue that drops what does not fit: a collector that hangs or is
gone delays nothing. At the end of the process it gets `CLOSE_WITHIN_S`, and not a moment more.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from threading import Thread
from time import monotonic

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

logger = logging.getLogger(__name__)

#: Seconds for what has not left when the process ends.
CLOSE_WITHIN_S = 2.0
#: Seconds between two lines about a collector that takes nothing.
TOLD_EVERY_S = 60.0

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MARK = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

Attributes = Mapping[str, str | int | bool]


class Spans:
    """Makes the spans of one process, and sends them."""

    def __init__(self, process: str) -> None:
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: f"audience-relay-{process}"}))
        # closed by `close` alone: OpenTelemetry's own way at the end of a process takes half a minute
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Quiet(OTLPSpanExporter())))
        self._tracer = self._provider.get_tracer("audience-relay")

    def begin(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        attributes: Attributes,
        at_ns: int,
        links: Sequence[SpanContext] = (),
    ) -> Span:
        """Return a span that began at *at_ns* (Unix time) under *parent*; without one a new trace begins."""
        around = Context()
        if parent is not None:
            around = set_span_in_context(NonRecordingSpan(parent), around)
        return self._tracer.start_span(
            name,
            around,
            kind,
            dict(attributes),
            [Link(each) for each in links],
            at_ns,
            record_exception=False,
            set_status_on_exception=False,
        )

    def close(self) -> None:
        """Send what is left, if that is done soon. Blocks for `CLOSE_WITHIN_S` at most."""
        closing = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_WITHIN_S)


def fail(spans: Iterable[Span], kind: str, status: int | None = None) -> None:
    """Mark *spans* as failed: by the *kind* of error, and the HTTP status where there was one."""
    for span in spans:
        span.set_status(Status(StatusCode.ERROR))
        span.set_attribute("error.type", kind)
        if status is not None:
            span.set_attribute("http.response.status_code", status)


def parent_of(header: str | None) -> SpanContext | None:
    """Read a `traceparent`; None, a new trace, when there is none or it is none."""
    found = _PARENT.fullmatch(header) if header else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # a later version may have more words, this one has none
    if version == "ff" or (more and version == "00"):
        return None
    sampled = TraceFlags(int(flags, 16) & TraceFlags.SAMPLED)
    place = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled)
    return place if place.is_valid else None


def header_of(span: Span) -> str:
    """Return *span* as a `traceparent`; also of one that is not recorded, so that nothing below it is."""
    place = span.get_span_context()
    return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"


def place_of(mark: str) -> SpanContext | None:
    """Read a mark; None when it is none."""
    found = _MARK.fullmatch(mark)
    if found is None:
        return None
    trace_id, span_id = (int(word, 16) for word in found.groups())
    place = SpanContext(trace_id, span_id, is_remote=True, trace_flags=_SAMPLED)
    return place if place.is_valid else None


def mark_of(span: Span) -> str | None:
    """Return *span* as a mark; None when it is not recorded."""
    place = span.get_span_context()
    if not place.trace_flags.sampled:
        return None
    return f"{place.trace_id:032x}-{place.span_id:016x}"


class _Quiet(SpanExporter):
    """Sends by *exporter*, and says now and then that it cannot; OpenTelemetry's own lines repeat addresses."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._told: float | None = None
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send *spans*, from the thread that does nothing else."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # whatever it is, the next ones are tried
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.FAILURE:
            self._lost += len(spans)
            if self._told is None or monotonic() - self._told > TOLD_EVERY_S:
                logger.warning("the collector takes no traces spans_lost=%d", self._lost)
                self._told, self._lost = monotonic(), 0
        return result

    def shutdown(self) -> None:
        """End what is under way."""
        self._exporter.shutdown()

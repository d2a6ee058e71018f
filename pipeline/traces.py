"""Traces: whether this process tells OpenTelemetry what it does, and how a trace is carried along.

OpenTelemetry's own variables decide, so that nobody learns others: traces are on where an address is set that they go
to, and the extra `otel` is installed. Everywhere else nothing of OpenTelemetry is imported, and no request or event
costs more than it did.

A trace travels with a delivery as its header `traceparent` (W3C Trace Context), and with an event as the last word of
its `Origin`, the *mark*: 32 and 16 hex digits, there only when the trace is recorded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.spans import Spans

logger = logging.getLogger(__name__)

HEADER = "traceparent"
_ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Tell whether OpenTelemetry's variables ask for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    # the specification has a list here; without otlp in it spans are to go elsewhere, or nowhere
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if "otlp" not in (name.strip() for name in exporters.split(",")):
        return False
    return any(environment.get(name, "").strip() for name in _ADDRESSES)


def open_spans(process: str) -> Spans | None:
    """Return what makes the spans of this *process* (`receiver`, `worker`); None where there are to be none.

    Whatever keeps them from being told is one warning: the relay works without.
    """
    if not is_wanted(os.environ):
        return None
    try:
        from pipeline.spans import Spans
    except ImportError:
        logger.warning("no traces: an endpoint is set, but audience-relay[otel] is not installed")
        return None
    protocol = next((name for key in _PROTOCOLS if (name := os.environ.get(key, "").strip())), "")
    if protocol not in ("", _SPOKEN):
        logger.warning("traces leave as %s, not as %s", _SPOKEN, protocol)
    try:
        return Spans(process)
    except Exception as error:  # a variable that OpenTelemetry cannot read must not stop the relay
        logger.warning("no traces: OpenTelemetry does not start error=%s", type(error).__name__)
        return None


def mark_in(origin: bytes) -> str | None:
    """Return the mark of a packed `Origin`, if it has one."""
    words = origin.split(b"|")
    return words[4].decode() if len(words) > 4 else None

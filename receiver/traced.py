"""The endpoint of the hooks with a span for each delivery, in the trace of its sender or a new one.

A class of its own, so that a receiver without traces has nothing of it on its way. The delivery keeps the span as its
`traceparent`, in place of the sender's: whoever takes it apart goes on from here. What is refused has no span; what was
read and could not be stored has one, with the status that says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, SpanKind
from starlette.types import Message, Receive, Scope, Send

from pipeline import spans, traces
from pipeline.deliveries import Delivery
from pipeline.sources import Source
from receiver.answers import note_hang_up
from receiver.bodies import Held
from receiver.webhooks import Webhooks

if TYPE_CHECKING:
    from pipeline.spans import Spans
    from receiver.short_way import Whole

_ROUTE = "/hooks/{source}"


class _Request:
    """One request on its way: since when (Unix ns), and what is known of it."""

    __slots__ = ("began_ns", "span", "status")

    def __init__(self) -> None:
        self.began_ns = time.time_ns()
        self.span: Span | None = None
        self.status = 0


_request: ContextVar[_Request] = ContextVar("_request")


class TracedWebhooks(Webhooks):
    """`Webhooks` that tell of what they accepted."""

    def __init__(self, told: Spans, **parts: Any) -> None:
        super().__init__(**parts)
        self._spans = told

    def take(self, whole: Whole) -> bool:
        """Take nothing: a span begins and ends with the request's task."""
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; its span ends when that is done."""
        request = _Request()
        before = _request.set(request)

        async def watched(message: Message) -> None:
            request.status = message.get("status", request.status)
            note_hang_up(send)
            await send(message)

        try:
            await super().__call__(scope, receive, watched)
        finally:
            _request.reset(before)
            _end(request)

    async def _read(
        self,
        source: Source,
        headers: dict[bytes, bytes],
        query: Mapping[str, str],
        receive: Receive,
        held: Held,
    ) -> Delivery:
        delivery = await super()._read(source, headers, query, receive, held)
        request = _request.get()
        parent = headers.get(traces.HEADER.encode(), b"").decode("latin-1")
        request.span = self._spans.begin(
            f"POST {_ROUTE}",
            SpanKind.SERVER,
            spans.parent_of(parent),
            {
                "http.request.method": "POST",
                "http.route": _ROUTE,
                "relay.source": source.name,
                "relay.delivery": delivery.id,
            },
            request.began_ns,
        )
        delivery.headers = {**delivery.headers, traces.HEADER: spans.header_of(request.span)}
        return delivery


def _end(request: _Request) -> None:
    span = request.span
    if span is None:
        return
    if request.status:  # without, the sender went away before it was answered
        span.set_attribute("http.response.status_code", request.status)
    if request.status >= 500:
        spans.fail([span], str(request.status))
    span.end()

"""A collector of OpenTelemetry's, as far as tests need one: takes spans over HTTP and keeps them, bytes and all."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SERVER, CLIENT, INTERNAL = 2, 3, 1


@dataclass(frozen=True, slots=True)
class Told:
    """One span as it was told; ids in hex, *links* as pairs of a trace's and a span's."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: Sequence[tuple[str, str]]
    is_failed: bool
    attributes: dict[str, object]
    service: str
    began_ns: int
    ended_ns: int


@dataclass
class Collector:
    """What was told so far; while *open* is cleared nobody is answered."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    open: Event = field(default_factory=Event)
    asked: Event = field(default_factory=Event)

    def environment(self) -> dict[str, str]:
        """Return the variables with which spans are told here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    @property
    def spans(self) -> list[Told]:
        """Return every span, in the order of their beginning."""
        found = [span for body in list(self.bodies) for span in _read(body)]
        return sorted(found, key=lambda span: span.began_ns)

    def named(self, name: str) -> list[Told]:
        """Return the spans of this name."""
        return [span for span in self.spans if span.name == name]


def _read(body: bytes) -> Iterator[Told]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                values = {
                    each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
                    for each in span.attributes
                }
                yield Told(
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    span.status.code == 2,
                    values,
                    about["service.name"],
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.asked.set()
            collector.open.wait()
            assert self.path == "/v1/traces"
            collector.heads.append(str(self.headers))
            collector.bodies.append(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        collector.open.set()
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield collector
        collector.open.set()
        server.shutdown()

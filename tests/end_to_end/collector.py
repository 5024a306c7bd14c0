"""Collect traces as an OTLP collector does."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """The parts of a span that the tests assert on."""

    service: str
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    attributes: str
    """All attributes, as JSON."""
    has_failed: bool
    everything: str


class Collector:
    """Receives spans over OTLP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.receive(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def receive(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [
                item.value.string_value
                for item in group.resource.attributes
                if item.key == "service.name"
            ]
            for scope in group.scope_spans:
                self.spans += [
                    Span(
                        names[0],
                        span.name,
                        span.trace_id,
                        span.span_id,
                        span.parent_span_id,
                        json.dumps([MessageToDict(attribute) for attribute in span.attributes]),
                        span.status.code == span.status.STATUS_CODE_ERROR,
                        json.dumps(MessageToDict(span)),
                    )
                    for span in scope.spans
                ]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans_of(self, job_id: str) -> list[Span]:
        return [span for span in self.spans if job_id in span.attributes]

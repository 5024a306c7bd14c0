"""The trace of a job from three processes: the command line, the worker and the provider."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.end_to_end.running_stack import Stack, eventually
from ucloud_orchestrator.temporal.tracing import ENDPOINT_VARIABLE

SECRET = "a-secret-text"


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


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def stack(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENDPOINT_VARIABLE, collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds
        patch.setenv("UCLOUD_MAX_CACHED_WORKFLOWS", "0")  # each task replays the whole history
        stack = Stack(tmp_path_factory.mktemp("traces"))
        yield stack
        stack.stop()


CHAIN = [
    ("ucloud-client", "StartUpdateWithStartWorkflow:Job"),
    ("ucloud-worker", "StartActivity:submit"),
    ("ucloud-worker", "RunActivity:submit"),
    ("ucloud-worker", "POST /"),
    ("ucloud-provider", "POST /ucloud/local/jobs/"),
]


def chain_to(span: Span, spans: list[Span]) -> list[tuple[str, str]]:
    """Return the path from the root of the trace to the span."""
    parents = [parent for parent in spans if parent.id == span.parent]
    return [*(chain_to(parents[0], spans) if parents else []), (span.service, span.name)]


def test_one_trace_leads_from_the_client_to_the_provider(
    stack: Stack, collector: Collector
) -> None:
    file = stack.job_file("append", "1", line={"type": "text", "value": SECRET}, file=lines())
    job_id = str(stack.json("submit", str(file))["id"])
    stack.reached(job_id, "SUCCESS")

    def provider_spans() -> list[Span]:
        return [
            span for span in collector.spans_of(job_id) if (span.service, span.name) == CHAIN[-1]
        ]

    (created,) = eventually(provider_spans)
    trace = eventually(lambda: complete_trace(collector, created))
    assert chain_to(created, trace) == CHAIN
    for name in (
        "RunWorkflow:Job",
        "RunActivity:admit",
        "HandleSignal:update",
        "RunActivity:settle",
    ):
        assert (
            len(
                eventually(
                    lambda name=name: [
                        span for span in trace_of(collector, created) if span.name == name
                    ]
                )
            )
            == 1
        )
    of_job = [span for span in trace_of(collector, created) if job_id in span.attributes]
    assert {span.service for span in of_job} == {
        "ucloud-client",
        "ucloud-worker",
        "ucloud-provider",
    }


def test_replays_emit_no_span_again(stack: Stack, collector: Collector) -> None:
    job_id = stack.sleeping(300)
    stack.reached(job_id, "RUNNING")
    stack.kill("worker")
    assert stack.run("cancel", job_id).returncode == 0
    stack.reached(job_id, "SUCCESS")
    eventually(
        lambda: [span for span in collector.spans_of(job_id) if span.name == "RunActivity:settle"]
    )
    names = [span.name for span in collector.spans_of(job_id)]
    for once in (
        "RunWorkflow:Job",
        "StartActivity:submit",
        "RunActivity:submit",
        "RunActivity:terminate",
    ):
        assert names.count(once) == 1, names


def test_spans_have_no_parameters_error_messages_or_tokens(
    stack: Stack, collector: Collector
) -> None:
    rejected = stack.run("submit", str(stack.job_file(SECRET, "1")))
    assert (rejected.returncode, SECRET in rejected.stderr) == (2, True)
    response = httpx.get(f"{stack.ready['provider']}/ucloud/local/sessions/terminal?token={SECRET}")
    assert response.status_code == 401
    eventually(
        lambda: [
            span for span in collector.spans if span.name == "RunActivity:admit" and span.has_failed
        ]
    )
    assert all(SECRET not in span.everything for span in collector.spans)
    assert all("eyJ" not in span.everything for span in collector.spans), "a signed token"


def lines() -> dict[str, object]:
    return {"type": "file", "path": "/examples/lines.txt", "readOnly": False}


def trace_of(collector: Collector, span: Span) -> list[Span]:
    return [other for other in collector.spans if other.trace == span.trace]


def complete_trace(collector: Collector, span: Span) -> list[Span]:
    """Return the trace of a span, or nothing until its root has arrived."""
    trace = trace_of(collector, span)
    return trace if len(chain_to(span, trace)) == len(CHAIN) else []

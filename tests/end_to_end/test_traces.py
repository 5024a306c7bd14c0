"""The trace of a job from three processes: the command line, the worker and the provider."""

from __future__ import annotations

import httpx
import pytest

from tests.end_to_end.collector import Collector, Span
from tests.end_to_end.running_stack import Stack
from tests.waiting import wait_until

SECRET = "a-secret-text"


@pytest.fixture(scope="module")
def stack(traced_stack: Stack) -> Stack:
    return traced_stack


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

    (created,) = wait_until(provider_spans)
    trace = wait_until(lambda: complete_trace(collector, created))
    assert chain_to(created, trace) == CHAIN
    for name in (
        "RunWorkflow:Job",
        "RunActivity:admit",
        "HandleSignal:update",
        "RunActivity:settle",
    ):
        assert (
            len(
                wait_until(
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


@pytest.mark.long
def test_replays_emit_no_span_again(stack: Stack, collector: Collector) -> None:
    job_id = stack.sleeping(300)
    stack.reached(job_id, "RUNNING")
    stack.kill("worker")
    assert stack.run("cancel", job_id).returncode == 0
    stack.reached(job_id, "SUCCESS")
    wait_until(
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
    wait_until(
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

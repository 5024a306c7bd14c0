"""Traces of a job across processes, by OpenTelemetry: off unless the environment says where they
go.

Spans tell what was called, about which job, how long it took and whether it failed. What is said in
errors, and what users send, stays out of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any

from temporalio.client import Interceptor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

ENDPOINT_VARIABLE = "UCLOUD_TRACES_ENDPOINT"
"""The environment variable with the address of an OTLP collector (HTTP), such as
`http://127.0.0.1:4318`.
"""
JOB_IDS = "ucloud.job_ids"
_providers: list[TracerProvider] = []
"""The one of this process, once `start` has made it."""
FLUSH_TIMEOUT = 2.0
"""Seconds that a process may take at its end to send its last spans."""


class TracingUnavailable(RuntimeError):
    """Traces are asked for and cannot be had; the text says why."""


def is_on() -> bool:
    """Whether the environment names a collector."""
    return bool(os.environ.get(ENDPOINT_VARIABLE))


def start(service: str) -> None:
    """Send this process's spans to the collector, under that name; nothing if there is none.

    `OTEL_SERVICE_NAME` and the other variables of OpenTelemetry take precedence. Raises
    `TracingUnavailable`.
    """
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    if not endpoint:
        return
    try:
        from ucloud_orchestrator.temporal.trace_export import exporting
    except ImportError as error:
        text = "Traces need the libraries of OpenTelemetry: install the extra 'observability'."
        raise TracingUnavailable(text) from error
    _providers.append(exporting(endpoint, service))


def stop() -> None:
    """Send what is left, for a moment at most."""
    for provider in _providers:
        flushing = Thread(
            target=provider.force_flush, daemon=True
        )  # its own time limit is not kept while it retries
        flushing.start()
        flushing.join(FLUSH_TIMEOUT)


def interceptors() -> list[Interceptor]:
    """What has a Temporal client and its workers take part in traces."""
    if not is_on():
        return []
    try:
        from temporalio.contrib.opentelemetry import TracingInterceptor
    except ImportError as error:
        text = "Traces need the libraries of OpenTelemetry: install the extra 'observability'."
        raise TracingUnavailable(text) from error
    return [TracingInterceptor(_tracer())]


@contextlib.contextmanager
def client_span(name: str, headers: dict[str, str], job_ids: Sequence[str]) -> Iterator[None]:
    """A span around a call to another process; `headers` get what the other side needs to go on
    with the trace.
    """
    if not is_on():
        yield
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    with _tracer().start_as_current_span(
        name, kind=trace.SpanKind.CLIENT, attributes={JOB_IDS: list(job_ids)}
    ):
        # Not the baggage: a program's own notes are not for providers.
        TraceContextTextMapPropagator().inject(headers)
        yield


@contextlib.contextmanager
def server_span(name: str, headers: Mapping[str, str]) -> Iterator[None]:
    """A span around the answer to a call, in the trace of the caller; `about` names the jobs once
    they are known.
    """
    if not is_on():
        yield
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(headers)
    with _tracer().start_as_current_span(name, context, kind=trace.SpanKind.SERVER):
        yield


def set_job_ids(job_ids: Sequence[str]) -> None:
    """Name the jobs of the current span."""
    _set(JOB_IDS, list(job_ids))


def set_status(status: int) -> None:
    """Note the HTTP status of the current span."""
    _set("http.response.status_code", status)


def _tracer() -> Tracer:
    """This process's own, or the one of the program that uses our client."""
    from opentelemetry import trace

    return (_providers[0] if _providers else trace.get_tracer_provider()).get_tracer("ucloud")


def _set(name: str, value: Any) -> None:
    if is_on():
        from opentelemetry import trace

        trace.get_current_span().set_attribute(name, value)

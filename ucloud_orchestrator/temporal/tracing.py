"""Trace a job across processes with OpenTelemetry, if the environment has a collector.

A span has the name of a call, its jobs, its duration and its status. It has neither error messages
nor the input of users.
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
"""The environment variable with the URL of an OTLP collector, such as `http://127.0.0.1:4318`."""
JOB_IDS = "ucloud.job_ids"
_providers: list[TracerProvider] = []
"""The tracer provider of this process, after `start`."""
FLUSH_TIMEOUT = 2.0
"""Seconds for the export of the last spans at shutdown."""


class TracingUnavailable(RuntimeError):
    """Traces are enabled, but the libraries are not installed."""


def is_on() -> bool:
    return bool(os.environ.get(ENDPOINT_VARIABLE))


def start(service: str) -> None:
    """Start the export of this process's spans, if there is a collector.

    `service` is the default of `OTEL_SERVICE_NAME`. Raises `TracingUnavailable`.
    """
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    if not endpoint:
        return
    try:
        from ucloud_orchestrator.temporal.trace_export import create_tracer_provider
    except ImportError as error:
        text = "Traces need the libraries of OpenTelemetry: install the extra 'observability'."
        raise TracingUnavailable(text) from error
    _providers.append(create_tracer_provider(endpoint, service))


def stop() -> None:
    """Export the remaining spans, for `FLUSH_TIMEOUT` at most."""
    for provider in _providers:
        # `force_flush` exceeds its own timeout while it retries.
        flush = Thread(target=provider.force_flush, daemon=True)
        flush.start()
        flush.join(FLUSH_TIMEOUT)


def interceptors() -> list[Interceptor]:
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
    """Trace a call to another process; the context of the trace is added to `headers`."""
    if not is_on():
        yield
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    with _tracer().start_as_current_span(
        name, kind=trace.SpanKind.CLIENT, attributes={JOB_IDS: list(job_ids)}
    ):
        # Without the baggage, which is not for providers.
        TraceContextTextMapPropagator().inject(headers)
        yield


@contextlib.contextmanager
def server_span(name: str, headers: Mapping[str, str]) -> Iterator[None]:
    """Trace the handling of a call, in the caller's trace. `set_job_ids` adds the jobs."""
    if not is_on():
        yield
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(headers)
    with _tracer().start_as_current_span(name, context, kind=trace.SpanKind.SERVER):
        yield


def set_job_ids(job_ids: Sequence[str]) -> None:
    _set_attribute(JOB_IDS, list(job_ids))


def set_status(status: int) -> None:
    _set_attribute("http.response.status_code", status)


def _tracer() -> Tracer:
    """Return our tracer, or the global one of a program that uses our client."""
    from opentelemetry import trace

    return (_providers[0] if _providers else trace.get_tracer_provider()).get_tracer("ucloud")


def _set_attribute(name: str, value: Any) -> None:
    if is_on():
        from opentelemetry import trace

        trace.get_current_span().set_attribute(name, value)

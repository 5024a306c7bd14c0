"""Create the runtime of Temporal's SDK."""

from __future__ import annotations

import logging

from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

LOGGER = "temporalio.core"


def make_runtime(metrics: PrometheusConfig | None = None) -> Runtime:
    """Create a runtime whose warnings go to Python's logger `temporalio.core`.

    By default the SDK writes them to standard output, which is for results.
    """
    forwarding = LogForwardingConfig(logging.getLogger(LOGGER), append_target_to_name=False)
    logs = LoggingConfig(
        TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding
    )
    return Runtime(telemetry=TelemetryConfig(logging=logs, metrics=metrics))

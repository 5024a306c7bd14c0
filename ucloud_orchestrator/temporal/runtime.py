"""The runtime of Temporal's SDK, as every process of ours has it."""

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
    """A runtime whose warnings go to Python's logger `temporalio.core`.

    By itself the SDK writes them to standard output, in between what programs read there.
    """
    forwarding = LogForwardingConfig(logging.getLogger(LOGGER), append_target_to_name=False)
    words = LoggingConfig(
        TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding
    )
    return Runtime(telemetry=TelemetryConfig(logging=words, metrics=metrics))

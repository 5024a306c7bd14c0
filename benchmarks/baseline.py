"""The baseline: workflows with empty bodies, on a worker with the settings of ours.

`python -m benchmarks.baseline` is that worker. Its settings are `TEMPORAL_ADDRESS` and
`UCLOUD_METRICS_ADDRESS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import uvloop
from temporalio import activity, workflow
from temporalio.common import SearchAttributeKey
from temporalio.runtime import PrometheusConfig
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from ucloud_orchestrator.temporal.connection import connect_to_temporal
from ucloud_orchestrator.temporal.names import JOB_STATE
from ucloud_orchestrator.temporal.runtime import make_runtime

BASELINE_QUEUE = "baseline"
BASELINE_PROVIDER_QUEUE = "baseline-provider"
SHORT = timedelta(seconds=60)


@activity.defn
async def nothing() -> None:
    """An activity with an empty body."""


@workflow.defn(name="StartAndActivity")
class StartAndActivity:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(nothing, start_to_close_timeout=SHORT)


@workflow.defn(name="MinimalJob")
class MinimalJob:
    """The smallest job: a start, one empty activity, two signals, an end."""

    def __init__(self) -> None:
        self._signals = 0

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(nothing, start_to_close_timeout=SHORT)
        await workflow.wait_condition(lambda: self._signals >= 2)

    @workflow.signal
    def update(self, _: Any = None) -> None:
        self._signals += 1

    @workflow.query
    def job(self) -> int:
        return self._signals


@workflow.defn(name="SameMessagesJob")
class SameMessagesJob:
    """The messages, markers and events of our job, with empty bodies."""

    def __init__(self) -> None:
        self._signals = 0
        self._accepted = False
        self._deadline: asyncio.Task[None] | None = None

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_local_activity(nothing, start_to_close_timeout=SHORT)
        await workflow.execute_activity(
            nothing, task_queue=BASELINE_PROVIDER_QUEUE, start_to_close_timeout=SHORT
        )
        self._accepted = True
        await workflow.wait_condition(lambda: self._signals >= 2)
        await workflow.execute_local_activity(nothing, start_to_close_timeout=SHORT)

    @workflow.update
    async def accepted(self) -> None:
        await workflow.wait_condition(lambda: self._accepted)

    @workflow.signal
    def update(self, _: Any = None) -> None:
        """Set the search attribute of the state, and start the timer of the deadline."""
        self._signals += 1
        state = SearchAttributeKey.for_keyword(JOB_STATE)
        workflow.upsert_search_attributes(
            [state.value_set("RUNNING" if self._signals == 1 else "SUCCESS")]
        )
        if self._deadline is None:
            self._deadline = asyncio.create_task(workflow.sleep(timedelta(hours=1)))

    @workflow.query
    def job(self) -> int:
        return self._signals


async def serve() -> None:
    metrics = PrometheusConfig(bind_address=os.environ["UCLOUD_METRICS_ADDRESS"])
    client = await connect_to_temporal(runtime=make_runtime(metrics))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    jobs = Worker(
        client,
        task_queue=BASELINE_QUEUE,
        workflows=[StartAndActivity, MinimalJob, SameMessagesJob],
        activities=[nothing],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=1000,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    provider = Worker(
        client,
        task_queue=BASELINE_PROVIDER_QUEUE,
        activities=[nothing],
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    async with jobs, provider:
        sys.stdout.write(json.dumps({"event": "ready"}) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())
    os._exit(0)  # the Temporal SDK may abort while the interpreter shuts down (decision 0006)

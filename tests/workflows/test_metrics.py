"""The metrics of a worker that a quiet stack does not show: faults and stuck jobs."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from activities.metrics import MetricsCollector, SeenWorkflows
from tests.conftest import Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.cli.supervisor import free_port
from ucloud_orchestrator.models import JobState, JobUpdate
from ucloud_orchestrator.temporal.names import TASK_QUEUE, WORKFLOW, new_job_id


class Scraped:
    """A worker whose metrics are polled on request, and the samples that Prometheus then gets."""

    def __init__(self, gauges: MetricsCollector, port: int) -> None:
        self._gauges = gauges
        self._url = f"http://127.0.0.1:{port}/metrics"

    async def value(self, name: str, **labels: str) -> float | None:
        """Poll, and return the sample of that name and labels; None if there is none."""
        await self.poll()
        return await self.sample(name, **labels)

    async def poll(self) -> None:
        """Poll all metrics."""
        await self._gauges.poll(audit=True)

    async def sample(self, name: str, **labels: str) -> float | None:
        """Return a sample of the last poll."""
        async with httpx.AsyncClient(verify=False) as client:
            lines = (await client.get(self._url)).text.splitlines()
        for line in lines:
            if re.match(rf"{name}[{{ ]", line) and all(
                f'{label}="{value}"' in line for label, value in labels.items()
            ):
                return float(line.rpartition(" ")[2])
        return None


@pytest.fixture
async def scraped(orchestrator: Orchestrator) -> AsyncIterator[Scraped]:
    await orchestrator.stop_worker()
    port = free_port()
    metrics = PrometheusConfig(bind_address=f"127.0.0.1:{port}")
    runtime = Runtime(telemetry=TelemetryConfig(metrics=metrics))
    target = orchestrator.temporal.service_client.config.target_host
    client = await Client.connect(target, data_converter=pydantic_data_converter, runtime=runtime)
    worker = orchestrator.new_worker(client)
    running = asyncio.create_task(worker.run())
    yield Scraped(worker.metrics(runtime.metric_meter), port)
    worker.stop()
    await running


async def test_a_pending_submission_is_measured_until_its_answer(
    scraped: Scraped, orchestrator: Orchestrator
) -> None:
    await orchestrator.provider.close()
    creating = asyncio.create_task(orchestrator.created())
    ages = [await eventually(lambda: scraped.value("ucloud_oldest_unanswered_submission_seconds"))]
    ages.append(await eventually(lambda: later_than(scraped, ages[0] or 0)))
    unreachable = await scraped.value(
        "ucloud_provider_errors", provider="local", kind="unreachable"
    )
    assert unreachable is not None
    assert unreachable >= 1
    orchestrator.provider.answers["create"] = [503]
    await orchestrator.provider.listen()
    job = await creating
    assert await scraped.value("ucloud_provider_errors", provider="local", kind="503") == 1
    assert await scraped.value("ucloud_oldest_unanswered_submission_seconds") == 0
    await orchestrator.report(job.id, JobState.SUCCESS, "Done.")


async def later_than(scraped: Scraped, before: float) -> float | None:
    """Return the age of the oldest submission, once it has grown."""
    age = await scraped.value("ucloud_oldest_unanswered_submission_seconds")
    return age if age is not None and age > before + 0.5 else None


async def test_an_update_that_changes_nothing_is_counted(
    scraped: Scraped, orchestrator: Orchestrator
) -> None:
    job = await orchestrator.created()
    guarded = JobUpdate(status="It was suspended.", expected_state=JobState.SUSPENDED)
    await orchestrator.reports.update(job.id, [guarded])
    await orchestrator.report(job.id, JobState.SUCCESS, "Done.")
    await orchestrator.reached(job.id, JobState.SUCCESS)
    assert await scraped.value("ucloud_ignored_updates", provider="local") == 1


async def test_a_job_with_failing_workflow_tasks_is_measured(
    scraped: Scraped, orchestrator: Orchestrator
) -> None:
    assert await scraped.value("ucloud_jobs_stuck") == 0
    job_id = new_job_id()
    await orchestrator.temporal.start_workflow(
        WORKFLOW, "Not a job.", id=job_id, task_queue=TASK_QUEUE
    )
    try:
        assert await eventually(lambda: scraped.value("ucloud_jobs_stuck"), 60) == 1
        assert await scraped.value(
            "temporal_workflow_task_execution_failed", workflow_type=WORKFLOW
        )
    finally:
        with suppress(Exception):
            await orchestrator.handle(job_id).terminate()


async def test_the_time_of_the_last_poll_stops_without_the_database(
    scraped: Scraped, orchestrator: Orchestrator
) -> None:
    before = await scraped.value("ucloud_last_poll_timestamp_seconds")
    assert before is not None
    await eventually(lambda: time.time() > before)
    assert (await scraped.value("ucloud_last_poll_timestamp_seconds") or 0) > before
    seen = await scraped.sample("ucloud_last_poll_timestamp_seconds")
    async with orchestrator.engine.begin() as connection:
        await connection.execute(text("DROP TABLE movements"))
    with pytest.raises(DatabaseError):
        await scraped.poll()
    assert await scraped.sample("ucloud_last_poll_timestamp_seconds") == seen


def test_a_repeated_workflow_counts_once_within_bounded_memory() -> None:
    counted = SeenWorkflows(size=2)
    assert [counted.add(job) for job in ("a", "a", "b", "a", "c", "c")] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]
    assert counted.add("a"), "forgotten by now"

"""The compared kinds of jobs: the same steps on the bare engine and on the orchestrator."""

from __future__ import annotations

from typing import Any, Protocol

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
)

from benchmarks.baseline import BASELINE_QUEUE, MinimalJob, SameMessagesJob, StartAndActivity
from benchmarks.processes import FAKE_PROVIDER
from client import Actor, JobClient, ProviderClient
from ucloud_orchestrator.models import Job, JobSpecification, JobState, JobUpdate
from ucloud_orchestrator.models.job import JobOwner
from ucloud_orchestrator.temporal.names import QUERY_JOB, SIGNAL_UPDATE
from ucloud_orchestrator.temporal.search_attributes import initial_search_attributes

UPDATES = (
    JobUpdate(state=JobState.RUNNING, status="Your job is now running."),
    JobUpdate(state=JobState.SUCCESS, status="The program ended with exit code 0."),
)


class Kind(Protocol):
    name: str
    worker: str
    """The process whose CPU seconds and calls count: `worker` or `baseline`."""

    async def create(self, job_id: str) -> None:
        """Start a job, and wait until it is accepted."""

    async def report(self, job_id: str, number: int) -> None:
        """Send the first (0) or second (1) signal of the provider."""

    async def is_visible(self, job_id: str) -> bool:
        """Return True once a query shows the first signal."""

    async def wait_until_ended(self, job_id: str) -> None:
        """Wait until the job's workflow has ended."""


class BaselineKind:
    """A minimal workflow: start, one empty activity, two signals, end."""

    name = "floor: one activity, two signals"
    worker = "baseline"

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal

    async def create(self, job_id: str) -> None:
        """Start it, and return at once."""
        await self._temporal.start_workflow(MinimalJob.run, id=job_id, task_queue=BASELINE_QUEUE)

    async def report(self, job_id: str, number: int) -> None:
        await self._temporal.get_workflow_handle(job_id).signal(
            SIGNAL_UPDATE, UPDATES[number].to_wire()
        )

    async def is_visible(self, job_id: str) -> bool:
        return bool(
            await self._temporal.get_workflow_handle(job_id).query(QUERY_JOB, result_type=int) >= 1
        )

    async def wait_until_ended(self, job_id: str) -> None:
        await self._temporal.get_workflow_handle(job_id).result()


class SameMessagesKind(BaselineKind):
    """The messages and events of our job, with empty bodies."""

    name = "floor: the same messages, empty"

    async def create(self, job_id: str) -> None:
        owner = JobOwner(created_by="alice", project=None)
        attributes = [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in initial_search_attributes(
                owner, specification(FAKE_PROVIDER)
            ).items()
        ]
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            SameMessagesJob.run,
            id=job_id,
            task_queue=BASELINE_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=TypedSearchAttributes(attributes),
            static_summary="A job of the benchmark",
        )
        await self._temporal.execute_update_with_start_workflow(
            SameMessagesJob.accepted, start_workflow_operation=start, id="accepted"
        )


class OurKind:
    """Our complete job: admission, HTTP to the fake provider, settlement, archive."""

    name = "ours: the complete job"
    worker = "worker"
    provider = FAKE_PROVIDER

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal
        self._jobs = JobClient(temporal, Actor(username="alice"))
        self._reports = ProviderClient(temporal, self.provider)
        self._specification = specification(self.provider)

    async def create(self, job_id: str) -> None:
        await self._jobs.create(self._specification, job_id)

    async def report(self, job_id: str, number: int) -> None:
        await self._reports.update(job_id, [UPDATES[number]])

    async def is_visible(self, job_id: str) -> bool:
        answer = await self._temporal.get_workflow_handle(job_id).query(QUERY_JOB, result_type=dict)
        return Job.model_validate(answer).status.state is JobState.RUNNING

    async def wait_until_ended(self, job_id: str) -> None:
        await self._temporal.get_workflow_handle(job_id).result()


class RealKind(OurKind):
    """Our complete job with a real process at the reference provider, which reports itself."""

    name = "ours: a real process at the reference provider"
    provider = "local"

    async def report(self, job_id: str, number: int) -> None:
        """Do nothing: the provider reports."""


class StartAndActivityKind(BaselineKind):
    name = "floor: start and one activity"

    async def create(self, job_id: str) -> None:
        await self._temporal.execute_workflow(
            StartAndActivity.run, id=job_id, task_queue=BASELINE_QUEUE
        )


def specification(provider: str) -> JobSpecification:
    return JobSpecification.model_validate(
        {
            "application": {"name": "nothing", "version": "1"},
            "product": {"id": "cpu-1", "category": "cpu", "provider": provider},
            "parameters": {},
            "allowDuplicateJob": True,
        }
    )

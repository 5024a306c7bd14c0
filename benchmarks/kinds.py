"""What is compared: the same steps of a job's life, on the bare engine and on the orchestrator."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
)

from benchmarks.baseline import FLOOR_QUEUE, MinimalJob, SameMessagesJob, StartAndActivity
from client import Actor, JobClient, ProviderClient
from ucloud_orchestrator.models import Job, JobSpecification, JobState, JobUpdate
from ucloud_orchestrator.models.job import JobOwner
from ucloud_orchestrator.temporal.names import QUERY_JOB, SIGNAL_UPDATE
from ucloud_orchestrator.temporal.search_attributes import initial_search_attributes

UPDATES = (
    JobUpdate(state=JobState.RUNNING, status="Your job is now running."),
    JobUpdate(state=JobState.SUCCESS, status="The program ended with exit code 0."),
)
LONG = timedelta(hours=1)


class Kind(Protocol):
    """One way to run a job."""

    name: str
    worker: str
    """Whose CPU seconds and calls it costs: `worker` or `floor`."""

    async def create(self, job_id: str) -> None:
        """Start a job and wait until it is accepted."""

    async def report(self, job_id: str, number: int) -> None:
        """Send the first (0) or second (1) signal of the provider."""

    async def is_visible(self, job_id: str) -> bool:
        """Whether a query sees the first signal."""

    async def ended(self, job_id: str) -> None:
        """Wait until the job's workflow has ended."""


class FloorKind:
    """A minimal workflow: start, one empty activity, two signals, end."""

    name = "floor: one activity, two signals"
    worker = "floor"

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal

    async def create(self, job_id: str) -> None:
        """Start it; nothing is waited for."""
        await self._temporal.start_workflow(MinimalJob.run, id=job_id, task_queue=FLOOR_QUEUE)

    async def report(self, job_id: str, number: int) -> None:
        """Send a signal of the size of ours."""
        await self._temporal.get_workflow_handle(job_id).signal(
            SIGNAL_UPDATE, UPDATES[number].to_wire()
        )

    async def is_visible(self, job_id: str) -> bool:
        """Ask how many signals came."""
        return bool(
            await self._temporal.get_workflow_handle(job_id).query(QUERY_JOB, result_type=int) >= 1
        )

    async def ended(self, job_id: str) -> None:
        """Wait for the result."""
        await self._temporal.get_workflow_handle(job_id).result()


class SameMessagesKind(FloorKind):
    """The messages and events of a job of ours, with empty bodies."""

    name = "floor: the same messages, empty"

    async def create(self, job_id: str) -> None:
        """Start it, and wait for the update `accepted`."""
        owner = JobOwner(created_by="alice", project=None)
        attributes = [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in initial_search_attributes(
                owner, specification("acknowledging")
            ).items()
        ]
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            SameMessagesJob.run,
            id=job_id,
            task_queue=FLOOR_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=TypedSearchAttributes(attributes),
            static_summary="A job of the benchmark",
        )
        await self._temporal.execute_update_with_start_workflow(
            SameMessagesJob.accepted, start_workflow_operation=start, id="accepted"
        )


class OurKind:
    """A whole job: admission with its store, HTTP to a provider that acknowledges, settlement,
    archive.
    """

    name = "ours: the complete job"
    worker = "worker"
    provider = "acknowledging"

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal
        self._jobs = JobClient(temporal, Actor(username="alice"))
        self._reports = ProviderClient(temporal, self.provider)
        self._specification = specification(self.provider)

    async def create(self, job_id: str) -> None:
        """As every client does it."""
        await self._jobs.create(self._specification, job_id)

    async def report(self, job_id: str, number: int) -> None:
        """As every provider does it."""
        await self._reports.update(job_id, [UPDATES[number]])

    async def is_visible(self, job_id: str) -> bool:
        """Ask for the job's state."""
        answer = await self._temporal.get_workflow_handle(job_id).query(QUERY_JOB, result_type=dict)
        return Job.model_validate(answer).status.state is JobState.RUNNING

    async def ended(self, job_id: str) -> None:
        """Wait until the job is settled and archived, which is when its workflow ends."""
        await self._temporal.get_workflow_handle(job_id).result()


class RealKind(OurKind):
    """A whole job at the reference provider, with a real process; the provider itself reports."""

    name = "ours: a real process at the reference provider"
    provider = "local"

    async def report(self, job_id: str, number: int) -> None:
        """The provider does it."""


class StartAndActivityKind(FloorKind):
    """A start and one empty activity, until its result is there: what `create` is measured
    against.
    """

    name = "floor: start and one activity"

    async def create(self, job_id: str) -> None:
        """Start it, and wait for its end."""
        await self._temporal.execute_workflow(
            StartAndActivity.run, id=job_id, task_queue=FLOOR_QUEUE
        )


def specification(provider: str) -> JobSpecification:
    """A job that does nothing."""
    return JobSpecification.model_validate(
        {
            "application": {"name": "nothing", "version": "1"},
            "product": {"id": "cpu-1", "category": "cpu", "provider": provider},
            "parameters": {},
            "allowDuplicateJob": True,
        }
    )

"""`ProviderClient`: how a provider reports to the orchestrator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial

from temporalio.client import Client, WorkflowExecutionStatus

from client.errors import JobClosed, map_errors
from ucloud_orchestrator.models.job import Job, JobUpdate
from ucloud_orchestrator.models.provider_api import (
    MAXIMUM_UPDATES,
    Charge,
    ChargeAnswer,
    ChargeMessage,
    UpdateMessage,
)
from ucloud_orchestrator.models.update_paging import query_all_pages
from ucloud_orchestrator.temporal import names, queries
from ucloud_orchestrator.temporal.connection import connect_to_temporal


class ProviderClient:
    """A provider's connection to the orchestrator.

    It reports about the provider's own jobs alone.
    """

    def __init__(self, temporal: Client, provider: str) -> None:
        self._temporal = temporal
        self._provider = provider

    @classmethod
    async def connect(
        cls, provider: str, address: str | None = None, namespace: str | None = None
    ) -> ProviderClient:
        """Connect to Temporal; what is not given comes from Temporal's environment variables.

        Raises `Unreachable`.
        """
        with map_errors():
            return cls(await connect_to_temporal(address, namespace), provider)

    async def update(self, job_id: str, updates: Sequence[JobUpdate]) -> None:
        """Report state changes and texts, oldest first; they are applied in order.

        Raises `JobClosed` if the job has ended or is unknown: the report can be dropped. Any other
        error means that it may not have arrived: report again.
        """
        for start in range(0, len(updates), MAXIMUM_UPDATES):
            some = list(updates[start : start + MAXIMUM_UPDATES])
            message = UpdateMessage(provider=self._provider, updates=some)
            with map_errors():
                await self._temporal.get_workflow_handle(job_id).signal(
                    names.SIGNAL_UPDATE, message.to_wire()
                )

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeAnswer:
        """Charge for use. A `charge_id` counts once per job, so that a call can be repeated.

        What the answer calls `insufficient_funds` was not counted: stop the job, or the
        orchestrator will. Raises `RequestRefused`, or `JobClosed` if the job has ended.
        """
        message = ChargeMessage(provider=self._provider, charges=list(charges))
        with map_errors():
            answer = await self._temporal.get_workflow_handle(job_id).execute_update(
                names.UPDATE_CHARGE, message.to_wire(), result_type=dict
            )
        return ChargeAnswer.model_validate(answer)

    async def retrieve(self, job_id: str) -> Job:
        """The job as the orchestrator knows it.

        Raises `JobClosed` if it is unknown, or another provider's.
        """
        handle = self._temporal.get_workflow_handle(job_id)
        with map_errors():
            job = await query_all_pages(partial(handle.query, names.QUERY_JOB, result_type=dict))
        if job.specification.product.provider != self._provider:
            raise JobClosed("There is no job of this id.")
        return job

    async def is_open(self, job_id: str) -> bool:
        """Whether the job has a workflow that runs, as of now; `browse_open_jobs` may be a little
        behind.

        Raises `Unreachable` or another `OrchestratorError` if Temporal does not say.
        """
        try:
            with map_errors():
                description = await self._temporal.get_workflow_handle(job_id).describe()
        except JobClosed:
            return False
        # Between two runs of the same job the older one says that it was continued.
        return description.status in {
            WorkflowExecutionStatus.RUNNING,
            WorkflowExecutionStatus.CONTINUED_AS_NEW,
            None,
        }

    async def browse_open_jobs(self) -> AsyncIterator[str]:
        """The ids of all jobs of this provider that have not ended."""
        query = queries.running_jobs(queries.equals(names.JOB_PROVIDER, self._provider))
        with map_errors():
            async for execution in self._temporal.list_workflows(query):
                yield execution.id

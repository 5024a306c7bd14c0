"""`ProviderClient`: a provider's connection to the orchestrator."""

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

    It reports about the provider's own jobs only.
    """

    def __init__(self, temporal: Client, provider: str) -> None:
        self._temporal = temporal
        self._provider = provider

    @classmethod
    async def connect(
        cls, provider: str, address: str | None = None, namespace: str | None = None
    ) -> ProviderClient:
        """Connect to Temporal; the defaults are Temporal's environment variables and profiles.

        Raises `Unreachable`.
        """
        with map_errors():
            return cls(await connect_to_temporal(address, namespace), provider)

    async def update(self, job_id: str, updates: Sequence[JobUpdate]) -> None:
        """Report updates, oldest first; the job applies them in order.

        Raises `JobClosed` if the job has ended or is unknown: drop the report. After any other
        error the report may be lost: repeat it.
        """
        for start in range(0, len(updates), MAXIMUM_UPDATES):
            some = list(updates[start : start + MAXIMUM_UPDATES])
            message = UpdateMessage(provider=self._provider, updates=some)
            with map_errors():
                await self._temporal.get_workflow_handle(job_id).signal(
                    names.SIGNAL_UPDATE, message.to_wire()
                )

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeAnswer:
        """Charge for use. Idempotent by `charge_id`.

        With `insufficient_funds` in the answer, some were not counted: stop the job, or the
        orchestrator will. Raises `RequestRefused`, or `JobClosed` if the job has ended.
        """
        message = ChargeMessage(provider=self._provider, charges=list(charges))
        with map_errors():
            answer = await self._temporal.get_workflow_handle(job_id).execute_update(
                names.UPDATE_CHARGE, message.to_wire(), result_type=dict
            )
        return ChargeAnswer.model_validate(answer)

    async def retrieve(self, job_id: str) -> Job:
        """Return the job. Raises `JobClosed` if it is unknown, or another provider's."""
        handle = self._temporal.get_workflow_handle(job_id)
        with map_errors():
            job = await query_all_pages(partial(handle.query, names.QUERY_JOB, result_type=dict))
        if job.specification.product.provider != self._provider:
            raise JobClosed("There is no job of this id.")
        return job

    async def is_open(self, job_id: str) -> bool:
        """Return whether the job's workflow runs. Exact, unlike `browse_open_jobs`.

        Raises `Unreachable` or another `OrchestratorError` if Temporal gives no answer.
        """
        try:
            with map_errors():
                description = await self._temporal.get_workflow_handle(job_id).describe()
        except JobClosed:
            return False
        # CONTINUED_AS_NEW: between two runs of the same workflow.
        return description.status in {
            WorkflowExecutionStatus.RUNNING,
            WorkflowExecutionStatus.CONTINUED_AS_NEW,
            None,
        }

    async def browse_open_jobs(self) -> AsyncIterator[str]:
        """Yield the ids of this provider's open jobs, by visibility, which may lag."""
        query = queries.running_jobs(queries.equals(names.JOB_PROVIDER, self._provider))
        with map_errors():
            async for execution in self._temporal.list_workflows(query):
                yield execution.id

"""Submits jobs: one, or several of which all or none are accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio.client import WithStartWorkflowOperation, WorkflowExecutionStatus
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from client.connection import ActorConnection, is_owned_by
from client.errors import JobRejected, map_errors
from client.reader import JobReader
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job, JobSpecification
from ucloud_orchestrator.models.limits import size_findings
from ucloud_orchestrator.models.messages import MAXIMUM_BATCH, BatchedJob, BatchRequest, JobRequest
from ucloud_orchestrator.temporal import names
from ucloud_orchestrator.temporal.search_attributes import initial_search_attributes
from ucloud_orchestrator.temporal.user_metadata import details_of, summary_of

_ACCEPTED_UPDATE_ID = "accepted"


class JobSubmitter:
    """Starts the workflows of jobs and of batches, and waits until they are accepted."""

    def __init__(self, connection: ActorConnection, reader: JobReader) -> None:
        self._connection = connection
        self._reader = reader

    async def create(
        self, specification: JobSpecification, job_id: str, timeout: timedelta | None
    ) -> Job:
        _check_size([specification])
        owner = self._connection.owner
        attributes = initial_search_attributes(owner, specification)
        start = _start_operation(
            names.WORKFLOW,
            JobRequest(owner=owner, specification=specification),
            id=job_id,
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
                    for name, value in attributes.items()
                ]
            ),
            static_summary=summary_of(owner, specification),
            static_details=details_of(owner, specification),
        )
        try:
            job = Job.model_validate(await self._wait_until_accepted(start, dict, timeout))
        except WorkflowAlreadyStartedError:
            job = await self._retrieve_closed(job_id)
        if job.owner != owner:
            raise JobRejected(ErrorCode.DUPLICATE_JOB, f"The id {job_id} is taken by another job.")
        # The call may be a repeat, and the actor may have left the project since the first one.
        return await self._reader.as_seen(job)

    async def create_many(
        self,
        specifications: Sequence[JobSpecification],
        batch_id: str,
        timeout: timedelta | None,
    ) -> list[Job]:
        """Start a batch of jobs and wait until their providers have accepted all of them."""
        _check_size(specifications)
        owner = self._connection.owner
        try:
            jobs = [
                BatchedJob(job_id=f"{batch_id}-{number:03}", specification=specification)
                for number, specification in enumerate(specifications)
            ]
            request = BatchRequest(owner=owner, jobs=jobs)
        except ValidationError as error:
            message = f"A batch has 1 to {MAXIMUM_BATCH} jobs, not {len(specifications)}."
            raise JobRejected(ErrorCode.VERIFICATION_FAILED, message) from error
        workflow_id = f"batch-{batch_id}"
        start = _start_operation(
            names.BATCH_WORKFLOW,
            request,
            id=workflow_id,
            static_summary=f"{len(jobs)} jobs for {owner.created_by}",
        )
        try:
            job_ids = await self._wait_until_accepted(start, list[str], timeout)
        except WorkflowAlreadyStartedError:
            with map_errors(rejection=JobRejected):
                job_ids = await self._connection.temporal.get_workflow_handle(
                    workflow_id, result_type=list[str]
                ).result()
        return list(await asyncio.gather(*map(self._reader.retrieve, job_ids)))

    async def _wait_until_accepted(
        self,
        start: WithStartWorkflowOperation[Any, Any],
        answer_type: type,
        timeout: timedelta | None,
    ) -> Any:
        """Start the workflow and return the answer of its update `accepted`.

        Raises `WorkflowAlreadyStartedError` if the workflow is closed.
        """
        with map_errors(rejection=JobRejected):
            async with _consume_start_error(start):
                return await self._connection.temporal.execute_update_with_start_workflow(
                    names.UPDATE_ACCEPTED,
                    start_workflow_operation=start,
                    id=_ACCEPTED_UPDATE_ID,
                    result_type=answer_type,
                    rpc_timeout=timeout,
                )

    async def _retrieve_closed(self, job_id: str) -> Job:
        """Return the job of an earlier `create` whose workflow is closed.

        Raises `JobRejected` if the job was rejected, as the earlier call did.
        """
        handle = self._connection.handle(job_id)
        with map_errors(rejection=JobRejected):
            description = await handle.describe()
            is_own = is_owned_by(description, self._connection.owner)
            if is_own and description.status is WorkflowExecutionStatus.FAILED:
                await handle.result()
        return await self._reader.retrieve(job_id)


def _start_operation(workflow: str, request: Any, **options: Any) -> Any:
    """Return the start of a workflow; a repeat joins it while it runs."""
    return WithStartWorkflowOperation(
        workflow,
        request,
        task_queue=names.TASK_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        **options,
    )


def _check_size(specifications: Sequence[JobSpecification]) -> None:
    if findings := size_findings(specifications):
        raise JobRejected(ErrorCode.VERIFICATION_FAILED, findings[0].message, findings)


@asynccontextmanager
async def _consume_start_error(start: WithStartWorkflowOperation[Any, Any]) -> AsyncIterator[None]:
    """Retrieve the start's copy of an error, or asyncio logs it as never retrieved."""
    try:
        yield
    except BaseException:
        handle = asyncio.ensure_future(start.workflow_handle())
        await asyncio.wait([handle], timeout=0)
        _ = handle.exception() if handle.done() and not handle.cancelled() else handle.cancel()
        raise

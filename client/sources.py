"""The two sources of jobs: their workflows while they live, the archive afterwards.

Neither checks what the actor may see.
"""

from __future__ import annotations

import asyncio
from functools import partial

from temporalio.client import WorkflowExecutionStatus, WorkflowQueryFailedError

from client.connection import ANSWER_TIMEOUT, ActorConnection
from client.errors import JobClosed, Unreachable, map_errors
from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import Job, JobState, JobUpdate
from ucloud_orchestrator.models.messages import (
    ArchiveAnswer,
    ArchiveRequest,
    BrowseAnswer,
    BrowseRequest,
)
from ucloud_orchestrator.models.update_paging import query_all_pages
from ucloud_orchestrator.temporal import names, queries


class JobFilter(ApiModel):
    state: JobState | None = None
    provider: str | None = None
    application: str | None = None
    """As `name@version`."""
    created_by: str | None = None


class LiveJobs:
    def __init__(self, connection: ActorConnection) -> None:
        self._connection = connection

    async def retrieve(self, job_id: str) -> tuple[Job | None, bool]:
        """Return the job, and whether its workflow is closed.

        The job is None if there is no such workflow, or if the job was rejected. Raises
        `Unreachable` if the workflow exists and cannot answer.
        """
        handle = self._connection.handle(job_id)
        query = partial(handle.query, names.QUERY_JOB, result_type=dict, rpc_timeout=ANSWER_TIMEOUT)
        try:
            with map_errors():
                job = await query_all_pages(query)
                if job.status.state.is_terminal:
                    return job, True
                status = (await handle.describe()).status
        except JobClosed:
            return None, True
        except WorkflowQueryFailedError as error:
            with map_errors():
                if (await handle.describe()).workflow_type != names.WORKFLOW:
                    return None, True
            raise Unreachable(f"The workflow of the job {job_id} cannot answer: {error}") from error
        is_rejected = status is WorkflowExecutionStatus.FAILED
        return None if is_rejected else job, status is not WorkflowExecutionStatus.RUNNING

    async def browse(self, filters: JobFilter, limit: int, before: str | None) -> list[Job]:
        """Return a page of live jobs of the actor's workspace, without their updates."""
        actor = self._connection.actor
        attributes = {
            names.JOB_STATE: filters.state,
            names.JOB_PROVIDER: filters.provider,
            names.JOB_APPLICATION: filters.application,
            names.JOB_OWNER: filters.created_by or (None if actor.project else actor.username),
            names.JOB_PROJECT: actor.project,
        }
        conditions = [queries.equals(name, value) for name, value in attributes.items() if value]
        if not actor.project:
            conditions.append(queries.is_unset(names.JOB_PROJECT))
        if before is not None:
            conditions.append(queries.ids_before(before))
        with map_errors():
            ids = [
                execution.id
                async for execution in self._connection.temporal.list_workflows(
                    queries.running_jobs(*conditions), limit=limit
                )
            ]
        answers = await asyncio.gather(*map(self.retrieve, ids))
        return [with_updates(job, []) for job, _ in answers if job is not None]


class ArchivedJobs:
    def __init__(self, connection: ActorConnection) -> None:
        self._connection = connection

    async def retrieve(self, job_id: str) -> tuple[Job | None, list[JobUpdate]]:
        """Return the job, None until it has ended, and the updates of it that are in the store."""
        job: Job | None = None
        updates: list[JobUpdate] = []
        position: int | None = 0
        while position is not None:
            request = ArchiveRequest(job_id=job_id, first_position=position)
            page = await self._connection.execute_activity(
                names.ACTIVITY_RETRIEVE_FROM_ARCHIVE, request, ArchiveAnswer
            )
            job, position = page.job, page.next_position
            updates += page.updates
        return job, updates

    async def browse(self, filters: JobFilter, limit: int, before: str | None) -> list[Job]:
        """Return a page of ended jobs of the actor's workspace, without their updates."""
        if filters.state is not None and not filters.state.is_terminal:
            return []
        actor = self._connection.actor
        request = BrowseRequest(
            created_by=filters.created_by or (None if actor.project else actor.username),
            project=actor.project,
            personal=actor.project is None,
            provider=filters.provider,
            application=filters.application,
            states=[filters.state] if filters.state else None,
            before=before,
            limit=limit,
        )
        answer = await self._connection.execute_activity(
            names.ACTIVITY_BROWSE_ARCHIVE, request, BrowseAnswer
        )
        return answer.jobs


def with_updates(job: Job, updates: list[JobUpdate]) -> Job:
    return job.model_copy(update={"updates": updates, "omitted_updates": 0})

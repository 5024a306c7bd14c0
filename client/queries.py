"""What clients read of jobs: from their workflows while they live, from the archive afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from temporalio.client import WorkflowExecutionStatus, WorkflowQueryFailedError

from client.errors import (
    JobClosed,
    JobNotFound,
    OrchestratorError,
    RequestRefused,
    Unreachable,
    map_errors,
)
from client.session import ANSWER_TIMEOUT, ActorClient
from ucloud_orchestrator.models.access import for_reader
from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job, JobOwner, JobState, JobUpdate, Permission
from ucloud_orchestrator.models.messages import (
    ArchiveAnswer,
    ArchiveRequest,
    BrowseAnswer,
    BrowseRequest,
)
from ucloud_orchestrator.models.update_paging import query_all_pages
from ucloud_orchestrator.temporal import names, queries

FOLLOW_INTERVAL = 0.5
"""Seconds between two looks at a followed job, as in UCloud's own `follow`."""


class JobFilter(ApiModel):
    """Which jobs `browse` gives: all that match every field that is set."""

    state: JobState | None = None
    provider: str | None = None
    application: str | None = None
    """As `name@version`."""
    created_by: str | None = None


class JobReader(ActorClient):
    """The part of `JobClient` that reads."""

    async def retrieve(self, job_id: str) -> Job:
        """The job as it is now, with all its updates: from its workflow, or from the archive.

        Raises `JobNotFound`.
        """
        job = await self._for_reader(await self._retrieve(job_id))
        if not may(job, Permission.READ):
            raise JobNotFound(job_id)
        return job

    async def browse(
        self, filters: JobFilter | None = None, limit: int = 50, before: str | None = None
    ) -> list[Job]:
        """One page of the actor's jobs, newest first, without their updates.

        `before` is the id of the last job of the page before. Live jobs come from Temporal, ended
        ones from the archive.
        """
        filters = filters or JobFilter()
        if self._actor.project and not any(
            one.project == self._actor.project for one in await self._memberships()
        ):
            return []
        seen: list[Job] = []
        while True:
            live = await self._browse_live(filters, limit, before)
            ended = await self._browse_archive(filters, limit, before)
            jobs = {job.id: job for job in [*live, *ended]}
            page = sorted(jobs.values(), key=lambda job: job.id, reverse=True)[:limit]
            seen += [
                job
                for job in [await self._for_reader(job) for job in page]
                if may(job, Permission.READ)
            ]
            if len(page) < limit or len(seen) >= limit:
                return seen[:limit]
            before = page[-1].id

    async def follow(self, job_id: str) -> AsyncIterator[Job]:
        """The job now, and again each time that something has changed, until it has ended."""
        seen: Job | None = None
        while True:
            job = await self.retrieve(job_id)
            if job != seen:
                yield job
                seen = job
            if job.status.state.is_terminal:
                return
            await asyncio.sleep(FOLLOW_INTERVAL)

    async def wait(self, job_id: str) -> Job:
        """Wait until the job has ended and everything that it held is free, and get it.

        Raises `JobNotFound`.
        """
        await self._require(job_id, Permission.READ)
        with suppress(OrchestratorError), map_errors():
            # However the workflow ends, the job says how the job ended.
            await self._handle(job_id).result()
        return [job async for job in self.follow(job_id)][-1]

    async def _for_reader(self, job: Job) -> Job:
        is_own = job.owner == JobOwner(created_by=self._actor.username)
        return for_reader(job, self._actor.username, [] if is_own else await self._memberships())

    async def _require(self, job_id: str, permission: Permission) -> None:
        """Raises `JobNotFound` if the actor may not see the job, `RequestRefused` if he may only
        see it.
        """
        if await self._owns(job_id):
            return
        job = await self.retrieve(job_id)
        if not may(job, permission):
            raise RequestRefused(
                ErrorCode.FORBIDDEN, f"You may not change the job {job_id}; {permission} is needed."
            )

    async def _owns(self, job_id: str) -> bool:
        """Whether it is a job of the actor's own workspace, which needs no worker to be known."""
        try:
            with map_errors():
                description = await self._handle(job_id).describe()
        except JobClosed:
            return False
        found = {pair.key.name: pair.value for pair in description.typed_search_attributes}
        return found.get(names.JOB_OWNER) == self._actor.username and names.JOB_PROJECT not in found

    async def _retrieve(self, job_id: str) -> Job:
        """The job, whoever asks. Raises `JobNotFound`."""
        try:
            live, is_closed = await self._ask_workflow(job_id)
        except Unreachable:
            # Somebody has reset it after its end, or its code has changed: what was archived stays
            # true.
            ended, stored = await self._ask_archive(job_id)
            if ended is None:
                raise
            return _with_updates(ended, stored)
        if (
            live is not None
            and not live.omitted_updates
            and (not is_closed or live.status.state.is_terminal)
        ):
            return live
        ended, stored = await self._ask_archive(job_id)
        # A workflow that was ended by force does not know how its job ended; until the next check
        # nobody does.
        if live is not None and (ended is None or live.status.state.is_terminal):
            # The store may have moved on since the workflow answered.
            return _with_updates(live, [*stored[: live.omitted_updates], *live.updates])
        if ended is None:
            raise JobNotFound(job_id)
        return _with_updates(ended, stored)

    async def _ask_workflow(self, job_id: str) -> tuple[Job | None, bool]:
        """What the workflow knows, and whether it is closed; None if there is none, or if the job
        was refused.
        """
        handle = self._handle(job_id)
        try:
            with map_errors():
                job = await query_all_pages(
                    partial(
                        handle.query, names.QUERY_JOB, result_type=dict, rpc_timeout=ANSWER_TIMEOUT
                    )
                )
                if job.status.state.is_terminal:
                    return job, True
                status = (await handle.describe()).status
                is_refused = status is WorkflowExecutionStatus.FAILED
                return None if is_refused else job, status is not WorkflowExecutionStatus.RUNNING
        except JobClosed:
            return None, True
        except WorkflowQueryFailedError as error:
            with map_errors():
                if (await handle.describe()).workflow_type != names.WORKFLOW:
                    return None, True
            raise Unreachable(f"The workflow of the job {job_id} cannot answer: {error}") from error

    async def _ask_archive(self, job_id: str) -> tuple[Job | None, list[JobUpdate]]:
        """What the store has: the job, if it has ended, and its updates."""
        job: Job | None = None
        updates: list[JobUpdate] = []
        position: int | None = 0
        while position is not None:
            request = ArchiveRequest(job_id=job_id, first_position=position)
            page = await self._ask_worker(
                names.ACTIVITY_RETRIEVE_FROM_ARCHIVE, request, ArchiveAnswer
            )
            job, position = page.job, page.next_position
            updates += page.updates
        return job, updates

    async def _browse_live(self, filters: JobFilter, limit: int, before: str | None) -> list[Job]:
        attributes = {
            names.JOB_STATE: filters.state,
            names.JOB_PROVIDER: filters.provider,
            names.JOB_APPLICATION: filters.application,
            names.JOB_OWNER: filters.created_by
            or (None if self._actor.project else self._actor.username),
            names.JOB_PROJECT: self._actor.project,
        }
        conditions = [queries.equals(name, value) for name, value in attributes.items() if value]
        if not self._actor.project:
            conditions.append(queries.is_unset(names.JOB_PROJECT))
        if before is not None:
            conditions.append(queries.ids_before(before))
        ids = []
        with map_errors():
            async for execution in self._temporal.list_workflows(
                queries.running_jobs(*conditions), limit=limit
            ):
                ids.append(execution.id)
        answers = await asyncio.gather(*map(self._ask_workflow, ids))
        return [_with_updates(job, []) for job, _ in answers if job is not None]

    async def _browse_archive(
        self, filters: JobFilter, limit: int, before: str | None
    ) -> list[Job]:
        if filters.state is not None and not filters.state.is_terminal:
            return []
        request = BrowseRequest(
            created_by=filters.created_by
            or (None if self._actor.project else self._actor.username),
            project=self._actor.project,
            personal=self._actor.project is None,
            provider=filters.provider,
            application=filters.application,
            states=[filters.state] if filters.state else None,
            before=before,
            limit=limit,
        )
        return (await self._ask_worker(names.ACTIVITY_BROWSE_ARCHIVE, request, BrowseAnswer)).jobs


def _with_updates(job: Job, updates: list[JobUpdate]) -> Job:
    return job.model_copy(update={"updates": updates, "omitted_updates": 0})


def may(job: Job, permission: Permission) -> bool:
    return job.permissions is not None and permission in job.permissions.myself

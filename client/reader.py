"""Reads jobs as one actor may see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from client.connection import ActorConnection, is_owned_by
from client.errors import (
    JobClosed,
    JobNotFound,
    OrchestratorError,
    RequestRefused,
    Unreachable,
    map_errors,
)
from client.sources import ArchivedJobs, JobFilter, LiveJobs, with_updates
from ucloud_orchestrator.models.access import restrict_to_reader
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job, JobOwner, Permission

FOLLOW_INTERVAL = 0.5
"""Seconds between two polls of a followed job, as in UCloud's own `follow`."""


class JobReader:
    """The jobs of both sources, with the actor's permissions."""

    def __init__(self, connection: ActorConnection) -> None:
        self._connection = connection
        self._live = LiveJobs(connection)
        self._archive = ArchivedJobs(connection)

    async def retrieve(self, job_id: str) -> Job:
        """Return the job with all its updates. Raises `JobNotFound`."""
        return await self.as_seen(await self._retrieve(job_id))

    async def browse(self, filters: JobFilter, limit: int, before: str | None) -> list[Job]:
        """Return a page of jobs, newest first, without their updates."""
        if not await self._connection.is_member():
            return []
        visible: list[Job] = []
        while True:
            live = await self._live.browse(filters, limit, before)
            ended = await self._archive.browse(filters, limit, before)
            jobs = {job.id: job for job in [*live, *ended]}
            page = sorted(jobs.values(), key=lambda job: job.id, reverse=True)[:limit]
            for job in page:
                with suppress(JobNotFound):
                    visible.append(await self.as_seen(job))
            if len(page) < limit or len(visible) >= limit:
                return visible[:limit]
            before = page[-1].id

    async def follow(self, job_id: str) -> AsyncIterator[Job]:
        """Poll the job until it has ended; yield it first and after each change."""
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
        """Wait for the end of the job's workflow and return the job. Raises `JobNotFound`."""
        await self.require(job_id, Permission.READ)
        with suppress(OrchestratorError), map_errors():
            # The workflow's own outcome does not matter: the job has its state.
            await self._connection.handle(job_id).result()
        return [job async for job in self.follow(job_id)][-1]

    async def as_seen(self, job: Job) -> Job:
        """Return the job with the actor's permissions. Raises `JobNotFound` without READ."""
        username = self._connection.actor.username
        is_own = job.owner == JobOwner(created_by=username)
        memberships = [] if is_own else await self._connection.memberships()
        job = restrict_to_reader(job, username, memberships)
        if not _has(job, Permission.READ):
            raise JobNotFound(job.id)
        return job

    async def require(self, job_id: str, permission: Permission) -> None:
        """Check a permission of the actor.

        Raises `JobNotFound` if the actor may not see the job. Raises `RequestRefused` if they may
        only see it.
        """
        if await self._is_personal(job_id):
            return
        if not _has(await self.retrieve(job_id), permission):
            raise RequestRefused(
                ErrorCode.FORBIDDEN, f"You may not change the job {job_id}; {permission} is needed."
            )

    async def _is_personal(self, job_id: str) -> bool:
        """Return whether Temporal has the job in the actor's personal workspace.

        This needs no worker.
        """
        try:
            with map_errors():
                description = await self._connection.handle(job_id).describe()
        except JobClosed:
            return False
        return is_owned_by(description, JobOwner(created_by=self._connection.actor.username))

    async def _retrieve(self, job_id: str) -> Job:
        try:
            live, is_closed = await self._live.retrieve(job_id)
        except Unreachable:
            # The workflow was reset after its end, or its code has changed: the archive stays true.
            ended, stored = await self._archive.retrieve(job_id)
            if ended is None:
                raise
            return with_updates(ended, stored)
        is_final = live is not None and live.status.state.is_terminal
        if live is not None and not live.omitted_updates and (is_final or not is_closed):
            return live
        ended, stored = await self._archive.retrieve(job_id)
        if live is not None and (is_final or ended is None):
            # The store may have got more updates since the workflow answered.
            return with_updates(live, [*stored[: live.omitted_updates], *live.updates])
        if ended is None:
            raise JobNotFound(job_id)
        # A terminated workflow does not have the job's end; the provider check archives it.
        return with_updates(ended, stored)


def _has(job: Job, permission: Permission) -> bool:
    return job.permissions is not None and permission in job.permissions.myself

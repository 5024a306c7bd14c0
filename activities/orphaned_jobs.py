"""Claims of jobs whose workflows were terminated: find them, and release them after a stop."""

from __future__ import annotations

import time
from functools import partial

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from ucloud_orchestrator.models.claims import job_of
from ucloud_orchestrator.models.job import Job, JobState, JobUpdate
from ucloud_orchestrator.models.messages import OrphanedJob, OrphanedJobs, ProviderCheckRequest
from ucloud_orchestrator.models.update_paging import query_all_pages
from ucloud_orchestrator.store import ClaimStore
from ucloud_orchestrator.temporal import queries
from ucloud_orchestrator.temporal.names import JOB_PROVIDER, QUERY_JOB

ENDED_BY_FORCE = "The job's workflow was ended by force; the job was stopped."


class OrphanedJobActivities:
    """Activities of the provider check that compare the store with Temporal. Idempotent."""

    def __init__(self, claims: ClaimStore, client: Client) -> None:
        self._claims = claims
        self._client = client

    @activity.defn
    async def find_orphaned(self, request: ProviderCheckRequest) -> OrphanedJobs:
        """Return the jobs of a page whose workflows are closed.

        Costs one visibility query per page if there are none.
        """
        claims, last = await self._claims.list_claims(request.provider, request.after)
        if not claims:
            return OrphanedJobs(jobs=[])
        running = await self._list_running(request.provider, claims[0].job_id, claims[-1].job_id)
        orphans = [
            OrphanedJob(job_id=claim.job_id, claimed_by=claim.claimed_by)
            for claim in claims
            # Visibility is eventually consistent, so each job that is missing in it is described.
            if claim.job_id not in running
            and await self._is_closed(claim.job_id)
            and (claim.claimed_by == claim.job_id or await self._is_closed(claim.claimed_by))
        ]
        return OrphanedJobs(jobs=orphans, last=last)

    @activity.defn
    async def retrieve_orphaned(self, orphan: OrphanedJob) -> Job | None:
        """Return the job without updates, as it is sent to its provider: None without a claim."""
        job = await self._last_state(orphan)
        return job.model_copy(update={"updates": [], "omitted_updates": 0}) if job else None

    @activity.defn
    async def settle_orphaned(self, orphan: OrphanedJob) -> None:
        """Release the job's claim, and archive the job with its last state, as a FAILURE."""
        job = await self._last_state(orphan)
        if job is None:
            return
        if not job.status.state.is_terminal:
            now = int(time.time() * 1000)
            end = JobUpdate(timestamp=now, state=JobState.FAILURE, status=ENDED_BY_FORCE)
            status = job.status.model_copy(update={"state": JobState.FAILURE})
            job = job.model_copy(update={"status": status, "updates": [*job.updates, end]})
        await self._claims.settle(job)

    async def _last_state(self, orphan: OrphanedJob) -> Job | None:
        claim = await self._claims.find_claim(orphan.job_id, orphan.claimed_by)
        if claim is None:
            return None
        handle = self._client.get_workflow_handle(orphan.job_id)
        try:
            # A closed workflow still answers queries.
            return await query_all_pages(partial(handle.query, QUERY_JOB, result_type=dict))
        except WorkflowQueryFailedError:
            return job_of(claim, JobState.IN_QUEUE, int(time.time() * 1000))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return job_of(claim, JobState.IN_QUEUE, int(time.time() * 1000))
            raise

    async def _list_running(self, provider: str, first: str, last: str) -> set[str]:
        query = queries.running_jobs(
            queries.equals(JOB_PROVIDER, provider), queries.ids_from_to(first, last)
        )
        return {execution.id async for execution in self._client.list_workflows(query)}

    async def _is_closed(self, workflow_id: str) -> bool:
        try:
            description = await self._client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return True
            raise
        return description.status is not WorkflowExecutionStatus.RUNNING

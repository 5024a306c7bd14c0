"""What is held for jobs whose workflows somebody has ended by force: found, and given back once
they are stopped.
"""

from __future__ import annotations

import time
from functools import partial

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from ucloud_orchestrator.models.claims import Claim
from ucloud_orchestrator.models.job import Job, JobState, JobStatus, JobUpdate
from ucloud_orchestrator.models.messages import OrphanedJob, OrphanedJobs, ProviderCheckRequest
from ucloud_orchestrator.models.update_paging import query_all_pages
from ucloud_orchestrator.store import LIVE_PAGE, ClaimStore
from ucloud_orchestrator.temporal import queries
from ucloud_orchestrator.temporal.names import JOB_PROVIDER, QUERY_JOB

ENDED_BY_FORCE = "The job's workflow was ended by force; the job was stopped."


class OrphanedJobActivities:
    """The steps of a scheduled check that compares the store with Temporal. All may be repeated."""

    def __init__(self, holdings: ClaimStore, client: Client) -> None:
        self._holdings = holdings
        self._client = client

    @activity.defn
    async def find_orphaned(self, request: ProviderCheckRequest) -> OrphanedJobs:
        """Of a page of live jobs those whose workflows are closed.

        Costs one question to Temporal, if there is none.
        """
        page = await self._holdings.live(request.provider, request.after)
        if not page:
            return OrphanedJobs(jobs=[])
        running = await self._running(request.provider, page[0].job_id, page[-1].job_id)
        abandoned = [
            OrphanedJob(job_id=holding.job_id, claimed_by=holding.claimed_by)
            for holding in page
            # Temporal's list may be a little old, so whoever is not in it is asked for by name.
            if holding.job_id not in running
            and await self._is_closed(holding.job_id)
            and (holding.claimed_by == holding.job_id or await self._is_closed(holding.claimed_by))
        ]
        return OrphanedJobs(
            jobs=abandoned, last=page[-1].job_id if len(page) == LIVE_PAGE else None
        )

    @activity.defn
    async def retrieve_orphaned(self, abandoned: OrphanedJob) -> Job | None:
        """The job for its provider, without its updates; None if nothing is held for it any
        more.
        """
        job = await self._last_known(abandoned)
        return job.model_copy(update={"updates": [], "omitted_updates": 0}) if job else None

    @activity.defn
    async def settle_orphaned(self, abandoned: OrphanedJob) -> None:
        """Give back what is held for the job, and archive it with what its workflow knew, as a
        FAILURE.
        """
        job = await self._last_known(abandoned)
        if job is None:
            return
        if not job.status.state.is_terminal:
            now = int(time.time() * 1000)
            end = JobUpdate(timestamp=now, state=JobState.FAILURE, status=ENDED_BY_FORCE)
            status = job.status.model_copy(update={"state": JobState.FAILURE})
            job = job.model_copy(update={"status": status, "updates": [*job.updates, end]})
        await self._holdings.settle(job)

    async def _last_known(self, abandoned: OrphanedJob) -> Job | None:
        holding = await self._holdings.find_claim(abandoned.job_id, abandoned.claimed_by)
        if holding is None:
            return None
        handle = self._client.get_workflow_handle(abandoned.job_id)
        try:
            return await query_all_pages(
                partial(handle.query, QUERY_JOB, result_type=dict)
            )  # a closed workflow still answers
        except WorkflowQueryFailedError:
            return _from_holding(holding)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return _from_holding(holding)
            raise

    async def _running(self, provider: str, first: str, last: str) -> set[str]:
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


def _from_holding(holding: Claim) -> Job:
    return Job(
        id=holding.job_id,
        owner=holding.owner,
        specification=holding.specification,
        status=JobStatus(state=JobState.IN_QUEUE),
        created_at=int(time.time() * 1000),
    )

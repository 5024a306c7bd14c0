"""Asking a provider whether it still has its jobs, many in one call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from temporalio import activity
from temporalio.client import Client
from temporalio.common import SearchAttributeKey

from activities.provider_http import ProviderHttp
from ucloud_orchestrator.models.claims import Claim
from ucloud_orchestrator.models.job import Job, JobState, JobStatus
from ucloud_orchestrator.models.messages import ProviderCheckRequest, VerifiedJobs
from ucloud_orchestrator.store import ClaimStore
from ucloud_orchestrator.temporal import queries
from ucloud_orchestrator.temporal.names import JOB_PROVIDER, JOB_STATE

VERIFY_PAGE = 100
"""Jobs in one call; each may be a few kilobytes."""
CALL_BYTES = 8 * 1024 * 1024
"""Of one call; providers need not read bodies without end."""
STATES_SET_BY_PROVIDER = (JobState.RUNNING, JobState.SUSPENDED)
"""States that only the provider can have brought about."""
VERIFIED = (JobState.IN_QUEUE, *STATES_SET_BY_PROVIDER)


class ProviderSyncActivities:
    """On the provider's own task queue. May be repeated."""

    def __init__(
        self, provider: str, http: ProviderHttp, holdings: ClaimStore, client: Client
    ) -> None:
        self._provider = provider
        self._http = http
        self._holdings = holdings
        self._client = client

    @activity.defn
    async def verify(self, request: ProviderCheckRequest) -> VerifiedJobs:
        """Have the provider report the end of those jobs of a page that it does not know.

        A job that is being submitted is live here, and not yet known there; to verify it would fail
        it, and its submission may be tried for hours. So only those jobs are verified of which the
        provider has said that it has them: by its answer to the submission, which the store has
        noted, or because they run or are suspended. A list in Temporal that is a little old does no
        harm: the state is then one that the job has been in, and a report about a job that has
        ended meanwhile is dropped.

        Costs one question to Temporal and one call for each page, however old the jobs are. Nothing
        is written into the jobs' own histories, unless a job is gone.
        """
        page = await self._holdings.live(request.provider, request.after, VERIFY_PAGE)
        last = page[-1].job_id if len(page) == VERIFY_PAGE else None
        if not page:
            return VerifiedJobs(count=0)
        states = await self._states(page[0].job_id, page[-1].job_id)
        finished = await self._holdings.submitted([holding.job_id for holding in page])
        jobs = [
            _as_job(holding, state)
            for holding in page
            if (state := states.get(holding.job_id)) is not None
            and (state in STATES_SET_BY_PROVIDER or holding.job_id in finished)
        ]
        for some in _calls(jobs):
            await self._http.post("/verify", *some)
        return VerifiedJobs(count=len(jobs), last=last)

    async def _states(self, first: str, last: str) -> dict[str, JobState]:
        """Of the jobs with these ids, in their order, that may be verified."""
        query = queries.running_jobs(
            queries.equals(JOB_PROVIDER, self._provider),
            queries.one_of(JOB_STATE, VERIFIED),
            queries.ids_from_to(first, last),
        )
        key = SearchAttributeKey.for_keyword(JOB_STATE)
        return {
            execution.id: JobState(execution.typed_search_attributes[key])
            async for execution in self._client.list_workflows(query)
        }


def _calls(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """The jobs in calls of about `CALL_BYTES`: as a rule one."""
    call: list[Job] = []
    room = CALL_BYTES
    for job in jobs:
        size = len(job.model_dump_json())
        if call and room < size:
            yield call
            call, room = [], CALL_BYTES
        call.append(job)
        room -= size
    if call:
        yield call


def _as_job(holding: Claim, state: JobState) -> Job:
    return Job(
        id=holding.job_id,
        owner=holding.owner,
        specification=holding.specification,
        status=JobStatus(state=state),
        created_at=int(time.time() * 1000),
    )

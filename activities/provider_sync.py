"""Verification of a provider's jobs: it reports the end of those that it does not have."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from temporalio import activity
from temporalio.client import Client
from temporalio.common import SearchAttributeKey

from activities.provider_http import ProviderHttp
from ucloud_orchestrator.models.claims import job_of
from ucloud_orchestrator.models.job import Job, JobState
from ucloud_orchestrator.models.messages import ProviderCheckRequest, VerifiedJobs
from ucloud_orchestrator.store import ClaimStore
from ucloud_orchestrator.temporal import queries
from ucloud_orchestrator.temporal.names import JOB_PROVIDER, JOB_STATE

JOBS_PER_PAGE = 100
"""Each may be a few kilobytes."""
BYTES_PER_CALL = 8 * 1024 * 1024
"""A provider may limit the bodies that it reads."""
STATES_SET_BY_PROVIDER = (JobState.RUNNING, JobState.SUSPENDED)
VERIFIED_STATES = (JobState.IN_QUEUE, *STATES_SET_BY_PROVIDER)


class ProviderSyncActivities:
    """An activity of the provider check, on the provider's task queue. Idempotent."""

    def __init__(
        self, provider: str, http: ProviderHttp, claims: ClaimStore, client: Client
    ) -> None:
        self._provider = provider
        self._http = http
        self._claims = claims
        self._client = client

    @activity.defn
    async def verify(self, request: ProviderCheckRequest) -> VerifiedJobs:
        """Call the provider's `verify` with the jobs of a page that it has acknowledged.

        A job that is being submitted is live here and unknown there: `verify` would end it, and
        its submission may be retried for hours. A job is acknowledged if the store has recorded
        the provider's answer to the submission, or if the job runs or is suspended.

        Visibility is eventually consistent. That does no harm: an outdated state was once the
        job's, and a report about an ended job is dropped.

        Costs one visibility query and one call per page. Only the history of a job that is gone
        grows.
        """
        claims, last = await self._claims.list_claims(
            request.provider, request.after, JOBS_PER_PAGE
        )
        if not claims:
            return VerifiedJobs(count=0)
        states = await self._find_states(claims[0].job_id, claims[-1].job_id)
        submitted = await self._claims.find_submitted([claim.job_id for claim in claims])
        now = int(time.time() * 1000)
        jobs = [
            job_of(claim, state, now)
            for claim in claims
            if (state := states.get(claim.job_id)) is not None
            and (state in STATES_SET_BY_PROVIDER or claim.job_id in submitted)
        ]
        for chunk in _chunks(jobs):
            await self._http.post("/verify", *chunk)
        return VerifiedJobs(count=len(jobs), last=last)

    async def _find_states(self, first: str, last: str) -> dict[str, JobState]:
        """Return the states of those jobs in a range of ids whose state may be verified."""
        query = queries.running_jobs(
            queries.equals(JOB_PROVIDER, self._provider),
            queries.one_of(JOB_STATE, VERIFIED_STATES),
            queries.ids_from_to(first, last),
        )
        key = SearchAttributeKey.for_keyword(JOB_STATE)
        return {
            execution.id: JobState(execution.typed_search_attributes[key])
            async for execution in self._client.list_workflows(query)
        }


def _chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Split jobs into calls of about `BYTES_PER_CALL`: one, as a rule."""
    chunk: list[Job] = []
    remaining = BYTES_PER_CALL
    for job in jobs:
        size = len(job.model_dump_json())
        if chunk and remaining < size:
            yield chunk
            chunk, remaining = [], BYTES_PER_CALL
        chunk.append(job)
        remaining -= size
    if chunk:
        yield chunk

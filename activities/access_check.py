"""The scheduled check of a provider's jobs for access that their owners have lost."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.job_references import catalog_references
from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.errors import truncate
from ucloud_orchestrator.models.messages import JobsToCancel, JobToCancel, ProviderCheckRequest
from ucloud_orchestrator.models.resource_verification import lost_access_findings
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.store import ClaimStore


class AccessCheckActivities:
    """Activities of the provider check. Idempotent."""

    def __init__(self, catalog: Callable[[], Catalog], claims: ClaimStore, client: Client) -> None:
        self._catalog = catalog
        self._claims = claims
        self._client = client

    @activity.defn
    async def find_lost_access(self, request: ProviderCheckRequest) -> JobsToCancel:
        """Return the jobs of a page that use what their owners may no longer use, with reasons."""
        catalog = self._catalog()
        claims, last = await self._claims.list_claims(request.provider, request.after)
        jobs = []
        for claim in claims:
            references = catalog_references(catalog, claim.owner)
            findings = lost_access_findings(claim.owner, claim.specification, references)
            if findings:
                reason = " ".join(finding.message for finding in findings)
                text = truncate(f"system initiated (lost permissions). {reason}")
                jobs.append(JobToCancel(job_id=claim.job_id, reason=text))
        return JobsToCancel(jobs=jobs, last=last)

    @activity.defn
    async def cancel_jobs(self, request: JobsToCancel) -> None:
        """Cancel jobs, each with its reason. A job that has ended is skipped.

        Raises the last error, after it has tried all jobs.
        """
        failed: RPCError | None = None
        for job in request.jobs:
            try:
                await self._client.get_workflow_handle(job.job_id).cancel(reason=job.reason)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    with job_log_context(job.job_id):
                        activity.logger.error(
                            "The job %s could not be cancelled: %s", job.job_id, error
                        )
                    failed = error
        if failed is not None:
            raise failed

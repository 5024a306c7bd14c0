"""The scheduled check of one provider: which live jobs use something that their owners may no
longer use.
"""

from __future__ import annotations

from collections.abc import Callable

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.job_references import catalog_surroundings
from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.errors import truncate
from ucloud_orchestrator.models.messages import JobsToCancel, JobToCancel, ProviderCheckRequest
from ucloud_orchestrator.models.resource_verification import lost_access_findings
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.store import LIVE_PAGE, ClaimStore


class AccessCheckActivities:
    """All live jobs of a provider in one step each; both may be repeated."""

    def __init__(
        self, catalog: Callable[[], Catalog], holdings: ClaimStore, client: Client
    ) -> None:
        self._catalog = catalog
        self._holdings = holdings
        self._client = client

    @activity.defn
    async def find_lost_access(self, request: ProviderCheckRequest) -> JobsToCancel:
        """Of a page of live jobs those that use what their owners may not use any more, and what
        that is.
        """
        catalog = self._catalog()
        lost = []
        page = await self._holdings.live(request.provider, request.after)
        for holding in page:
            around = catalog_surroundings(catalog, holding.owner)
            findings = lost_access_findings(holding.owner, holding.specification, around)
            if findings:
                reason = " ".join(finding.message for finding in findings)
                text = truncate(f"system initiated (lost permissions). {reason}")
                lost.append(JobToCancel(job_id=holding.job_id, reason=text))
        return JobsToCancel(jobs=lost, last=page[-1].job_id if len(page) == LIVE_PAGE else None)

    @activity.defn
    async def cancel_jobs(self, request: JobsToCancel) -> None:
        """Cancel jobs, each with its reason; one that has ended meanwhile stays so.

        Raises the last error, after all the others were cancelled.
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

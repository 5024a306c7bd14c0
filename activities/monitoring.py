"""The scheduled check of one provider: which live jobs use something that their owners may no longer use."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.surroundings import catalog_surroundings
from catalog import Catalog
from models.messages import JobsToCancel, JobToCancel, MonitorRequest
from models.resource_verification import access_findings
from store import Holdings


class MonitoringActivities:
    """All live jobs of a provider in one step each; both may be repeated."""

    def __init__(self, catalog: Callable[[], Catalog], holdings: Holdings, client: Client) -> None:
        self._catalog = catalog
        self._holdings = holdings
        self._client = client

    @activity.defn
    async def find_lost_access(self, request: MonitorRequest) -> JobsToCancel:
        """The live jobs that use what their owners may not use any more, and what that is."""
        catalog = self._catalog()
        lost = []
        for holding in await self._holdings.live(request.provider):
            around = catalog_surroundings(catalog, holding.owner)
            findings = access_findings(holding.owner, holding.specification, around)
            if findings:
                reason = " ".join(finding.message for finding in findings)
                lost.append(JobToCancel(job_id=holding.job_id, reason=f"system initiated (lost permissions). {reason}"))
        return JobsToCancel(jobs=lost)

    @activity.defn
    async def cancel_jobs(self, request: JobsToCancel) -> None:
        """Cancel jobs, each with its reason; one that has ended meanwhile stays so."""
        for job in request.jobs:
            try:
                await self._client.get_workflow_handle(job.job_id).cancel(reason=job.reason)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise

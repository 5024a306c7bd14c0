"""The workflow `ProviderCheck`: a schedule starts it for each provider at an interval."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.access_check import AccessCheckActivities
from activities.orphaned_jobs import OrphanedJobActivities
from activities.products import ProductActivities
from activities.provider import ProviderActivities
from activities.provider_sync import ProviderSyncActivities
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.messages import (
    JobsToCancel,
    OrphanedJob,
    OrphanedJobs,
    ProviderCall,
    ProviderCheckRequest,
    VerifiedJobs,
)
from ucloud_orchestrator.temporal.names import PROVIDER_CHECK_WORKFLOW, provider_task_queue
from workflows import timeouts


@workflow.defn(name=PROVIDER_CHECK_WORKFLOW)
class ProviderCheckWorkflow:
    """One check of all live jobs of a provider.

    Its cost grows with their number, never with their age.
    """

    @workflow.run
    async def run(self, request: ProviderCheckRequest) -> int:
        """Cancel jobs whose owners lost access; return how many. Then end orphaned jobs.

        The provider is called last, so that the rest is done even if it does not answer.
        """
        cancelled = await self._cancel_without_access(request.provider)
        await self._end_orphans(request.provider)
        await self._verify(request.provider)
        await self._refresh_products(request.provider)
        return cancelled

    async def _refresh_products(self, provider: str) -> None:
        """Fetch the provider's products. Without an answer the stored ones stay valid."""
        try:
            await workflow.execute_activity_method(
                ProductActivities.refresh_products,
                task_queue=provider_task_queue(provider),
                start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
                schedule_to_close_timeout=timeouts.REQUEST_TIMEOUT,
                retry_policy=timeouts.PROVIDER_RETRY,
                summary=f"Retrieve products of {provider}",
            )
        except ActivityError as error:
            workflow.logger.warning(
                "The provider %s did not return its products: %s", provider, error.cause
            )

    async def _cancel_without_access(self, provider: str) -> int:
        cancelled, last = 0, None
        while True:
            lost: JobsToCancel = await workflow.execute_activity_method(
                AccessCheckActivities.find_lost_access,
                ProviderCheckRequest(provider=provider, after=last),
                start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
                summary="Check access of live jobs",
            )
            if lost.jobs:
                await workflow.execute_activity_method(
                    AccessCheckActivities.cancel_jobs,
                    lost,
                    start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
                    schedule_to_close_timeout=timeouts.PROVIDER_CHECK_TIMEOUT,
                    retry_policy=timeouts.STORE_RETRY,
                    summary=f"Cancel {len(lost.jobs)} jobs",
                )
            cancelled, last = cancelled + len(lost.jobs), lost.last
            if last is None:
                return cancelled

    async def _end_orphans(self, provider: str) -> None:
        """Terminate the jobs whose workflows were terminated, and release their claims."""
        last = None
        while True:
            found: OrphanedJobs = await workflow.execute_activity_method(
                OrphanedJobActivities.find_orphaned,
                ProviderCheckRequest(provider=provider, after=last),
                start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
                summary="Find jobs without a workflow",
            )
            for orphan in found.jobs:
                await self._end_orphan(provider, orphan)
            last = found.last
            if last is None:
                return

    async def _verify(self, provider: str) -> None:
        """Let the provider verify its jobs. The next check repeats what it did not answer."""
        last = None
        while True:
            verified: VerifiedJobs = await workflow.execute_activity_method(
                ProviderSyncActivities.verify,
                ProviderCheckRequest(provider=provider, after=last),
                task_queue=provider_task_queue(provider),
                start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
                schedule_to_close_timeout=timeouts.PROVIDER_CHECK_TIMEOUT,
                retry_policy=timeouts.PROVIDER_RETRY,
                summary="Verify jobs",
            )
            last = verified.last
            if last is None:
                return

    async def _end_orphan(self, provider: str, orphan: OrphanedJob) -> None:
        job: Job | None = await workflow.execute_activity_method(
            OrphanedJobActivities.retrieve_orphaned,
            orphan,
            start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )
        if job is None:
            return
        # If the job cannot be stopped, this check fails and the next one retries. The claim of a
        # job that may run is not released.
        await workflow.execute_activity_method(
            ProviderActivities.terminate,
            ProviderCall(job=job),
            task_queue=provider_task_queue(provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            schedule_to_close_timeout=timeouts.PROVIDER_CHECK_TIMEOUT,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            summary=f"Stop {job.id} at {provider}",
        )
        await workflow.execute_activity_method(
            OrphanedJobActivities.settle_orphaned,
            orphan,
            start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
            summary=f"Settle {job.id}",
        )

"""The workflow `ProviderMonitor`: what a schedule starts for each provider, again and again."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows import timeouts

with workflow.unsafe.imports_passed_through():
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


@workflow.defn(name=PROVIDER_CHECK_WORKFLOW)
class ProviderCheckWorkflow:
    """One check of all live jobs of a provider.

    Its cost grows with their number, never with their age.
    """

    @workflow.run
    async def run(self, request: ProviderCheckRequest) -> int:
        """Cancel the jobs whose owners lost access to what they use; returns how many. Then end
        abandoned ones.

        The provider is asked last, so that the rest is done also if it does not answer.
        """
        cancelled = await self._cancel_lost(request.provider)
        await self._reconcile(request.provider)
        await self._verify(request.provider)
        await self._refresh_products(request.provider)
        return cancelled

    async def _refresh_products(self, provider: str) -> None:
        """Hear what the provider offers now; if it does not say, what it said before stays true."""
        try:
            await workflow.execute_activity_method(
                ProductActivities.refresh_products,
                task_queue=provider_task_queue(provider),
                start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
                schedule_to_close_timeout=timeouts.REQUEST_TIMEOUT,
                retry_policy=timeouts.PROVIDER_RETRY,
                summary=f"Ask {provider} for its products",
            )
        except ActivityError as error:
            workflow.logger.warning(
                "The provider %s did not say what it offers: %s", provider, error.cause
            )

    async def _cancel_lost(self, provider: str) -> int:
        cancelled, last = 0, None
        while True:
            lost: JobsToCancel = await workflow.execute_activity_method(
                AccessCheckActivities.find_lost_access,
                ProviderCheckRequest(provider=provider, after=last),
                start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
                summary="Check what live jobs use",
            )
            if lost.jobs:
                await workflow.execute_activity_method(
                    AccessCheckActivities.cancel_jobs,
                    lost,
                    start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
                    schedule_to_close_timeout=timeouts.MONITOR_TIMEOUT,
                    retry_policy=timeouts.STORE_RETRY,
                    summary=f"Cancel {len(lost.jobs)} jobs",
                )
            cancelled, last = cancelled + len(lost.jobs), lost.last
            if last is None:
                return cancelled

    async def _reconcile(self, provider: str) -> None:
        """Stop the jobs whose workflows were ended by force, and give back what they hold."""
        last = None
        while True:
            found: OrphanedJobs = await workflow.execute_activity_method(
                OrphanedJobActivities.find_orphaned,
                ProviderCheckRequest(provider=provider, after=last),
                start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
                summary="Look for jobs without a workflow",
            )
            for abandoned in found.jobs:
                await self._end(provider, abandoned)
            last = found.last
            if last is None:
                return

    async def _verify(self, provider: str) -> None:
        """Let the provider say which jobs it does not have; what is not answered now is asked by
        the next check.
        """
        last = None
        while True:
            verified: VerifiedJobs = await workflow.execute_activity_method(
                ProviderSyncActivities.verify,
                ProviderCheckRequest(provider=provider, after=last),
                task_queue=provider_task_queue(provider),
                start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
                schedule_to_close_timeout=timeouts.MONITOR_TIMEOUT,
                retry_policy=timeouts.PROVIDER_RETRY,
                summary="Verify jobs",
            )
            last = verified.last
            if last is None:
                return

    async def _end(self, provider: str, abandoned: OrphanedJob) -> None:
        job: Job | None = await workflow.execute_activity_method(
            OrphanedJobActivities.retrieve_orphaned,
            abandoned,
            start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )
        if job is None:
            return
        # If it cannot be stopped, the check fails, and the next one tries again: until then it is
        # not free.
        await workflow.execute_activity_method(
            ProviderActivities.terminate,
            ProviderCall(job=job),
            task_queue=provider_task_queue(provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            schedule_to_close_timeout=timeouts.MONITOR_TIMEOUT,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            summary=f"Stop {job.id} at {provider}",
        )
        await workflow.execute_activity_method(
            OrphanedJobActivities.settle_orphaned,
            abandoned,
            start_to_close_timeout=timeouts.PROVIDER_CHECK_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
            summary=f"Settle {job.id}",
        )

"""The workflow `ProviderMonitor`: what a schedule starts for each provider, again and again."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.monitoring import MonitoringActivities
    from models.messages import JobsToCancel, MonitorRequest
    from models.names import MONITOR_WORKFLOW
    from workflows import timeouts


@workflow.defn(name=MONITOR_WORKFLOW)
class ProviderMonitorWorkflow:
    """One check of all live jobs of a provider. Its cost grows with their number, never with their age."""

    @workflow.run
    async def run(self, request: MonitorRequest) -> int:
        """Cancel the jobs whose owners lost access to what they use; returns how many."""
        cancelled, last = 0, request.after
        while True:
            lost: JobsToCancel = await workflow.execute_activity_method(
                MonitoringActivities.find_lost_access,
                MonitorRequest(provider=request.provider, after=last),
                start_to_close_timeout=timeouts.MONITOR_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
                summary="Check what live jobs use",
            )
            if lost.jobs:
                await workflow.execute_activity_method(
                    MonitoringActivities.cancel_jobs,
                    lost,
                    start_to_close_timeout=timeouts.MONITOR_ATTEMPT,
                    schedule_to_close_timeout=timeouts.MONITOR_PATIENCE,
                    retry_policy=timeouts.STORE_RETRY,
                    summary=f"Cancel {len(lost.jobs)} jobs",
                )
            cancelled, last = cancelled + len(lost.jobs), lost.last
            if last is None:
                return cancelled

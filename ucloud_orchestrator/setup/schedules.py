"""Schedule the check of a provider's live jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from ucloud_orchestrator.models.messages import ProviderCheckRequest
from ucloud_orchestrator.setup.steps import Outcome, Step
from ucloud_orchestrator.temporal.names import (
    PROVIDER_CHECK_WORKFLOW,
    TASK_QUEUE,
    provider_check_id,
)


async def schedule_provider_check(client: Client, provider: str, interval: timedelta) -> Step:
    """Create the schedule of a provider, or change its interval.

    A schedule that an operator has paused stays paused.
    """
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            PROVIDER_CHECK_WORKFLOW,
            ProviderCheckRequest(provider=provider),
            id=provider_check_id(provider),
            task_queue=TASK_QUEUE,
            static_summary=f"Check the live jobs at {provider}",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )
    outcome: Outcome = "made"

    def set_interval(update: ScheduleUpdateInput) -> ScheduleUpdate:
        nonlocal outcome
        existing = update.description.schedule
        outcome = "there" if existing.spec.intervals == schedule.spec.intervals else "changed"
        return ScheduleUpdate(schedule=replace(schedule, state=existing.state))

    try:
        await client.create_schedule(provider_check_id(provider), schedule)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(provider_check_id(provider)).update(set_interval)
    return Step(
        outcome, f"the schedule {provider_check_id(provider)}, every {interval.total_seconds():g} s"
    )

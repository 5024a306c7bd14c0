"""The credits of a job: what is reserved, charged and settled, one step at a time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities.accounting import AccountingActivities
from activities.completion import CompletionActivities
from ucloud_orchestrator.models.accounting import ChargeResult
from ucloud_orchestrator.models.end_reason import NO_CREDITS
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import JobUpdate
from ucloud_orchestrator.models.messages import ChargeCall, ReserveCall, Settlement
from ucloud_orchestrator.models.provider_api import Charge
from workflows import timeouts
from workflows.errors import as_rejection, rejection
from workflows.job_state import Phase
from workflows.job_tracker import JobTracker, now


class JobAccounting:
    """Accounts for one job. A lock keeps its transactions apart."""

    def __init__(self, tracker: JobTracker) -> None:
        self._tracker = tracker
        self._state = tracker.state
        self._lock = asyncio.Lock()
        self._grace_timer: asyncio.Task[None] | None = None

    async def reserve(self, milliseconds: int) -> None:
        """Reserve the price of that whole allocation. Raises a rejection if the wallet has less."""
        async with self._lock:
            if self._state.phase is Phase.SETTLEMENT:
                return
            try:
                await workflow.execute_local_activity_method(
                    AccountingActivities.reserve,
                    ReserveCall(job_id=self._state.job.id, milliseconds=milliseconds),
                    start_to_close_timeout=timeouts.STORE_ATTEMPT,
                    retry_policy=timeouts.STORE_RETRY,
                )
            except FailureError as error:
                raise as_rejection(error) from error

    async def charge(self, charges: list[Charge]) -> ChargeResult:
        """Charge the wallet; each charge id counts once. Raises a rejection after settlement."""
        async with self._lock:
            if self._state.phase is Phase.SETTLEMENT:
                raise rejection(
                    ErrorCode.INVALID_STATE, "The job has ended and its bill is closed."
                )
            try:
                result: ChargeResult = await workflow.execute_local_activity_method(
                    AccountingActivities.charge,
                    ChargeCall(job_id=self._state.job.id, charges=charges),
                    start_to_close_timeout=timeouts.STORE_ATTEMPT,
                    retry_policy=timeouts.STORE_RETRY,
                )
            except FailureError as error:
                raise as_rejection(error) from error
            self._state.change_billing(credits_charged=result.credits_charged)
            self._follow_credits(result)
            return result

    async def settle(self) -> None:
        """Release the job's claim, close its bill and archive it. Idempotent."""
        self._state.phase = Phase.SETTLEMENT
        async with self._lock:  # a charge that is under way still counts
            await workflow.execute_local_activity_method(
                CompletionActivities.settle,
                Settlement(job=self._state.job),
                start_to_close_timeout=timeouts.STORE_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
            )

    async def withdraw(self) -> None:
        await workflow.execute_local_activity_method(
            CompletionActivities.withdraw,
            self._state.job.id,
            start_to_close_timeout=timeouts.STORE_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )

    def resume_grace_timer(self) -> None:
        """Start the timer of a job that was out of credits before it continued as new."""
        if self._state.out_of_credits_since is not None:
            self._start_grace_timer(self._state.out_of_credits_since)

    def _follow_credits(self, result: ChargeResult) -> None:
        if not result.insufficient_funds:
            if result.newly_charged == 0:
                return  # a repeat, or a charge of nothing, says nothing about the wallet
            if self._grace_timer is not None:
                self._grace_timer.cancel()
            self._grace_timer = self._state.out_of_credits_since = None
        elif self._state.out_of_credits_since is None:
            self._state.out_of_credits_since = now()
            minutes = timeouts.CREDIT_GRACE.total_seconds() / 60
            text = (
                f"There are no more credits for this job; it will be stopped in {minutes:.0f} "
                "minutes."
            )
            self._tracker.apply([JobUpdate(status=text)])
            self._start_grace_timer(self._state.out_of_credits_since)
        self._tracker.refresh()

    def _start_grace_timer(self, since: int) -> None:
        self._grace_timer = asyncio.create_task(self._stop_after_grace(since))

    async def _stop_after_grace(self, since: int) -> None:
        elapsed = timedelta(milliseconds=now() - since)
        await workflow.sleep(
            max(timedelta(0), timeouts.CREDIT_GRACE - elapsed), summary="No more credits"
        )
        self._state.stop_reason = f"Your job is being terminated {NO_CREDITS}."

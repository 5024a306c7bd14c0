"""Admission and submission of a job: all of it, or nothing is claimed and nothing runs."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from activities.admission import AdmissionActivities
from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.messages import (
    AdmissionRequest,
    BatchMembership,
    BatchOutcome,
    LeaveRequest,
    SubmitResult,
)
from ucloud_orchestrator.temporal.names import SIGNAL_LEAVE
from workflows import timeouts
from workflows.errors import as_rejection, rejection
from workflows.job_accounting import JobAccounting
from workflows.job_tracker import JobTracker
from workflows.provider_calls import ProviderCalls


class JobSubmission:
    """Admits and submits one job, alone or through its batch."""

    def __init__(
        self, tracker: JobTracker, accounting: JobAccounting, provider: ProviderCalls
    ) -> None:
        self._tracker = tracker
        self._state = tracker.state
        self._accounting = accounting
        self._provider = provider
        self._batch_outcome: BatchOutcome | None = None

    async def run(self) -> None:
        """Admit and submit the job. Raises a rejection; nothing is claimed then.

        A cancellation ends the wait for the provider. The job may be submitted all the same.
        """
        if self._state.batch is None:
            await self._admit()
            if not self._state.cancel_requested:
                await self._submit()
        else:
            await self._wait_for_batch(self._state.batch)

    def receive_batch_outcome(self, message: Any) -> None:
        if self._state.batch is None or self._batch_outcome is not None:
            return
        try:
            self._batch_outcome = BatchOutcome.model_validate(message)
        except ValidationError as error:
            workflow.logger.warning(
                "A malformed batch outcome was ignored: %s",
                " ".join(error_messages(error, message)),
            )

    async def _admit(self) -> None:
        try:
            admission = await workflow.execute_local_activity_method(
                AdmissionActivities.admit,
                AdmissionRequest(
                    job_id=self._state.job.id,
                    owner=self._state.job.owner,
                    specification=self._state.job.specification,
                ),
                start_to_close_timeout=timeouts.STORE_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
            )
        except FailureError as error:
            raise as_rejection(error) from error
        self._state.change_billing(price_per_unit=admission.price_per_unit)
        self._state.change_job(specification=admission.specification)

    async def _submit(self) -> None:
        self._state.may_be_at_provider = True
        self._tracker.refresh()
        submission = self._provider.submit()
        await workflow.wait_condition(
            lambda: submission.done() or self._state.has_ended or self._state.cancel_requested
        )
        if not submission.done():
            submission.cancel()
        try:
            result = await submission
        except FailureError as error:
            if (
                is_cancelled_exception(error)
                or self._state.is_at_provider
                or self._state.cancel_requested
            ):
                # A lost answer is unknown: the cleanup finds the job at the provider by its id.
                return
            await self._provider.terminate()  # an attempt before the rejected one may have arrived
            await self._accounting.withdraw()
            raise as_rejection(error) from error
        self._record_submission(result)

    async def _wait_for_batch(self, batch: BatchMembership) -> None:
        """Wait until the batch has submitted the job, or has confirmed that it does not."""
        state = self._state
        state.change_billing(price_per_unit=batch.price_per_unit)
        await workflow.wait_condition(lambda: self._batch_outcome is not None or state.is_over)
        if self._batch_outcome is None:
            if not await self._leave(batch):
                return
            await workflow.wait_condition(lambda: self._batch_outcome is not None)
        outcome = self._batch_outcome
        assert outcome is not None
        if outcome.cancelled is not None:
            state.stop_reason = outcome.cancelled
        if outcome.rejection is not None:
            raise rejection(outcome.rejection.code, outcome.rejection.message)
        if outcome.result is not None:
            self._record_submission(outcome.result)
        elif not state.is_over:  # another sender of `leave`: the job was never submitted
            state.stop_reason = "Your job is being cancelled: it was taken out of its batch."

    async def _leave(self, batch: BatchMembership) -> bool:
        """Ask the batch not to submit this job. False: the batch has ended.

        The job must not end while its batch is submitting it.
        """
        try:
            await workflow.get_external_workflow_handle(batch.batch_id).signal(
                SIGNAL_LEAVE, LeaveRequest(job_id=self._state.job.id).to_wire()
            )
        except FailureError as error:
            workflow.logger.warning("The batch %s is gone: %s", batch.batch_id, error)
            return False
        return True

    def _record_submission(self, result: SubmitResult) -> None:
        self._state.is_at_provider = True
        self._state.provider_generated_id = result.provider_generated_id
        self._tracker.apply(result.updates)

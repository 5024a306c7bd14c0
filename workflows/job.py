"""The workflow `Job`: one durable execution for each job, from the request to the archive.

`run` deals with Temporal (cancel, drain, continue-as-new); `_live` tells the story. A cancel of the
workflow never interrupts the story: `run` turns it into a wish that the story sees between its
steps, so that no cleanup is ever cut off. All that the job knows is in `self._job`; the rules that
change it are in `workflows.lifecycle`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

from workflows import display, lifecycle, timeouts
from workflows.errors import as_refusal, refusal_of
from workflows.job_handlers import JobHandlers
from workflows.job_state import CARRIED_UPDATE_BYTES, json_size, now

with workflow.unsafe.imports_passed_through():
    from activities.admission import AdmissionActivities
    from activities.completion import CompletionActivities
    from activities.provider import ProviderActivities
    from ucloud_orchestrator.models.errors import truncate
    from ucloud_orchestrator.models.job import JobState, JobUpdate
    from ucloud_orchestrator.models.messages import (
        AdmissionRequest,
        ContinuedState,
        JobRequest,
        LeaveRequest,
        OffloadedUpdates,
        ProviderCall,
        Settlement,
        SubmitResult,
    )
    from ucloud_orchestrator.temporal.names import SIGNAL_LEAVE, WORKFLOW, provider_task_queue

PAGE_BYTES = 256 * 1024
"""How much of the updates goes to the store in one step."""


@workflow.defn(name=WORKFLOW)
class JobWorkflow(JobHandlers):
    """The life of one job."""

    @workflow.init
    def __init__(self, request: JobRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: JobRequest) -> dict[str, str]:
        """Live the job's life; end as Canceled if a cancel ended it, as Failed if the job was
        refused.

        The result is what the Web UI shows first of a job that ended: its state and its last word.
        """
        story = asyncio.create_task(self._execute(is_new=request.carried is None))
        while not story.done():
            try:
                await asyncio.shield(story)
            except asyncio.CancelledError:
                # The server sends one cancel at most; anything else is the worker's shutdown or an
                # eviction.
                if self._cancel_requested or workflow.cancellation_reason() is None:
                    raise
                self._cancel_requested = True
        was_cancelled = story.result()
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._refusal is not None:
            raise self._refusal
        if was_cancelled:
            raise asyncio.CancelledError
        last = self._job.updates[-1].status if self._job.updates else None
        return {"state": self._job.status.state.value, "status": truncate(last or "")}

    async def _execute(self, is_new: bool) -> bool:
        """The whole life; returns whether a cancel ended it."""
        self._refresh_display()
        if is_new and not await self._admit_and_submit():
            assert self._refusal is not None
            display.show_refusal(self._job, self._refusal)
            return False
        self._accepted = True
        self._refresh_display()
        if self._out_of_credits_since is not None:
            self._grace_timer = asyncio.create_task(self._watch_grace(self._out_of_credits_since))
        while not self._is_over:
            await workflow.wait_condition(lambda: self._is_due)
            if self._should_continue_as_new and not self._has_ended:
                await self._continue_as_new()
        self._stopping = True
        was_cancelled = await self._stop()
        await self._settle()
        return was_cancelled

    async def _admit_and_submit(self) -> bool:
        """Be admitted and submitted, alone or by a batch. False: refused, and nothing is held."""
        if self._batch is None:
            return await self._admit() and await self._submit()
        billing = self._job.billing.model_copy(
            update={"price_per_unit": self._batch.price_per_unit}
        )
        self._job = self._job.model_copy(update={"billing": billing})
        await workflow.wait_condition(lambda: self._batch_outcome is not None or self._is_over)
        if self._batch_outcome is None:
            may_wait = await self._leave(self._batch.batch_id)
            await workflow.wait_condition(lambda: self._batch_outcome is not None or not may_wait)
        if self._batch_outcome is None:
            return True
        if self._batch_outcome.cancelled is not None:
            self._own_reason = self._batch_outcome.cancelled
        if self._batch_outcome.refusal is not None:
            self._refusal = refusal_of(
                self._batch_outcome.refusal.code, self._batch_outcome.refusal.message
            )
            return False
        if self._batch_outcome.result is not None:
            self._record_submission(self._batch_outcome.result)
        elif not self._is_over:  # somebody else made the batch let go of it: it was never submitted
            self._own_reason = "Your job is being cancelled: it was taken out of its batch."
        return True

    async def _leave(self, batch_id: str) -> bool:
        """Ask the batch not to submit this job any more: it must not end while it is still being
        submitted.

        False: there is no batch any more, so nobody submits.
        """
        try:
            await workflow.get_external_workflow_handle(batch_id).signal(
                SIGNAL_LEAVE, LeaveRequest(job_id=self._job.id).to_wire()
            )
        except FailureError as error:
            workflow.logger.warning("The batch %s is gone: %s", batch_id, error)
            return False
        return True

    async def _admit(self) -> bool:
        """Check the request and hold what it needs. False: refused, and nothing is held."""
        try:
            admission = await workflow.execute_local_activity_method(
                AdmissionActivities.admit,
                AdmissionRequest(
                    job_id=self._job.id,
                    owner=self._job.owner,
                    specification=self._job.specification,
                ),
                start_to_close_timeout=timeouts.STORE_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
            )
        except FailureError as error:
            self._refusal = as_refusal(error)
            return False
        billing = self._job.billing.model_copy(update={"price_per_unit": admission.price_per_unit})
        self._job = self._job.model_copy(
            update={"specification": admission.specification, "billing": billing}
        )
        return True

    async def _submit(self) -> bool:
        """Hand the job to its provider, for as long as it takes.

        False: the provider refused, all is undone.
        """
        if self._cancel_requested:
            return True
        self._may_be_at_provider = True
        self._refresh_display()
        submission = workflow.start_activity_method(
            ProviderActivities.submit,
            ProviderCall(job=self._job_without_updates),
            task_queue=provider_task_queue(self._provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"Submit to {self._provider}",
        )
        await workflow.wait_condition(
            lambda: submission.done() or self._has_ended or self._cancel_requested
        )
        if not submission.done():
            submission.cancel()
        try:
            result: SubmitResult = await submission
        except FailureError as error:
            if is_cancelled_exception(error) or self._has_been_reported or self._cancel_requested:
                # A lost answer is unknown, never "no": the cleanup finds the job at the provider by
                # its id.
                return True
            await self._terminate()  # an attempt before the rejected one may have got through
            await self._withdraw()
            self._refusal = as_refusal(error)  # whoever hears of it finds nothing held any more
            return False
        self._record_submission(result)
        return True

    def _record_submission(self, result: SubmitResult) -> None:
        self._submitted = True
        self._provider_generated_id = result.provider_generated_id
        self._apply(result.updates)

    async def _stop(self) -> bool:
        """Stop the job at the provider if something else than its own end ends it; whether that was
        a cancel.
        """
        if self._has_ended:
            return False
        if self._own_reason is not None and not self._cancel_requested:
            self._set_job(lifecycle.cancel(self._job, self._own_reason, now()))
            await self._stop_after_cancel()
            return False
        if self._cancel_requested:
            reason = workflow.cancellation_reason()
            text = (
                f"Your job is being cancelled: {truncate(reason)}"
                if reason
                else "Your job is being cancelled."
            )
            self._set_job(lifecycle.cancel(self._job, text, now()))
            await self._stop_after_cancel()
            return True
        text = "Your job was stopped because its time allocation ran out."
        self._set_job(lifecycle.pass_deadline(self._job, text, now()))
        if await self._terminate() and self._job.billing.price_per_unit:
            await self._wait_for_final_report()
        return False

    async def _wait_for_final_report(self) -> None:
        """Let the provider charge what was used until the stop: it says the end after its last
        charge.
        """
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._has_reported_end,
                timeout=timeouts.FINAL_STATE_TIMEOUT,
                timeout_summary="Wait for the provider's last charge",
            )

    async def _stop_after_cancel(self) -> None:
        was_submitted = self._submitted or self._has_been_reported
        if self._may_be_at_provider and not await self._terminate():
            self._end(
                JobState.FAILURE,
                "The provider could not be reached to stop the job; it may still be running.",
            )
        elif not was_submitted:
            self._end(JobState.SUCCESS, "Your job was cancelled before it was started.")
        else:
            try:
                await workflow.wait_condition(
                    lambda: self._has_ended,
                    timeout=timeouts.FINAL_STATE_TIMEOUT,
                    timeout_summary="Wait for the provider's final state",
                )
            except TimeoutError:
                self._end(
                    JobState.SUCCESS,
                    "Your job was cancelled; the provider stopped it and reported no more.",
                )

    async def _terminate(self) -> bool:
        """Tell the provider to stop the job and to delete what belongs to it alone.

        False: it could not be told.
        """
        try:
            await workflow.execute_activity_method(
                ProviderActivities.terminate,
                ProviderCall(job=self._job_without_updates),
                task_queue=provider_task_queue(self._provider),
                start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
                schedule_to_close_timeout=timeouts.TERMINATE_TIMEOUT,
                heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
                retry_policy=timeouts.PROVIDER_RETRY,
                summary=f"Stop at {self._provider}",
            )
        except ActivityError as error:
            workflow.logger.error("The provider did not stop the job: %s", error.cause)
            return False
        return True

    async def _settle(self) -> None:
        """Release what the job held and archive it, exactly once in effect."""
        if self._holds_too_much:
            await self._offload_updates()
        self._settling = True
        async with self._accounts:  # a charge that is under way still counts
            await workflow.execute_local_activity_method(
                CompletionActivities.settle,
                Settlement(job=self._job),
                start_to_close_timeout=timeouts.STORE_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
            )
        self._refresh_display()

    async def _withdraw(self) -> None:
        """Undo what admission did for a job that was never accepted."""
        await workflow.execute_local_activity_method(
            CompletionActivities.withdraw,
            self._job.id,
            start_to_close_timeout=timeouts.STORE_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )

    async def _continue_as_new(self) -> None:
        await self._offload_updates()
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() or self._has_ended)
        # A cancel that came with the same task as a signal is seen only after it, and would be
        # lost. What comes with a timer is seen with it, before a condition.
        await workflow.sleep(timedelta(milliseconds=1), summary="Before continuing as new")
        await workflow.wait_condition(lambda: True)
        if self._is_over or self._holds_too_much or not workflow.all_handlers_finished():
            return  # and come back at once
        job = self._job
        workflow.continue_as_new(
            JobRequest(
                owner=job.owner,
                specification=job.specification,
                carried=ContinuedState(
                    created_at=job.created_at,
                    status=job.status,
                    billing=job.billing,
                    updates=job.updates,
                    omitted_updates=job.omitted_updates,
                    output=job.output,
                    acl=job.acl,
                    ignored_updates=self._ignored_updates,
                    provider_generated_id=self._provider_generated_id,
                    out_of_credits_since=self._out_of_credits_since,
                ),
            )
        )

    async def _offload_updates(self) -> None:
        """Move the oldest updates to the store, so that what is carried stays small."""
        held = CARRIED_UPDATE_BYTES
        kept = 0
        for update in reversed(self._job.updates):
            held -= json_size(update)
            if held < 0:
                break
            kept += 1
        spilled = self._job.updates[: len(self._job.updates) - kept]
        # One payload of a job that got very much at once would be too large.
        for page in _pages(spilled):
            await self._store_updates(page)

    async def _store_updates(self, page: Sequence[JobUpdate]) -> None:
        await workflow.execute_local_activity_method(
            CompletionActivities.keep_updates,
            OffloadedUpdates(
                job_id=self._job.id, first_position=self._job.omitted_updates, updates=list(page)
            ),
            start_to_close_timeout=timeouts.STORE_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )
        omitted = self._job.omitted_updates + len(page)
        self._job = self._job.model_copy(
            update={"updates": self._job.updates[len(page) :], "omitted_updates": omitted}
        )
        self._json_bytes = 0
        self._measure(self._job.updates)


def _pages(updates: Sequence[JobUpdate]) -> Iterator[list[JobUpdate]]:
    """The updates in order, in pages of about `PAGE_BYTES`."""
    page: list[JobUpdate] = []
    room = PAGE_BYTES
    for update in updates:
        if page and room < json_size(update):
            yield page
            page, room = [], PAGE_BYTES
        page.append(update)
        room -= json_size(update)
    if page:
        yield page

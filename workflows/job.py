"""The workflow `Job`: one durable execution for each job, from the request to the archive.

`run` deals with Temporal: cancellation, unfinished handlers, continue-as-new. `_execute` is the
flow of the job. Cancellation never interrupts `_execute`: `run` only sets a flag, which `_execute`
checks between its steps (decision 0002). The rules that change the job are in
`workflows.lifecycle`.

Temporal wants handlers as methods of this class; `workflows.job_handlers` has their code
(decision 0014).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from ucloud_orchestrator.models.errors import truncate
from ucloud_orchestrator.models.job import JobState
from ucloud_orchestrator.models.messages import JobRequest
from ucloud_orchestrator.temporal.names import WORKFLOW
from workflows import timeouts
from workflows.job_accounting import JobAccounting
from workflows.job_handlers import JobHandlers
from workflows.job_state import Phase, WorkflowState
from workflows.job_submission import JobSubmission
from workflows.job_tracker import JobTracker, now
from workflows.provider_calls import ProviderCalls
from workflows.update_offloading import offload_updates


@workflow.defn(name=WORKFLOW)
class JobWorkflow:
    """One job. Its argument is a request, or the state of the run that continued as new."""

    @workflow.init
    def __init__(self, request: JobRequest | WorkflowState) -> None:
        if isinstance(request, JobRequest):
            request = WorkflowState.of_new_job(request, workflow.info().workflow_id, now())
        self._state = request
        self._tracker = JobTracker(self._state)
        self._provider = ProviderCalls(self._state)
        self._accounting = JobAccounting(self._tracker)
        self._submission = JobSubmission(self._tracker, self._accounting, self._provider)
        self._handlers = JobHandlers(self._tracker, self._accounting, self._provider)

    @workflow.run
    async def run(self, request: JobRequest | WorkflowState) -> dict[str, str]:
        """Return the job's last state and status text, which the Web UI shows as the result.

        The workflow ends as Canceled if a cancellation ended the job, as Failed if it was rejected.
        """
        flow = asyncio.create_task(self._execute())
        while not flow.done():
            try:
                await asyncio.shield(flow)
            except asyncio.CancelledError:
                # The server sends one cancellation at most. Any other is the worker's shutdown or
                # an eviction.
                if self._state.cancel_requested or workflow.cancellation_reason() is None:
                    raise
                self._state.cancel_requested = True
        was_cancelled = flow.result()
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._tracker.rejection is not None:
            raise self._tracker.rejection
        if was_cancelled:
            raise asyncio.CancelledError
        job = self._state.job
        last = job.updates[-1].status if job.updates else None
        return {"state": job.status.state.value, "status": truncate(last or "")}

    async def _execute(self) -> bool:
        """Run the job from its admission to its settlement; return if a cancellation ended it."""
        self._tracker.refresh()
        if self._state.phase < Phase.ACCEPTED:
            try:
                await self._submission.run()
            except ApplicationError as rejection:
                self._tracker.reject(rejection)
                return False
            self._state.phase = Phase.ACCEPTED
            self._tracker.refresh()
        self._accounting.resume_grace_timer()
        while not self._state.is_over:
            await workflow.wait_condition(lambda: self._state.is_over or self._is_too_large)
            if self._is_too_large and not self._state.has_ended:
                await self._continue_as_new()
        self._state.phase = Phase.STOPPING
        was_cancelled = await self._stop()
        if self._state.holds_too_much:
            await offload_updates(self._state)
        await self._accounting.settle()
        self._tracker.refresh()
        return was_cancelled

    @property
    def _is_too_large(self) -> bool:
        return workflow.info().is_continue_as_new_suggested() or self._state.holds_too_much

    async def _continue_as_new(self) -> None:
        """Continue as new, unless the job is over or a handler runs; the caller tries again."""
        await offload_updates(self._state)
        await workflow.wait_condition(
            lambda: workflow.all_handlers_finished() or self._state.has_ended
        )
        # A cancellation that comes in one task with a signal is delivered after the signal, and
        # would be lost. With a timer, it is delivered before conditions are checked.
        await workflow.sleep(timedelta(milliseconds=1), summary="Before continuing as new")
        await workflow.wait_condition(lambda: True)
        if workflow.all_handlers_finished() and not (
            self._state.is_over or self._state.holds_too_much
        ):
            workflow.continue_as_new(self._state)

    async def _stop(self) -> bool:
        """Stop a job that has not ended at its provider; return if a cancellation is the reason."""
        if self._state.has_ended:
            return False
        if self._state.cancel_requested:
            reason = workflow.cancellation_reason()
            text = f"Your job is being cancelled: {truncate(reason)}" if reason else ""
            self._tracker.start_canceling(text or "Your job is being cancelled.")
            await self._stop_after_cancel()
            return True
        if self._state.stop_reason is not None:
            self._tracker.start_canceling(self._state.stop_reason)
            await self._stop_after_cancel()
            return False
        self._tracker.expire("Your job was stopped because its time allocation ran out.")
        if await self._provider.terminate() and self._state.job.billing.price_per_unit:
            # The provider reports the end after its last charge.
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._state.has_reported_end,
                    timeout=timeouts.FINAL_STATE_TIMEOUT,
                    timeout_summary="Wait for the provider's last charge",
                )
        return False

    async def _stop_after_cancel(self) -> None:
        was_submitted = self._state.is_at_provider
        if self._state.may_be_at_provider and not await self._provider.terminate():
            self._tracker.end(
                JobState.FAILURE,
                "The provider could not be reached to stop the job; it may still be running.",
            )
        elif not was_submitted:
            self._tracker.end(JobState.SUCCESS, "Your job was cancelled before it was started.")
        else:
            try:
                await workflow.wait_condition(
                    lambda: self._state.has_ended,
                    timeout=timeouts.FINAL_STATE_TIMEOUT,
                    timeout_summary="Wait for the provider's final state",
                )
            except TimeoutError:
                self._tracker.end(
                    JobState.SUCCESS,
                    "Your job was cancelled; the provider stopped it and reported no more.",
                )

    @workflow.signal(
        description='State changes and status texts from the provider: {"provider": "local", '
        '"updates": [{"state": "RUNNING", "status": "Your job is now running."}]}'
    )
    def update(self, message: Any = None) -> None:
        self._handlers.update(message)

    @workflow.signal(description="For the job's batch alone: the outcome of its submission.")
    def batch_outcome(self, message: Any = None) -> None:
        self._submission.receive_batch_outcome(message)

    @workflow.signal(dynamic=True)
    def unknown_signal(self, name: str, _arguments: Sequence[RawValue]) -> None:
        self._handlers.unknown_signal(name)

    @workflow.query(name="job", description="The job, with a page of its updates.")
    def retrieve(self, position: int = 0) -> dict[str, Any]:
        return self._handlers.retrieve(position)

    @workflow.update(
        description="Wait until the job is accepted, and get it. A rejection is an error with its "
        "code."
    )
    async def accepted(self) -> dict[str, Any]:
        return await self._handlers.accepted()

    @workflow.update(description='Add to the time allocation: {"requestedTime": {"hours": 1}}')
    async def extend(self, request: Any = None) -> dict[str, Any]:
        return await self._handlers.extend(request)

    @extend.validator
    def _check_extend(self, request: Any = None) -> None:
        self._handlers.check_extend(request)

    @workflow.update(description="Suspend the job at its provider. No payload.")
    async def suspend(self) -> None:
        await self._handlers.suspend()

    @suspend.validator
    def _check_suspend(self) -> None:
        self._handlers.check_suspend()

    @workflow.update(description="Let a suspended job go on. No payload.")
    async def unsuspend(self) -> None:
        await self._handlers.unsuspend()

    @unsuspend.validator
    def _check_unsuspend(self) -> None:
        self._handlers.check_suspend()

    @workflow.update(
        description="Get the address of a terminal (SHELL), a web application (WEB) or a desktop "
        '(VNC) of a running job: {"sessionType": "SHELL", "rank": 0}'
    )
    async def open_session(self, request: Any = None) -> dict[str, Any]:
        return await self._handlers.open_session(request)

    @open_session.validator
    def _check_open_session(self, request: Any = None) -> None:
        self._handlers.check_open_session(request)

    @workflow.update(description='Give the job another name: {"name": "My analysis"}')
    def rename(self, request: Any = None) -> None:
        self._handlers.rename(request)

    @rename.validator
    def _check_rename(self, request: Any = None) -> None:
        self._handlers.check_rename(request)

    @workflow.update(
        description='Set who else may do what: {"acl": [{"entity": {"type": "user", "username": '
        '"bob"}, "permissions": ["READ"]}]}'
    )
    def update_acl(self, request: Any = None) -> None:
        self._handlers.update_acl(request)

    @update_acl.validator
    def _check_update_acl(self, request: Any = None) -> None:
        self._handlers.check_update_acl(request)

    @workflow.update(
        description="Charge for use, as the job's provider; each chargeId counts once: "
        '{"provider": "local", "charges": [{"chargeId": "2024-01-01T10:15", "units": 15, '
        '"periods": 1}]}'
    )
    async def charge(self, message: Any = None) -> dict[str, Any]:
        return await self._handlers.charge(message)

    @charge.validator
    def _check_charge(self, message: Any = None) -> None:
        self._handlers.check_charge(message)

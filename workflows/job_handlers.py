"""What others send to a job: the provider's reports and charges, the users' requests, and the
questions of both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, FailureError

from workflows import lifecycle, timeouts
from workflows.errors import as_refusal, checked, refusal_of
from workflows.job_state import CARRIED_UPDATE_BYTES, WorkflowState, json_size, now

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.accounting import AccountingActivities
    from activities.provider import ProviderActivities
    from ucloud_orchestrator.models.accounting import ChargeResult
    from ucloud_orchestrator.models.base import error_messages
    from ucloud_orchestrator.models.end_reason import NO_CREDITS
    from ucloud_orchestrator.models.errors import ErrorCode, truncate
    from ucloud_orchestrator.models.job import MAXIMUM_HOURS, TERMINAL_STATES, JobState, JobUpdate
    from ucloud_orchestrator.models.messages import (
        AclRequest,
        BatchOutcome,
        ChargeCall,
        ExtendCall,
        ExtendRequest,
        OpenSessionCall,
        ProviderCall,
        RenameRequest,
        ReserveCall,
    )
    from ucloud_orchestrator.models.provider_api import (
        MAXIMUM_UPDATES,
        ChargeAnswer,
        ChargeId,
        ChargeMessage,
        UpdateMessage,
    )
    from ucloud_orchestrator.models.session import OPEN_SESSION, OpenSessionRequest
    from ucloud_orchestrator.models.update_paging import PAGE_BYTES, page_of
    from ucloud_orchestrator.temporal.names import provider_task_queue


class JobHandlers(WorkflowState):
    """The signals, updates and the query of the workflow `Job`.

    Nothing that anybody sends may make a job stuck.
    """

    @workflow.signal(
        description='State changes and status texts from the provider: {"provider": "local", '
        '"updates": '
        '[{"state": "RUNNING", "status": "Your job is now running."}]}'
    )
    def update(self, message: Any = None) -> None:
        """Apply what the job's provider reports.

        Anything else is logged and dropped; nothing here can raise.
        """
        updates = message.get("updates") if isinstance(message, dict) else None
        if isinstance(updates, list) and len(updates) > MAXIMUM_UPDATES:
            self._ignore(1)
            workflow.logger.warning(
                "A message with %d updates was ignored: it is too long.", len(updates)
            )
            return
        try:
            report = UpdateMessage.model_validate(message)
        except ValidationError as error:
            self._ignore(1)
            workflow.logger.warning(
                "A malformed update was ignored: %s", " ".join(error_messages(error, message))
            )
            return
        if report.provider != self._provider:
            self._ignore(len(report.updates))
            workflow.logger.warning(
                "An update from provider %r was ignored: the job is with %r.",
                truncate(report.provider),
                self._provider,
            )
            return
        self._has_been_reported = True
        self._has_reported_end |= any(update.state in TERMINAL_STATES for update in report.updates)
        self._apply(report.updates)

    @workflow.signal(description="For the job's batch alone: what came of its submission.")
    def batch_outcome(self, message: Any = None) -> None:
        """Take what the batch says, once."""
        if self._batch is None or self._batch_outcome is not None:
            return
        try:
            self._batch_outcome = BatchOutcome.model_validate(message)
        except ValidationError as error:
            workflow.logger.warning(
                "A malformed batch outcome was ignored: %s",
                " ".join(error_messages(error, message)),
            )

    @workflow.signal(dynamic=True)
    def unknown_signal(self, name: str, _arguments: Sequence[RawValue]) -> None:
        """Log a signal that the job does not know."""
        self._ignore(1)
        text = "The unknown signal %r was ignored; the signal for a provider is 'update'."
        workflow.logger.warning(text, truncate(name))

    @workflow.query(name="job", description="The job as the orchestrator knows it.")
    def retrieve(self, position: int = 0) -> dict[str, Any]:
        """The `Job` as on the wire; if there is no room for the newest updates, `withheldUpdates`
        says how many.

        These come from the `position` of the first among all updates that the job ever got.
        """
        if position <= 0 and self._json_bytes <= PAGE_BYTES:
            return self._job.to_wire()
        return page_of(
            self._job, position, [json_size(update) for update in self._job.updates]
        ).to_wire()

    @workflow.update(
        description="Wait until the job is accepted, and get it. A refusal is an error with its "
        "code."
    )
    async def accepted(self) -> dict[str, Any]:
        """The `Job` once the provider has it, without its updates if they are too large for an
        answer that is kept.

        Raises an `ApplicationError` whose type is the code of the refusal.
        """
        await workflow.wait_condition(lambda: self._accepted or self._refusal is not None)
        if self._refusal is not None:
            raise ApplicationError(
                self._refusal.message, *self._refusal.details, type=self._refusal.type
            )
        is_large = self._json_bytes > CARRIED_UPDATE_BYTES
        return (self._job_without_updates if is_large else self._job).to_wire()

    @workflow.update(description='Add to the time allocation: {"requestedTime": {"hours": 1}}')
    async def extend(self, request: Any = None) -> dict[str, Any]:
        """Ask the provider for more time, then move the deadline. Returns the job's new status."""
        requested = ExtendRequest.model_validate(request).requested_time
        async with self._requests:
            self._check_is_live()
            allocation = self._job.specification.time_allocation
            before = allocation.milliseconds if allocation else 0
            if before + requested.milliseconds > MAXIMUM_HOURS * 3_600_000:
                text = f"The whole time allocation can be {MAXIMUM_HOURS} hours at most."
                raise refusal_of(ErrorCode.VERIFICATION_FAILED, text)
            await self._cover(before + requested.milliseconds)
            try:
                await self._ask_provider(
                    ProviderActivities.extend, ExtendCall, "Extend", requested_time=requested
                )
            except ApplicationError:
                await self._cover(before)
                raise
            self._job = lifecycle.change_allocation(self._job, before + requested.milliseconds)
            self._refresh_display()
        return self._job.status.to_wire()

    async def _cover(self, milliseconds: int) -> None:
        """Hold the price of that whole allocation. Raises a refusal if the wallet has less."""
        async with self._accounts:
            if self._settling:
                return
            try:
                await workflow.execute_local_activity_method(
                    AccountingActivities.reserve,
                    ReserveCall(job_id=self._job.id, milliseconds=milliseconds),
                    start_to_close_timeout=timeouts.STORE_ATTEMPT,
                    retry_policy=timeouts.STORE_RETRY,
                )
            except FailureError as error:
                raise as_refusal(error) from error

    @extend.validator
    def _check_extend(self, request: Any = None) -> None:
        requested = checked(ExtendRequest, request).requested_time
        if requested.milliseconds == 0:
            raise refusal_of(
                ErrorCode.VERIFICATION_FAILED, "requestedTime must be longer than zero."
            )
        self._check_is_live()

    @workflow.update(description="Suspend the job at its provider. No payload.")
    async def suspend(self) -> None:
        """Ask the provider to hold the job; its state changes when the provider reports it."""
        async with self._requests:
            await self._ask_provider(ProviderActivities.suspend, ProviderCall, "Suspend")

    @suspend.validator
    def _check_suspend(self) -> None:
        self._check_is_live()

    @workflow.update(description="Let a suspended job go on. No payload.")
    async def unsuspend(self) -> None:
        """Ask the provider to go on with the job; its state changes when the provider reports
        it.
        """
        async with self._requests:
            await self._ask_provider(ProviderActivities.unsuspend, ProviderCall, "Unsuspend")

    @unsuspend.validator
    def _check_unsuspend(self) -> None:
        self._check_is_live()

    @workflow.update(
        description="Get the address of a terminal (SHELL), a web application (WEB) or a desktop "
        "(VNC) of a running "
        'job: {"sessionType": "SHELL", "rank": 0}'
    )
    async def open_session(self, request: Any = None) -> dict[str, Any]:
        """Ask the provider for a session.

        Its token is short-lived, and useless without the secret of the challenge.
        """
        wanted = OpenSessionRequest.model_validate(request)
        answer = await self._ask_provider(
            ProviderActivities.open_session,
            OpenSessionCall,
            f"Open {wanted.session_type}",
            request=wanted,
        )
        session: dict[str, Any] = OPEN_SESSION.validate_python(answer).to_wire()
        return session

    @open_session.validator
    def _check_open_session(self, request: Any = None) -> None:
        rank = checked(OpenSessionRequest, request).rank
        self._check_is_live()
        if self._job.status.state is not JobState.RUNNING:
            text = f"The job is in state {self._job.status.state}; sessions are for jobs that run."
            raise refusal_of(ErrorCode.INVALID_STATE, text)
        replicas = self._job.specification.replicas
        if rank >= replicas:
            text = f"There is no rank {rank}: the job's {replicas} replicas count from 0."
            raise refusal_of(ErrorCode.VERIFICATION_FAILED, text)

    @workflow.update(description='Give the job another name: {"name": "My analysis"}')
    def rename(self, request: Any = None) -> None:
        """Change the job's name; a name of null takes it away."""
        name = RenameRequest.model_validate(request).name
        specification = self._job.specification.model_copy(update={"name": name})
        self._job = self._job.model_copy(update={"specification": specification})
        self._refresh_display()

    @rename.validator
    def _check_rename(self, request: Any = None) -> None:
        checked(RenameRequest, request)
        self._check_is_live()

    @workflow.update(
        description='Set who else may do what: {"acl": [{"entity": {"type": "user", "username": '
        '"bob"}, '
        '"permissions": ["READ"]}]}'
    )
    def update_acl(self, request: Any = None) -> None:
        """Replace the job's access list."""
        self._job = self._job.model_copy(update={"acl": AclRequest.model_validate(request).acl})

    @update_acl.validator
    def _check_update_acl(self, request: Any = None) -> None:
        checked(AclRequest, request)
        self._check_is_live()

    @workflow.update(
        description="Charge for use, as the job's provider; each chargeId counts once: "
        '{"provider": "local", "charges": [{"chargeId": "2024-01-01T10:15", "units": 15, '
        '"periods": 1}]}'
    )
    async def charge(self, message: Any = None) -> dict[str, Any]:
        """Count charges. Returns those that the wallet could not pay, and those that were known."""
        charges = ChargeMessage.model_validate(message).charges
        async with self._accounts:
            if self._settling:
                raise refusal_of(
                    ErrorCode.INVALID_STATE, "The job has ended and its bill is closed."
                )
            try:
                result: ChargeResult = await workflow.execute_local_activity_method(
                    AccountingActivities.charge,
                    ChargeCall(job_id=self._job.id, charges=charges),
                    start_to_close_timeout=timeouts.STORE_ATTEMPT,
                    retry_policy=timeouts.STORE_RETRY,
                )
            except FailureError as error:
                raise as_refusal(error) from error
            billing = self._job.billing.model_copy(
                update={"credits_charged": result.credits_charged}
            )
            self._job = self._job.model_copy(update={"billing": billing})
            self._follow_credits(result)
        return ChargeAnswer(
            insufficient_funds=[ChargeId(id=charge_id) for charge_id in result.insufficient_funds],
            duplicate_charges=[ChargeId(id=charge_id) for charge_id in result.duplicate_charges],
        ).to_wire()

    @charge.validator
    def _check_charge(self, message: Any = None) -> None:
        provider = checked(ChargeMessage, message).provider
        if provider != self._provider:
            raise refusal_of(
                ErrorCode.FORBIDDEN, f"The job is with {self._provider}, not with {provider}."
            )
        if self._settling or not self._may_be_at_provider:
            raise refusal_of(
                ErrorCode.INVALID_STATE, "The job is not with its provider; it cannot be charged."
            )

    def _follow_credits(self, result: ChargeResult) -> None:
        if not result.insufficient_funds:
            if result.newly_charged == 0:
                return  # a repeat, or a charge of nothing, says nothing about the wallet
            if self._grace_timer is not None:
                self._grace_timer.cancel()
            self._grace_timer = self._out_of_credits_since = None
        elif self._out_of_credits_since is None:
            self._out_of_credits_since = now()
            minutes = timeouts.CREDIT_GRACE.total_seconds() / 60
            text = (
                f"There are no more credits for this job; it will be stopped in {minutes:.0f} "
                "minutes."
            )
            self._apply([JobUpdate(status=text)])
            self._grace_timer = asyncio.create_task(self._watch_grace(self._out_of_credits_since))
        self._refresh_display()

    async def _watch_grace(self, since: int) -> None:
        elapsed = timedelta(milliseconds=now() - since)
        await workflow.sleep(
            max(timedelta(0), timeouts.CREDIT_GRACE - elapsed), summary="No more credits"
        )
        self._own_reason = f"Your job is being terminated {NO_CREDITS}."

    async def _ask_provider(self, activity: Any, call: Any, verb: str, **fields: Any) -> Any:
        self._check_is_live()
        request = workflow.start_activity_method(
            activity,
            call(job=self._job_without_updates, **fields),
            task_queue=provider_task_queue(self._provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            schedule_to_close_timeout=timeouts.REQUEST_TIMEOUT,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            summary=f"{verb} at {self._provider}",
        )
        await workflow.wait_condition(lambda: request.done() or self._stopping)
        if not request.done():
            request.add_done_callback(_forget)
            request.cancel()
            raise refusal_of(
                ErrorCode.INVALID_STATE,
                f"The job ended before the provider answered to {verb.lower()}.",
            )
        try:
            return await request
        except FailureError as error:
            raise as_refusal(error) from error

    def _check_is_live(self) -> None:
        if not self._accepted:
            raise refusal_of(
                ErrorCode.INVALID_STATE,
                "The job is not yet accepted; try again when it is in the queue.",
            )
        if self._stopping or self._is_over:
            state = self._job.status.state
            raise refusal_of(
                ErrorCode.INVALID_STATE,
                f"The job is in state {state} and can no longer be changed.",
            )


def _forget(request: asyncio.Task[Any]) -> None:
    """Nobody asks any more how it went, and asyncio would complain of an error that nobody has
    looked at.
    """
    if not request.cancelled():
        request.exception()

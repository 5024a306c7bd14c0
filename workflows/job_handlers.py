"""The signals, updates and the query of the workflow `Job`. No message makes a job stuck.

The provider's report is the signal named `update`; it is not a Temporal update.

`workflows.job` registers them. Signal handlers must not raise: Temporal would retry the task.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from activities.provider import ProviderActivities
from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.errors import ErrorCode, truncate
from ucloud_orchestrator.models.job import MAXIMUM_HOURS, TERMINAL_STATES, JobState
from ucloud_orchestrator.models.messages import (
    AclRequest,
    ExtendCall,
    ExtendRequest,
    OpenSessionCall,
    ProviderCall,
    RenameRequest,
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
from workflows import lifecycle
from workflows.errors import rejection, validated
from workflows.job_accounting import JobAccounting
from workflows.job_state import CARRIED_UPDATE_BYTES, Phase, json_size
from workflows.job_tracker import JobTracker
from workflows.provider_calls import ProviderCalls


class JobHandlers:
    """Handles the messages to one job: a method for each, and `check_...` for its validator."""

    def __init__(
        self, tracker: JobTracker, accounting: JobAccounting, provider: ProviderCalls
    ) -> None:
        self._tracker = tracker
        self._state = tracker.state
        self._accounting = accounting
        self._provider = provider
        self._requests = asyncio.Lock()

    def update(self, message: Any) -> None:
        """Apply the report of the job's provider; any other message is logged and dropped."""
        updates = message.get("updates") if isinstance(message, dict) else None
        if isinstance(updates, list) and len(updates) > MAXIMUM_UPDATES:
            self._tracker.count_ignored(1)
            workflow.logger.warning(
                "A message with %d updates was ignored: it is too long.", len(updates)
            )
            return
        try:
            report = UpdateMessage.model_validate(message)
        except ValidationError as error:
            self._tracker.count_ignored(1)
            workflow.logger.warning(
                "A malformed update was ignored: %s", " ".join(error_messages(error, message))
            )
            return
        if report.provider != self._state.provider:
            self._tracker.count_ignored(len(report.updates))
            workflow.logger.warning(
                "An update from provider %r was ignored: the job is with %r.",
                truncate(report.provider),
                self._state.provider,
            )
            return
        self._state.is_at_provider = True
        self._state.has_reported_end |= any(
            update.state in TERMINAL_STATES for update in report.updates
        )
        self._tracker.apply(report.updates)

    def unknown_signal(self, name: str) -> None:
        self._tracker.count_ignored(1)
        text = "The unknown signal %r was ignored; the signal for a provider is 'update'."
        workflow.logger.warning(text, truncate(name))

    def retrieve(self, position: int) -> dict[str, Any]:
        """Return the `Job` in its wire form, with one page of its updates.

        The page begins at `position` among all updates that the job ever got.
        `withheldUpdates` is the number of those after the page.
        """
        job = self._state.job
        if position <= 0 and self._state.update_bytes <= PAGE_BYTES:
            return job.to_wire()
        return page_of(job, position, [json_size(update) for update in job.updates]).to_wire()

    async def accepted(self) -> dict[str, Any]:
        """Return the `Job` once its provider has it. Raises the rejection.

        Large updates are left out: the server keeps the answer.
        """
        await workflow.wait_condition(
            lambda: self._state.phase >= Phase.ACCEPTED or self._tracker.rejection is not None
        )
        error = self._tracker.rejection
        if error is not None:
            raise ApplicationError(error.message, *error.details, type=error.type)
        is_large = self._state.update_bytes > CARRIED_UPDATE_BYTES
        return (self._state.job_without_updates if is_large else self._state.job).to_wire()

    async def extend(self, request: Any) -> dict[str, Any]:
        """Ask the provider for more time, then move the deadline. Returns the job's status."""
        requested = ExtendRequest.model_validate(request).requested_time
        async with self._requests:
            self._check_is_live()
            allocation = self._state.job.specification.time_allocation
            before = allocation.milliseconds if allocation else 0
            after = before + requested.milliseconds
            if after > MAXIMUM_HOURS * 3_600_000:
                text = f"The whole time allocation can be {MAXIMUM_HOURS} hours at most."
                raise rejection(ErrorCode.VERIFICATION_FAILED, text)
            await self._accounting.reserve(after)
            try:
                call = ExtendCall(job=self._state.job_without_updates, requested_time=requested)
                await self._request(ProviderActivities.extend, call, "Extend")
            except ApplicationError:
                await self._accounting.reserve(before)
                raise
            self._state.job = lifecycle.change_allocation(self._state.job, after)
            self._tracker.refresh()
        return self._state.job.status.to_wire()

    def check_extend(self, request: Any) -> None:
        requested = validated(ExtendRequest, request).requested_time
        if requested.milliseconds == 0:
            raise rejection(
                ErrorCode.VERIFICATION_FAILED, "requestedTime must be longer than zero."
            )
        self._check_is_live()

    async def suspend(self) -> None:
        """Ask the provider to suspend the job; its report changes the state."""
        async with self._requests:
            call = ProviderCall(job=self._state.job_without_updates)
            await self._request(ProviderActivities.suspend, call, "Suspend")

    async def unsuspend(self) -> None:
        """Ask the provider to resume the job; its report changes the state."""
        async with self._requests:
            call = ProviderCall(job=self._state.job_without_updates)
            await self._request(ProviderActivities.unsuspend, call, "Unsuspend")

    def check_suspend(self) -> None:
        self._check_is_live()

    async def open_session(self, request: Any) -> dict[str, Any]:
        """Ask the provider for a session.

        Its token is short-lived, and useless without the secret of the challenge.
        """
        wanted = OpenSessionRequest.model_validate(request)
        call = OpenSessionCall(job=self._state.job_without_updates, request=wanted)
        answer = await self._request(
            ProviderActivities.open_session, call, f"Open {wanted.session_type}"
        )
        session: dict[str, Any] = OPEN_SESSION.validate_python(answer).to_wire()
        return session

    def check_open_session(self, request: Any) -> None:
        rank = validated(OpenSessionRequest, request).rank
        self._check_is_live()
        job = self._state.job
        if job.status.state is not JobState.RUNNING:
            text = f"The job is in state {job.status.state}; sessions are for jobs that run."
            raise rejection(ErrorCode.INVALID_STATE, text)
        replicas = job.specification.replicas
        if rank >= replicas:
            text = f"There is no rank {rank}: the job's {replicas} replicas count from 0."
            raise rejection(ErrorCode.VERIFICATION_FAILED, text)

    def rename(self, request: Any) -> None:
        """Change the job's name; a name of null removes it."""
        self._state.change_specification(name=RenameRequest.model_validate(request).name)
        self._tracker.refresh()

    def check_rename(self, request: Any) -> None:
        validated(RenameRequest, request)
        self._check_is_live()

    def update_acl(self, request: Any) -> None:
        self._state.change_job(acl=AclRequest.model_validate(request).acl)

    def check_update_acl(self, request: Any) -> None:
        validated(AclRequest, request)
        self._check_is_live()

    async def charge(self, message: Any) -> dict[str, Any]:
        """Charge for use. Returns the charges without funds, and the duplicates."""
        result = await self._accounting.charge(ChargeMessage.model_validate(message).charges)
        return ChargeAnswer(
            insufficient_funds=[ChargeId(id=charge_id) for charge_id in result.insufficient_funds],
            duplicate_charges=[ChargeId(id=charge_id) for charge_id in result.duplicate_charges],
        ).to_wire()

    def check_charge(self, message: Any) -> None:
        provider = validated(ChargeMessage, message).provider
        if provider != self._state.provider:
            raise rejection(
                ErrorCode.FORBIDDEN, f"The job is with {self._state.provider}, not with {provider}."
            )
        if self._state.phase is Phase.SETTLEMENT or not self._state.may_be_at_provider:
            raise rejection(
                ErrorCode.INVALID_STATE, "The job is not with its provider; it cannot be charged."
            )

    async def _request(self, activity: Any, call: Any, verb: str) -> Any:
        self._check_is_live()
        return await self._provider.request(
            activity, call, verb, lambda: self._state.phase >= Phase.STOPPING
        )

    def _check_is_live(self) -> None:
        if self._state.phase < Phase.ACCEPTED:
            raise rejection(
                ErrorCode.INVALID_STATE,
                "The job is not yet accepted; try again when it is in the queue.",
            )
        if self._state.phase >= Phase.STOPPING or self._state.is_over:
            state = self._state.job.status.state
            raise rejection(
                ErrorCode.INVALID_STATE,
                f"The job is in state {state} and can no longer be changed.",
            )

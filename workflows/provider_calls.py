"""The calls to a job's provider, with their timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError
from temporalio.workflow import ActivityCancellationType, ActivityHandle

from activities.provider import ProviderActivities
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.messages import ProviderCall, SubmitResult
from ucloud_orchestrator.temporal.names import provider_task_queue
from workflows import timeouts
from workflows.errors import as_rejection, rejection
from workflows.job_state import WorkflowState


class ProviderCalls:
    def __init__(self, state: WorkflowState) -> None:
        self._state = state

    def submit(self) -> ActivityHandle[SubmitResult]:
        """Start the submission, which is retried for as long as the job lives."""
        return workflow.start_activity_method(
            ProviderActivities.submit,
            ProviderCall(job=self._state.job_without_updates),
            task_queue=provider_task_queue(self._state.provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"Submit to {self._state.provider}",
        )

    async def terminate(self) -> bool:
        """Stop the job and delete its resources at the provider. False: it gave no answer."""
        try:
            await workflow.execute_activity_method(
                ProviderActivities.terminate,
                ProviderCall(job=self._state.job_without_updates),
                task_queue=provider_task_queue(self._state.provider),
                start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
                schedule_to_close_timeout=timeouts.TERMINATE_TIMEOUT,
                heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
                retry_policy=timeouts.PROVIDER_RETRY,
                summary=f"Stop at {self._state.provider}",
            )
        except ActivityError as error:
            workflow.logger.error("The provider did not stop the job: %s", error.cause)
            return False
        return True

    async def request(
        self, activity: Any, call: Any, verb: str, is_cancelled: Callable[[], bool]
    ) -> Any:
        """Make a user's request and return the provider's answer. Raises a rejection.

        It is given up when `is_cancelled` becomes true.
        """
        request = workflow.start_activity_method(
            activity,
            call,
            task_queue=provider_task_queue(self._state.provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            schedule_to_close_timeout=timeouts.REQUEST_TIMEOUT,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            summary=f"{verb} at {self._state.provider}",
        )
        await workflow.wait_condition(lambda: request.done() or is_cancelled())
        if not request.done():
            request.add_done_callback(_retrieve_exception)
            request.cancel()
            raise rejection(
                ErrorCode.INVALID_STATE,
                f"The job ended before the provider answered to {verb.lower()}.",
            )
        try:
            return await request
        except FailureError as error:
            raise as_rejection(error) from error


def _retrieve_exception(request: asyncio.Task[Any]) -> None:
    """Avoid asyncio's warning about an exception that was never retrieved."""
    if not request.cancelled():
        request.exception()

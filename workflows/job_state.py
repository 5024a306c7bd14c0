"""What a job's workflow knows of its job, and what follows from it: the deadline's timer and what
operators see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows import display, lifecycle

with workflow.unsafe.imports_passed_through():
    from ucloud_orchestrator.models.job import Job, JobState, JobStatus, JobUpdate
    from ucloud_orchestrator.models.messages import (
        BatchOutcome,
        ContinuedState,
        JobRequest,
    )

HELD_UPDATE_BYTES = 512 * 1024
"""With more than this in updates the workflow continues as new, well below Temporal's limit of 2 MB
for one answer.
"""
CARRIED_UPDATE_BYTES = 64 * 1024
"""What of the newest updates is carried through a continue-as-new; the older ones move to the
store.
"""


class WorkflowState:
    """The state of the workflow `Job`. All that is said of the job itself is in `self._job`."""

    def __init__(self, request: JobRequest) -> None:
        self._ignored_updates = 0
        self._provider_generated_id: str | None = None
        self._accepted = request.carried is not None
        self._refusal: ApplicationError | None = None
        self._cancel_requested = False
        self._deadline_passed = False
        self._deadline_timer: asyncio.Task[None] | None = None
        self._deadline: int | None = None
        self._submitted = self._accepted
        self._batch = request.batch
        self._batch_outcome: BatchOutcome | None = None
        self._may_be_at_provider = self._accepted or request.batch is not None
        self._has_been_reported = False
        """Whether the provider has spoken of the job, which proves that it has it."""
        self._has_reported_end = False
        self._stopping = False
        self._settling = False
        self._out_of_credits_since: int | None = None
        self._grace_timer: asyncio.Task[None] | None = None
        self._own_reason: str | None = None
        """Why the orchestrator itself ends the job."""
        self._json_bytes = 0
        self._is_description_due = False
        self._requests = asyncio.Lock()
        self._accounts = asyncio.Lock()
        self._job = (
            self._carried_job(request, request.carried)
            if request.carried
            else self._new_job(request)
        )

    def _new_job(self, request: JobRequest) -> Job:
        created_at = now()
        first = JobUpdate(
            timestamp=created_at,
            state=JobState.IN_QUEUE,
            status="Your job is now waiting in the queue.",
        )
        self._measure([first])
        return Job(
            id=workflow.info().workflow_id,
            owner=request.owner,
            specification=request.specification,
            status=JobStatus(state=JobState.IN_QUEUE),
            created_at=created_at,
            updates=[first],
        )

    def _carried_job(self, request: JobRequest, carried: ContinuedState) -> Job:
        self._ignored_updates = carried.ignored_updates
        self._provider_generated_id = carried.provider_generated_id
        self._out_of_credits_since = carried.out_of_credits_since
        self._measure(carried.updates)
        return Job(
            id=workflow.info().workflow_id,
            owner=request.owner,
            specification=request.specification,
            status=carried.status,
            billing=carried.billing,
            created_at=carried.created_at,
            updates=carried.updates,
            omitted_updates=carried.omitted_updates,
            output=carried.output,
            acl=carried.acl,
        )

    @property
    def _provider(self) -> str:
        return self._job.specification.product.provider

    @property
    def _has_ended(self) -> bool:
        return self._job.status.state.is_terminal

    @property
    def _is_over(self) -> bool:
        """Whether the job has ended, or is to be ended."""
        return (
            self._has_ended
            or self._cancel_requested
            or self._deadline_passed
            or self._own_reason is not None
        )

    @property
    def _waiting_reason(self) -> str:
        """What comes next, for operators."""
        if self._has_ended:
            return (
                "nothing: it is in the archive"
                if self._settling
                else "the settlement: release, bill, archive"
            )
        if self._batch is not None and not self._accepted:
            return f"its batch `{self._batch.batch_id}`"
        if not self._may_be_at_provider:
            return "admission: whether all that it asks for is there"
        if not self._accepted:
            return (
                f"the answer of `{self._provider}` to its submission, which is repeated until "
                "there is one"
            )
        if self._out_of_credits_since is not None:
            return "credits, or its stop: the wallet is empty"
        return {
            JobState.IN_QUEUE: f"`{self._provider}` to start it",
            JobState.RUNNING: "its end, or its time to run out",
            JobState.SUSPENDED: "somebody to resume it; its time goes on",
        }.get(self._job.status.state, f"`{self._provider}` to confirm that it has stopped")

    @property
    def _is_due(self) -> bool:
        return self._is_over or self._should_continue_as_new

    @property
    def _should_continue_as_new(self) -> bool:
        return workflow.info().is_continue_as_new_suggested() or self._holds_too_much

    @property
    def _holds_too_much(self) -> bool:
        """Whether updates are to move to the store."""
        return self._json_bytes > HELD_UPDATE_BYTES

    @property
    def _job_without_updates(self) -> Job:
        """Without what only grows, and what is nobody's business but its readers'."""
        return self._job.model_copy(update={"updates": [], "omitted_updates": 0, "acl": None})

    def _apply(self, updates: Sequence[JobUpdate]) -> None:
        outcome = lifecycle.apply(self._job, updates, now())
        for update, verdict in zip(updates, outcome.verdicts, strict=True):
            if verdict is not lifecycle.UpdateOutcome.APPLIED:
                self._ignore(1)
                workflow.logger.info(
                    "An update to %s was ignored: %s.", update.state or "text", verdict
                )
        self._set_job(outcome)

    def _ignore(self, updates: int) -> None:
        """Count what the provider said and is not used; operators see the number, of one job and of
        all.
        """
        self._ignored_updates += updates
        counter = workflow.metric_meter().create_counter(
            "ucloud_ignored_updates", "Updates that changed nothing."
        )
        counter.add(updates, {"provider": self._provider})

    def _end(self, state: JobState, text: str) -> None:
        if not self._has_ended:
            self._set_job(lifecycle.apply(self._job, [JobUpdate(state=state, status=text)], now()))

    def _set_job(self, outcome: lifecycle.Outcome) -> None:
        self._measure(outcome.job.updates[len(self._job.updates) :])
        self._job = outcome.job
        self._refresh_display()

    def _measure(self, added: Sequence[JobUpdate]) -> None:
        self._json_bytes += sum(map(json_size, added))

    def _refresh_display(self) -> None:
        """Let the deadline's timer and what operators see follow the job."""
        display.show(self._job, self._provider_generated_id)
        if not self._is_description_due:
            # Once for all that a task brings: thousands of reports may have waited for a worker.
            self._is_description_due = True
            asyncio.get_running_loop().call_soon(self._describe)
        expires_at = self._job.status.expires_at
        if expires_at is None or expires_at == self._deadline or self._has_ended or self._stopping:
            return
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline = expires_at
        self._deadline_passed = False
        self._deadline_timer = asyncio.create_task(self._watch_deadline(expires_at))

    def _describe(self) -> None:
        self._is_description_due = False
        if self._refusal is None:
            display.describe(
                self._job, self._waiting_reason, self._provider_generated_id, self._ignored_updates
            )

    async def _watch_deadline(self, expires_at: int) -> None:
        remaining = timedelta(milliseconds=max(0, expires_at - now()))
        await workflow.sleep(remaining, summary="The time allocation runs out")
        self._deadline_passed = True


def now() -> int:
    return int(workflow.now().timestamp() * 1000)


def json_size(update: JobUpdate) -> int:
    """Bytes on the wire: control characters, of which progress bars are full, take six times as
    many as in the text.
    """
    return len(update.model_dump_json(by_alias=True, exclude_none=True).encode())

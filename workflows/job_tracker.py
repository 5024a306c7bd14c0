"""Applies the lifecycle to a job's state, and refreshes the display and the deadline's timer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from ucloud_orchestrator.models.job import JobState, JobUpdate
from workflows import lifecycle
from workflows.display import Display
from workflows.job_state import Phase, WorkflowState


class JobTracker:
    """Applies updates and events to one job. All changes of its `JobState` go through here."""

    def __init__(self, state: WorkflowState) -> None:
        self.state = state
        self.rejection: ApplicationError | None = None
        self._display = Display(state)
        self._deadline: int | None = None
        self._deadline_timer: asyncio.Task[None] | None = None

    def refresh(self) -> None:
        """Bring the display and the deadline's timer up to date."""
        self._display.refresh()
        self._watch_deadline()

    def reject(self, rejection: ApplicationError) -> None:
        """Record why the job was not accepted; its workflow fails with it."""
        self.rejection = rejection
        self._display.show_rejection(rejection)

    def apply(self, updates: Sequence[JobUpdate]) -> None:
        """Apply updates of the provider, and count those that change nothing."""
        result = lifecycle.apply(self.state.job, updates, now())
        for update, outcome in zip(updates, result.outcomes, strict=True):
            if outcome is not lifecycle.UpdateOutcome.APPLIED:
                self.count_ignored(1)
                workflow.logger.info(
                    "An update to %s was ignored: %s.", update.state or "text", outcome
                )
        self._set(result)

    def count_ignored(self, updates: int) -> None:
        self.state.ignored_updates += updates
        counter = workflow.metric_meter().create_counter(
            "ucloud_ignored_updates", "Updates that changed nothing."
        )
        counter.add(updates, {"provider": self.state.provider})

    def start_canceling(self, text: str) -> None:
        self._set(lifecycle.cancel(self.state.job, text, now()))

    def expire(self, text: str) -> None:
        self._set(lifecycle.pass_deadline(self.state.job, text, now()))

    def end(self, state: JobState, text: str) -> None:
        if not self.state.has_ended:
            update = JobUpdate(state=state, status=text)
            self._set(lifecycle.apply(self.state.job, [update], now()))

    def _set(self, result: lifecycle.Result) -> None:
        self.state.set_job(result.job)
        self.refresh()

    def _watch_deadline(self) -> None:
        expires_at = self.state.job.status.expires_at
        is_over = self.state.has_ended or self.state.phase >= Phase.STOPPING
        if expires_at is None or expires_at == self._deadline or is_over:
            return
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline = expires_at
        self.state.deadline_passed = False
        self._deadline_timer = asyncio.create_task(self._wait_for(expires_at))

    async def _wait_for(self, expires_at: int) -> None:
        remaining = timedelta(milliseconds=max(0, expires_at - now()))
        await workflow.sleep(remaining, summary="The time allocation runs out")
        self.state.deadline_passed = True


def now() -> int:
    """Return the workflow's time in milliseconds since the epoch."""
    return int(workflow.now().timestamp() * 1000)

"""The reason for the end of a job, as a label for metrics."""

from __future__ import annotations

from enum import StrEnum

from ucloud_orchestrator.models.job import Job, JobState

NO_CREDITS = "(No more credits)"
"""The end of UCloud's own messages for a job whose wallet is empty."""


class EndReason(StrEnum):
    ENDED = "ended"
    """The program ended, whatever its exit code."""
    CANCELLED = "cancelled"
    """By a user or an operator, or because the owner lost access to a resource."""
    NO_CREDITS = "no_credits"
    OUT_OF_TIME = "out_of_time"
    FAILED = "failed"
    """A fault of the scheduler, the hardware or the provider."""


def end_reason(job: Job) -> EndReason:
    """Derive the reason from the job's state and updates; the newest 64 KiB of them suffice."""
    if any(
        (update.status or "").endswith((NO_CREDITS, f"{NO_CREDITS}.")) for update in job.updates
    ):
        return EndReason.NO_CREDITS
    if job.status.state is JobState.EXPIRED:
        return EndReason.OUT_OF_TIME
    if job.status.state is JobState.FAILURE:
        return EndReason.FAILED
    if any(update.state is JobState.CANCELING for update in job.updates):
        return EndReason.CANCELLED
    return EndReason.ENDED

"""Why a job ended, in a word for figures: what its updates say to people in sentences."""

from __future__ import annotations

from enum import StrEnum

from ucloud_orchestrator.models.job import Job, JobState

NO_CREDITS = "(No more credits)"
"""How UCloud's own texts end for a job whose wallet is empty."""


class EndReason(StrEnum):
    """The few kinds of ends that operators tell apart."""

    ENDED = "ended"
    """The program ended, whatever its exit code."""
    CANCELLED = "cancelled"
    """By somebody, or because its owner lost access to what it used."""
    NO_CREDITS = "no_credits"
    OUT_OF_TIME = "out_of_time"
    FAILED = "failed"
    """The scheduler, the hardware or the provider."""


def end_reason(job: Job) -> EndReason:
    """Why it ended, by its state and the updates that it still carries (the newest 64 KiB at
    least).
    """
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

"""The reason for the end of a job, as a label for metrics."""

from __future__ import annotations

import pytest

from tests import builders
from ucloud_orchestrator.models import JobState, JobUpdate
from ucloud_orchestrator.models.end_reason import end_reason

RUNNING = JobUpdate(timestamp=1, state=JobState.RUNNING, status="Your job is now running.")
CANCELING = JobUpdate(
    timestamp=2, state=JobState.CANCELING, status="Your job is being cancelled: enough"
)
POOR = JobUpdate(timestamp=2, status="Your job has been terminated (No more credits).")
POOR_CANCELING = JobUpdate(
    timestamp=2, state=JobState.CANCELING, status="Your job is being terminated (No more credits)."
)


@pytest.mark.parametrize(
    ("state", "updates", "reason"),
    [
        (JobState.SUCCESS, [], "ended"),
        (JobState.SUCCESS, [CANCELING], "cancelled"),
        (JobState.FAILURE, [CANCELING], "failed"),
        (JobState.FAILURE, [], "failed"),
        (JobState.EXPIRED, [], "out_of_time"),
        (JobState.SUCCESS, [POOR], "no_credits"),
        (JobState.SUCCESS, [POOR_CANCELING], "no_credits"),
    ],
)
def test_end_reason_by_state_and_updates(
    state: JobState, updates: list[JobUpdate], reason: str
) -> None:
    end = JobUpdate(timestamp=3, state=state, status="The job has finished.")
    job = builders.job(state=state, updates=[RUNNING, *updates, end])
    assert end_reason(job) == reason

"""The state of the workflow `Job`, and what follows from it. No I/O and no Temporal commands."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from pydantic import ConfigDict, PrivateAttr

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import Job, JobState, JobStatus, JobUpdate
from ucloud_orchestrator.models.messages import BatchMembership, JobRequest

HELD_UPDATE_BYTES = 512 * 1024
"""Above this size of its updates, the workflow offloads the oldest and continues as new."""
CARRIED_UPDATE_BYTES = 64 * 1024
"""The newest updates, up to this size, stay in the workflow; the older ones are offloaded."""


class Phase(IntEnum):
    """The steps of the workflow `Job`, in order."""

    PENDING = 1
    """Admission and submission."""
    ACCEPTED = 2
    STOPPING = 3
    """The job has ended, or it is being stopped at its provider."""
    SETTLEMENT = 4
    """No charge is accepted from here on."""


class WorkflowState(ApiModel):
    """The state of one job's workflow. Continue-as-new carries it whole.

    It is stored in histories: fields are only added, with a default.
    """

    model_config = ConfigDict(frozen=False)

    job: Job
    phase: Phase = Phase.PENDING
    batch: BatchMembership | None = None
    may_be_at_provider: bool = False
    """A submission has begun, or the batch may have begun one."""
    is_at_provider: bool = False
    """The provider has confirmed the job, by its answer to the submission or by a report."""
    provider_generated_id: str | None = None
    has_reported_end: bool = False
    cancel_requested: bool = False
    stop_reason: str | None = None
    """The sentence for the user if the orchestrator itself ends the job."""
    deadline_passed: bool = False
    out_of_credits_since: int | None = None
    """In milliseconds since the epoch; None if the wallet could pay the last charge."""
    ignored_updates: int = 0
    _update_bytes: int = PrivateAttr(default=0)

    def model_post_init(self, _context: Any, /) -> None:
        """Measure the updates once; later changes are added."""
        self._update_bytes = _size_of(self.job.updates)

    @classmethod
    def of_new_job(cls, request: JobRequest, job_id: str, now: int) -> WorkflowState:
        first = JobUpdate(
            timestamp=now,
            state=JobState.IN_QUEUE,
            status="Your job is now waiting in the queue.",
        )
        job = Job(
            id=job_id,
            owner=request.owner,
            specification=request.specification,
            status=JobStatus(state=JobState.IN_QUEUE),
            created_at=now,
            updates=[first],
        )
        return cls(job=job, batch=request.batch, may_be_at_provider=request.batch is not None)

    @property
    def provider(self) -> str:
        return self.job.specification.product.provider

    @property
    def has_ended(self) -> bool:
        return self.job.status.state.is_terminal

    @property
    def is_over(self) -> bool:
        return (
            self.has_ended
            or self.cancel_requested
            or self.deadline_passed
            or self.stop_reason is not None
        )

    @property
    def update_bytes(self) -> int:
        return self._update_bytes

    @property
    def holds_too_much(self) -> bool:
        return self._update_bytes > HELD_UPDATE_BYTES

    @property
    def job_without_updates(self) -> Job:
        """The job without `updates` and `acl`, as it is sent to providers."""
        return self.job.model_copy(update={"updates": [], "omitted_updates": 0, "acl": None})

    def change_job(self, **fields: Any) -> None:
        self.job = self.job.model_copy(update=fields)

    def change_billing(self, **fields: Any) -> None:
        self.change_job(billing=self.job.billing.model_copy(update=fields))

    def change_specification(self, **fields: Any) -> None:
        self.change_job(specification=self.job.specification.model_copy(update=fields))

    def set_job(self, job: Job) -> None:
        """Replace the job by one with the same updates and possibly more."""
        self._update_bytes += _size_of(job.updates[len(self.job.updates) :])
        self.job = job

    def drop_oldest_updates(self, count: int) -> None:
        updates = self.job.updates[count:]
        self.change_job(updates=updates, omitted_updates=self.job.omitted_updates + count)
        self._update_bytes = _size_of(updates)


def json_size(update: JobUpdate) -> int:
    """Return the bytes as JSON; a control character takes six of them."""
    return len(update.model_dump_json(by_alias=True, exclude_none=True).encode())


def _size_of(updates: Sequence[JobUpdate]) -> int:
    return sum(map(json_size, updates))

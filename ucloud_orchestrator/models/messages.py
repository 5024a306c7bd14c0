"""The messages between workflows, callers and activities: one model for each.

Histories store them, so fields are only added, with a default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import FailFast, Field, field_validator

from ucloud_orchestrator.models.accounting import Movement, Wallet
from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import (
    Job,
    JobName,
    JobOwner,
    JobSpecification,
    JobState,
    JobUpdate,
    ResourceAclEntry,
    SimpleDuration,
)
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.models.session import Challenge, OpenSessionRequest
from ucloud_orchestrator.models.workspace import Membership, Workspace

MAXIMUM_BATCH = 500
"""Jobs of one batch: they are in one Temporal payload of at most 2 MB."""

MAXIMUM_ACL_BYTES = 64 * 1024
"""Every answer about a job contains its access list."""


class BatchMembership(ApiModel):
    """The batch of a job, which has admitted the job and submits it."""

    batch_id: str
    price_per_unit: int


class JobRequest(ApiModel):
    """The argument of the workflow `Job`. Only the workflow `JobBatch` sets `batch`."""

    owner: JobOwner
    specification: JobSpecification
    batch: BatchMembership | None = None


class BatchedJob(ApiModel):
    job_id: str
    specification: JobSpecification


class BatchRequest(ApiModel):
    owner: JobOwner
    jobs: list[BatchedJob] = Field(min_length=1, max_length=MAXIMUM_BATCH)


class BatchOutcome(ApiModel):
    """The argument of the signal `batch_outcome`: the provider's answer, or the rejection.

    `cancelled` is the sentence for the user if the job is to be cancelled with its batch.
    """

    result: SubmitResult | None = None
    cancelled: str | None = None
    rejection: Rejection | None = None


class LeaveRequest(ApiModel):
    """The argument of the batch's signal `leave`: a job that the batch must not submit."""

    job_id: str


class Rejection(ApiModel):
    code: ErrorCode
    message: str


class ExtendRequest(ApiModel):
    requested_time: SimpleDuration


class AdmissionRequest(ApiModel):
    job_id: str
    owner: JobOwner
    specification: JobSpecification


class Admission(ApiModel):
    """The result of admission: the specification with its defaults, and the fixed price."""

    specification: JobSpecification
    price_per_unit: int


class ProviderCall(ApiModel):
    job: Job


class BatchCall(ApiModel):
    jobs: list[Job]


class BatchSubmitResult(ApiModel):
    """The provider's answer for each job of a batch, in order."""

    results: list[SubmitResult]


class BatchAdmissionRequest(ApiModel):
    """The argument of the activity `admit_batch`: all are admitted, or none."""

    jobs: list[AdmissionRequest]


class BatchAdmission(ApiModel):
    """The result of admission for each job of a batch, in order."""

    jobs: list[Admission]


class BatchWithdrawal(ApiModel):
    job_ids: list[str]


class ExtendCall(ApiModel):
    job: Job
    requested_time: SimpleDuration


class OpenSessionCall(ApiModel):
    job: Job
    request: OpenSessionRequest


class OpenLogsCall(ApiModel):
    """The argument of the activity `open_logs`; the job has no updates."""

    job: Job
    challenge: Challenge | None = None


class SubmitResult(ApiModel):
    """The provider's answer to `create`: its own id of the job, and first updates."""

    provider_generated_id: str | None = None
    updates: list[JobUpdate] = Field(default_factory=list)


class Settlement(ApiModel):
    """A job that has ended. The store has its `omitted_updates` oldest updates already."""

    job: Job


class OffloadedUpdates(ApiModel):
    """Updates that move to the store.

    `first_position` is the position of the first among all updates of the job.
    """

    job_id: str
    first_position: int
    updates: list[JobUpdate]


class ChargeCall(ApiModel):
    job_id: str
    charges: list[Charge]


class ReserveCall(ApiModel):
    """The argument of the activity `reserve`: the whole time allocation to pay for."""

    job_id: str
    milliseconds: int


class GrantRequest(ApiModel):
    """The argument of `grant`. Idempotent by `grant_id`."""

    grant_id: str
    granted_by: str
    owner: Workspace
    category: ProductCategory
    amount: int
    note: str = ""


class WalletsRequest(ApiModel):
    """The argument of `browse_wallets`.

    `movements` is the number of the newest lines of the ledger to return.
    """

    owner: Workspace
    movements: int = Field(default=0, ge=0, le=1000)


class WalletsAnswer(ApiModel):
    """All wallets of an owner, and lines of their ledger, newest first."""

    wallets: list[Wallet]
    movements: list[Movement] = Field(default_factory=list)


class FindHolderRequest(ApiModel):
    """The argument of `find_holder`: a link (`ingress`) or an address (`network`)."""

    username: str
    kind: Literal["ingress", "network"]
    resource_id: str


class HolderAnswer(ApiModel):
    """The live job that holds the resource; None if it is free."""

    job_id: str | None = None


class MembershipsRequest(ApiModel):
    username: str


class MembershipsAnswer(ApiModel):
    memberships: list[Membership]


class RenameRequest(ApiModel):
    """The argument of the update `rename`; None removes the name."""

    name: JobName | None = None


class AclRequest(ApiModel):
    acl: Annotated[list[ResourceAclEntry], FailFast()] = Field(max_length=1000)

    @field_validator("acl")
    @classmethod
    def _check_size(cls, acl: list[ResourceAclEntry]) -> list[ResourceAclEntry]:
        size = sum(len(entry.model_dump_json().encode()) for entry in acl)
        if size > MAXIMUM_ACL_BYTES:
            raise ValueError(f"may have {MAXIMUM_ACL_BYTES} bytes at most, not {size}")
        return acl


class ProviderCheckRequest(ApiModel):
    """The argument of the workflow `ProviderCheck` and of its activities.

    `after` is the id of the last job of the page before.
    """

    provider: str
    after: str | None = None


class JobToCancel(ApiModel):
    job_id: str
    reason: str


class JobsToCancel(ApiModel):
    """Jobs that lost access to a resource.

    `last` is the id of the last job of the page, None after the last page.
    """

    jobs: list[JobToCancel]
    last: str | None = None


class OrphanedJob(ApiModel):
    """A job whose workflow is closed, and the workflow that claimed for it."""

    job_id: str
    claimed_by: str


class OrphanedJobs(ApiModel):
    """Jobs of a page whose workflows are closed; `last` is as in `JobsToCancel`."""

    jobs: list[OrphanedJob]
    last: str | None = None


class VerifiedJobs(ApiModel):
    """The number of a page's jobs that were verified; `last` is as in `JobsToCancel`."""

    count: int
    last: str | None = None


class ArchiveRequest(ApiModel):
    """The argument of `retrieve_from_archive`.

    `first_position` is the position of the first update to return.
    """

    job_id: str
    first_position: int = 0


class ArchiveAnswer(ApiModel):
    """The archived job without its updates, and a page of the updates in the store.

    `job` is None if it has not ended. `next_position` is None after the last page.
    """

    job: Job | None = None
    updates: list[JobUpdate]
    next_position: int | None = None


class BrowseRequest(ApiModel):
    """Filters over finished jobs, newest first.

    `before` is the id of the last job of the page before.
    """

    created_by: str | None = None
    project: str | None = None
    personal: bool = False
    """Only jobs without a project."""
    provider: str | None = None
    application: str | None = None
    states: list[JobState] | None = None
    before: str | None = None
    limit: int = 50


class BrowseAnswer(ApiModel):
    """One page of finished jobs, without their updates."""

    jobs: list[Job]

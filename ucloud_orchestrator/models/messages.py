"""What passes between a job's workflow, its callers and its activities: one model each, so that a
field can be added.

All of it is stored in workflow histories, so fields are only ever added, with a default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import FailFast, Field, field_validator

from ucloud_orchestrator.models.accounting import Movement, Wallet
from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import (
    Job,
    JobBilling,
    JobName,
    JobOutput,
    JobOwner,
    JobSpecification,
    JobState,
    JobStatus,
    JobUpdate,
    ResourceAclEntry,
    SimpleDuration,
)
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.models.session import Challenge, OpenSessionRequest
from ucloud_orchestrator.models.workspace import Membership, Workspace

MAXIMUM_BATCH = 500
"""Jobs of one batch: they travel in one Temporal payload of at most 2 MB."""

MAXIMUM_ACL_BYTES = 64 * 1024
"""An access list is in every answer about its job."""


class ContinuedState(ApiModel):
    """What a job takes with it when its workflow continues as new."""

    created_at: int
    status: JobStatus
    billing: JobBilling
    updates: list[JobUpdate]
    omitted_updates: int = 0
    output: JobOutput | None = None
    acl: list[ResourceAclEntry] | None = None
    ignored_updates: int = 0
    provider_generated_id: str | None = None
    out_of_credits_since: int | None = None


class BatchMembership(ApiModel):
    """A job that its batch has admitted, and is submitting; the batch tells it what came of
    that.
    """

    batch_id: str
    price_per_unit: int


class JobRequest(ApiModel):
    """The argument of the workflow `Job`.

    A caller sets neither `carried` nor `batch`: the workflows do.
    """

    owner: JobOwner
    specification: JobSpecification
    carried: ContinuedState | None = None
    batch: BatchMembership | None = None


class BatchedJob(ApiModel):
    """One job of a batch."""

    job_id: str
    specification: JobSpecification


class BatchRequest(ApiModel):
    """The argument of the workflow `JobBatch`."""

    owner: JobOwner
    jobs: list[BatchedJob] = Field(min_length=1, max_length=MAXIMUM_BATCH)


class BatchOutcome(ApiModel):
    """The payload of the signal `batch_outcome`: what the provider answered, or why the batch was
    refused.

    A cancel of the batch is a cancel of each job, with this reason.
    """

    result: SubmitResult | None = None
    cancelled: str | None = None
    refusal: Refusal | None = None


class LeaveRequest(ApiModel):
    """The payload of the batch's signal `leave`: a job of it that must end before the batch is
    through.
    """

    job_id: str


class Refusal(ApiModel):
    """Why something was refused, as it travels from a batch to its jobs."""

    code: ErrorCode
    message: str


class ExtendRequest(ApiModel):
    """The argument of the update `extend`: how much time to add."""

    requested_time: SimpleDuration


class AdmissionRequest(ApiModel):
    """What admission decides over."""

    job_id: str
    owner: JobOwner
    specification: JobSpecification


class Admission(ApiModel):
    """What admission settled: the specification with its defaults filled in, and the frozen
    price.
    """

    specification: JobSpecification
    price_per_unit: int


class ProviderCall(ApiModel):
    """The argument of an activity that calls the job's provider about it."""

    job: Job


class BatchCall(ApiModel):
    """The argument of an activity that calls a provider about all of a batch's jobs that are
    his.
    """

    jobs: list[Job]


class BatchSubmitResult(ApiModel):
    """What the provider answered for each job of a batch, in order."""

    results: list[SubmitResult]


class BatchAdmissionRequest(ApiModel):
    """The jobs of a batch, to be admitted together or not at all."""

    jobs: list[AdmissionRequest]


class BatchAdmission(ApiModel):
    """What admission settled for each job of a batch, in order."""

    jobs: list[Admission]


class BatchWithdrawal(ApiModel):
    """The jobs of a batch that is refused."""

    job_ids: list[str]


class ExtendCall(ApiModel):
    """The argument of the activity `extend`."""

    job: Job
    requested_time: SimpleDuration


class OpenSessionCall(ApiModel):
    """The argument of the activity `open_session`."""

    job: Job
    request: OpenSessionRequest


class OpenLogsCall(ApiModel):
    """The argument of the activity `open_logs`; the job comes without its updates."""

    job: Job
    challenge: Challenge | None = None


class SubmitResult(ApiModel):
    """What the provider answered to `create`: its own name for the job, and what it could say of it
    at once.
    """

    provider_generated_id: str | None = None
    updates: list[JobUpdate] = Field(default_factory=list)


class Settlement(ApiModel):
    """A job that has ended. Its `omitted_updates` oldest updates are in the store already."""

    job: Job


class OffloadedUpdates(ApiModel):
    """Updates that move to the store; the first has the number `first_position` among all of the
    job's.
    """

    job_id: str
    first_position: int
    updates: list[JobUpdate]


class ChargeCall(ApiModel):
    """The argument of the activity `charge`."""

    job_id: str
    charges: list[Charge]


class ReserveCall(ApiModel):
    """The argument of the activity `cover`: the whole time allocation whose price is to be held."""

    job_id: str
    milliseconds: int


class GrantRequest(ApiModel):
    """The argument of `grant`. A `grant_id` counts once."""

    grant_id: str
    granted_by: str
    owner: Workspace
    category: ProductCategory
    amount: int
    note: str = ""


class WalletsRequest(ApiModel):
    """The argument of `browse_wallets`; with `movements`, that many of the newest lines of the
    ledger come along.
    """

    owner: Workspace
    movements: int = Field(default=0, ge=0, le=1000)


class WalletsAnswer(ApiModel):
    """All wallets of an owner, and lines of their ledger, newest first."""

    wallets: list[Wallet]
    movements: list[Movement] = Field(default_factory=list)


class FindHolderRequest(ApiModel):
    """The argument of `find_holder`: which link (`ingress`) or address (`network`), and who
    asks.
    """

    username: str
    kind: Literal["ingress", "network"]
    resource_id: str


class HolderAnswer(ApiModel):
    """The live job that holds it, if one does."""

    job_id: str | None = None


class MembershipsRequest(ApiModel):
    """The argument of `browse_memberships`."""

    username: str


class MembershipsAnswer(ApiModel):
    """Every project that a user is in."""

    memberships: list[Membership]


class RenameRequest(ApiModel):
    """The argument of the update `rename`; without a name the job has none any more."""

    name: JobName | None = None


class AclRequest(ApiModel):
    """The argument of the update `update_acl`: the whole new access list."""

    acl: Annotated[list[ResourceAclEntry], FailFast()] = Field(max_length=1000)

    @field_validator("acl")
    @classmethod
    def _check_size(cls, acl: list[ResourceAclEntry]) -> list[ResourceAclEntry]:
        size = sum(len(entry.model_dump_json().encode()) for entry in acl)
        if size > MAXIMUM_ACL_BYTES:
            raise ValueError(f"may have {MAXIMUM_ACL_BYTES} bytes at most, not {size}")
        return acl


class ProviderCheckRequest(ApiModel):
    """The argument of the workflow `ProviderMonitor`; `after` is the id of the last job of the page
    before.
    """

    provider: str
    after: str | None = None


class JobToCancel(ApiModel):
    """A job, and why it is cancelled."""

    job_id: str
    reason: str


class JobsToCancel(ApiModel):
    """Jobs that lost what they use; `last` is the last job of the page that was looked at, None
    after the last page.
    """

    jobs: list[JobToCancel]
    last: str | None = None


class OrphanedJob(ApiModel):
    """A job whose workflow is closed, and who had taken what is still held for it."""

    job_id: str
    claimed_by: str


class OrphanedJobs(ApiModel):
    """Jobs of a page whose workflows are closed; `last` is as in `JobsToCancel`."""

    jobs: list[OrphanedJob]
    last: str | None = None


class VerifiedJobs(ApiModel):
    """How many jobs of a page the provider was asked about; `last` is as in `JobsToCancel`."""

    count: int
    last: str | None = None


class ArchiveRequest(ApiModel):
    """The argument of `retrieve_from_archive`; `first_position` is the number of the first update
    to give.
    """

    job_id: str
    first_position: int = 0


class ArchiveAnswer(ApiModel):
    """The archived job without its updates, if it has ended, and a page of the updates that the
    store has of it.

    `next_position` is where the next page begins; None after the last one.
    """

    job: Job | None = None
    updates: list[JobUpdate]
    next_position: int | None = None


class BrowseRequest(ApiModel):
    """Filters over finished jobs; `before` is the id of the last job of the page before.

    Newest first.
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

"""The provider protocol: bodies of the HTTP calls to a provider, and of a provider's messages to a
job.

From UCloud's documentation of the compute provider API.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import FailFast, Field, NonNegativeInt

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import Job, JobUpdate, SimpleDuration
from ucloud_orchestrator.models.product import ProductSupport

Item = TypeVar("Item")
MAXIMUM_UNITS = 2**31 - 1
"""More minutes than four thousand years have, and more replicas than there are computers."""
MAXIMUM_UPDATES = 1000
"""Of one message to a job: all are applied in one workflow task, which Temporal gives two seconds.
"""
MAXIMUM_POSITIONS = 20_000
"""Two streams for each of ten thousand replicas."""


class LogStream(StrEnum):
    """What a replica writes to."""

    STDOUT = "stdout"
    STDERR = "stderr"


class BulkRequest(ApiModel, Generic[Item]):
    """A body with many items."""

    items: Annotated[list[Item], FailFast()] = Field(min_length=1)
    """A million mistakes would be a million sentences, so the first wrong item is the last that is
    looked at.
    """


class BulkResponse(ApiModel, Generic[Item]):
    """The answer: one response for each item, in order."""

    responses: list[Item]


class CreateResponse(ApiModel):
    """The answer to `create`: the provider's own name for a job.

    `updates` is ours, not UCloud's: a provider that has started the job at once may say so here
    instead of in a message of its own. Nobody has to give it or to read it.
    """

    id: str | None = Field(default=None, max_length=255)
    updates: list[JobUpdate] = Field(default_factory=list)


class JobReference(ApiModel):
    """The item of the calls that need the job alone: suspend, unsuspend."""

    job: Job


class ExtendItem(ApiModel):
    """The item of `extend`: `job` carries the allocation as it was before, so that a repeat can be
    told.
    """

    job: Job
    requested_time: SimpleDuration


class ProductsResponse(ApiModel):
    """The answer of `retrieveProducts`."""

    responses: list[ProductSupport]


class CpuAndMemory(ApiModel):
    """Cores, and memory in bytes."""

    cpu: float
    memory: int


class QueueStatus(ApiModel):
    """How many jobs run and wait."""

    running: int
    pending: int


class Utilization(ApiModel):
    """The answer of `retrieveUtilization`."""

    capacity: CpuAndMemory
    used_capacity: CpuAndMemory
    queue_status: QueueStatus


class ProviderError(ApiModel):
    """The body of a refusal."""

    why: str
    error_code: str | None = None


class UpdateMessage(ApiModel):
    """The payload of a job's signal `update`."""

    provider: str
    updates: Annotated[list[JobUpdate], FailFast()]
    """At most `MAXIMUM_UPDATES`."""


class FollowMessage(ApiModel):
    """A message of the `follow` WebSocket. A negative rank is a control message, not output of the
    job.

    `position` and `ended` are ours, not UCloud's, and sent to sessions of type `LOGS` only. Such a
    message has either `stdout` or `stderr`.
    """

    stream_id: str
    rank: int
    stdout: str | None = None
    stderr: str | None = None
    position: int | None = None
    """Bytes of that rank's stream up to the end of this text: where a later session goes on."""
    ended: bool | None = None
    """In the last message, which has no text: all that there is to come has been sent."""


class FollowRequest(ApiModel):
    """What the orchestrator sends on the `follow` WebSocket: `init` with a job, then `cancel` with
    the stream's id.
    """

    type: str
    job: Job | None = None
    stream_id: str | None = None


class LogsRequest(ApiModel):
    """The first message on the WebSocket of a session of type `LOGS`, which is ours."""

    type: Literal["init"] = "init"
    positions: dict[str, NonNegativeInt] = Field(default={}, max_length=MAXIMUM_POSITIONS)
    """Where to begin, in bytes, by `<rank>.stdout` and `<rank>.stderr`; what is not named begins at
    0.
    """
    rank: int | None = Field(default=None, ge=0)
    """This rank alone."""
    stream: LogStream | None = None
    """This stream alone."""
    follow: bool = True
    """Whether to wait for more until the job has ended."""


class Charge(ApiModel):
    """`units` of the product's price unit times `periods` (replicas).

    A `charge_id` counts once per job, ever.
    """

    charge_id: str = Field(min_length=1, max_length=255)
    units: int = Field(ge=0, le=MAXIMUM_UNITS)
    periods: int = Field(ge=1, le=MAXIMUM_UNITS)


class ChargeMessage(ApiModel):
    """The payload of a job's update `charge`."""

    provider: str
    charges: Annotated[list[Charge], FailFast()] = Field(min_length=1, max_length=1000)


class ChargeId(ApiModel):
    """The id of a charge, as UCloud writes ids in answers."""

    id: str


class ChargeAnswer(ApiModel):
    """The answer to `charge`: which charges the wallet could not pay, and which had been counted
    before.
    """

    insufficient_funds: list[ChargeId]
    duplicate_charges: list[ChargeId]


def job_ids(items: Sequence[ApiModel]) -> list[str]:
    """The ids of the jobs that a bulk request is about."""
    jobs = (item if isinstance(item, Job) else getattr(item, "job", None) for item in items)
    return [job.id for job in jobs if isinstance(job, Job)]

"""The provider protocol: bodies of HTTP calls to a provider, and of its messages to a job.

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
"""The largest 32-bit integer: in minutes, four thousand years."""
MAXIMUM_UPDATES = 1000
"""Updates of one message: all are applied in one workflow task, which has two seconds."""
MAXIMUM_POSITIONS = 20_000
"""Two streams for each of 10,000 replicas."""


class LogStream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class BulkRequest(ApiModel, Generic[Item]):
    items: Annotated[list[Item], FailFast()] = Field(min_length=1)
    """Validation stops at the first invalid item, which bounds the size of the error."""


class BulkResponse(ApiModel, Generic[Item]):
    """A response with one entry per item, in the order of the request."""

    responses: list[Item]


class CreateResponse(ApiModel):
    """The response to `create`: the provider's own id for a job.

    `updates` is ours, not UCloud's, and optional: a provider that starts a job at once may report
    it here, which saves a message.
    """

    id: str | None = Field(default=None, max_length=255)
    updates: list[JobUpdate] = Field(default_factory=list)


class JobReference(ApiModel):
    job: Job


class ExtendItem(ApiModel):
    """The item of `extend`. `job` has the old allocation, so that a repeat can be detected."""

    job: Job
    requested_time: SimpleDuration


class ProductsResponse(ApiModel):
    responses: list[ProductSupport]


class CpuAndMemory(ApiModel):
    """Cores, and memory in bytes."""

    cpu: float
    memory: int


class QueueStatus(ApiModel):
    running: int
    pending: int


class Utilization(ApiModel):
    capacity: CpuAndMemory
    used_capacity: CpuAndMemory
    queue_status: QueueStatus


class ProviderError(ApiModel):
    why: str
    error_code: str | None = None


class UpdateMessage(ApiModel):
    provider: str
    updates: Annotated[list[JobUpdate], FailFast()]
    """At most `MAXIMUM_UPDATES`."""


class FollowMessage(ApiModel):
    """A message of the `follow` WebSocket. A negative rank is a control message, not output.

    `position` and `ended` are ours, not UCloud's, for sessions of type `LOGS` only. Such a message
    has either `stdout` or `stderr`.
    """

    stream_id: str
    rank: int
    stdout: str | None = None
    stderr: str | None = None
    position: int | None = None
    """The offset in the stream, in bytes, after this text. A later session can resume there."""
    ended: bool | None = None
    """True in the last message, which has no text."""


class FollowRequest(ApiModel):
    """A request on the `follow` WebSocket: `init` with a job, or `cancel` with a stream's id."""

    type: str
    job: Job | None = None
    stream_id: str | None = None


class LogsRequest(ApiModel):
    """The first message on the WebSocket of a session of type `LOGS`, which is ours."""

    type: Literal["init"] = "init"
    positions: dict[str, NonNegativeInt] = Field(default={}, max_length=MAXIMUM_POSITIONS)
    """Start offsets in bytes, by `<rank>.stdout` and `<rank>.stderr`; the default is 0."""
    rank: int | None = Field(default=None, ge=0)
    stream: LogStream | None = None
    follow: bool = True
    """Wait for more output until the job has ended."""


class Charge(ApiModel):
    """`units` of the product's price unit times `periods` (replicas).

    A `charge_id` counts once per job, ever.
    """

    charge_id: str = Field(min_length=1, max_length=255)
    units: int = Field(ge=0, le=MAXIMUM_UNITS)
    periods: int = Field(ge=1, le=MAXIMUM_UNITS)


class ChargeMessage(ApiModel):
    provider: str
    charges: Annotated[list[Charge], FailFast()] = Field(min_length=1, max_length=1000)


class ChargeId(ApiModel):
    id: str


class ChargeAnswer(ApiModel):
    """The result of `charge`: charges not covered by the wallet, and duplicates."""

    insufficient_funds: list[ChargeId]
    duplicate_charges: list[ChargeId]


def job_ids(items: Sequence[ApiModel]) -> list[str]:
    jobs = (item if isinstance(item, Job) else getattr(item, "job", None) for item in items)
    return [job.id for job in jobs if isinstance(job, Job)]

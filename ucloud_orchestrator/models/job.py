"""The Job and its parts, from UCloud's documentation of the compute orchestrator.

Times are integer milliseconds since the Unix epoch.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, field_validator
from pydantic_core import CoreSchema

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.parameter_values import AppParameterValue
from ucloud_orchestrator.models.product import ProductReference

MILLISECONDS_PER_SECOND = 1000
MAXIMUM_NAME_LENGTH = 200
MAXIMUM_REPLICAS = 10_000
MAXIMUM_HOURS = 876_000
"""A hundred years: every deadline is a valid date, every price fits into a BIGINT."""
MAXIMUM_FOLDER_LENGTH = 4096
_NAME = re.compile(r"^[\w -]+$")


class JobState(StrEnum):
    """The states of a job. The table of transitions is `workflows.lifecycle`."""

    IN_QUEUE = "IN_QUEUE"
    """Submitted; not all replicas run. Set at acceptance, or by the provider (a requeue)."""
    RUNNING = "RUNNING"
    """All replicas run; interactive sessions are available. Set by the provider."""
    SUSPENDED = "SUSPENDED"
    """Stopped by a user, to be resumed. Set by the provider. The time allocation goes on."""
    CANCELING = "CANCELING"
    """Cancellation was requested; the provider is stopping the job. Set by the orchestrator."""
    SUCCESS = "SUCCESS"
    """Ended without a fault of UCloud, provider or scheduler, with any exit code."""
    FAILURE = "FAILURE"
    """The scheduler, the hardware or the provider failed. Set by the provider."""
    EXPIRED = "EXPIRED"
    """Stopped because the time allocation ran out."""

    @property
    def is_terminal(self) -> bool:
        """Check if the job has ended. No transition leaves a terminal state."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({JobState.SUCCESS, JobState.FAILURE, JobState.EXPIRED})


class SimpleDuration(ApiModel):
    hours: int = Field(default=0, ge=0, le=MAXIMUM_HOURS)
    minutes: int = Field(default=0, ge=0, le=59)
    seconds: int = Field(default=0, ge=0, le=59)

    @property
    def milliseconds(self) -> int:
        return ((self.hours * 60 + self.minutes) * 60 + self.seconds) * MILLISECONDS_PER_SECOND

    @classmethod
    def from_milliseconds(cls, milliseconds: int) -> SimpleDuration:
        """Create a duration, rounded down to whole seconds."""
        minutes, seconds = divmod(milliseconds // MILLISECONDS_PER_SECOND, 60)
        hours, minutes = divmod(minutes, 60)
        return cls(hours=hours, minutes=minutes, seconds=seconds)


class NameAndVersion(ApiModel):
    name: str = Field(min_length=1, max_length=255)
    version: str = Field(min_length=1, max_length=255)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def _check_name(name: str) -> str:
    if len(name) > MAXIMUM_NAME_LENGTH:
        raise ValueError(f"must have at most {MAXIMUM_NAME_LENGTH} characters, not {len(name)}")
    if not _NAME.match(name):
        raise ValueError("may only have letters, digits, spaces, '_' and '-'")
    return name


JobName = Annotated[str, AfterValidator(_check_name)]


class JobSpecification(ApiModel):
    application: NameAndVersion
    product: ProductReference
    name: JobName | None = None
    replicas: int = Field(default=1, ge=1, le=MAXIMUM_REPLICAS)
    allow_duplicate_job: bool = False
    parameters: dict[str, AppParameterValue] = Field(default_factory=dict)
    resources: list[AppParameterValue] = Field(default_factory=list)
    time_allocation: SimpleDuration | None = None
    opened_file: str | None = None
    ssh_enabled: bool = False

    @field_validator("parameters", mode="before")
    @classmethod
    def _no_parameters(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("resources", mode="before")
    @classmethod
    def _no_resources(cls, value: Any) -> Any:
        return [] if value is None else value

    @field_validator("time_allocation")
    @classmethod
    def _check_time_allocation(cls, allocation: SimpleDuration | None) -> SimpleDuration | None:
        if allocation is not None and allocation.milliseconds == 0:
            raise ValueError("must be longer than zero")
        return allocation


class JobOwner(ApiModel):
    """The user who started the job, and its project; None is the personal workspace."""

    created_by: str = Field(min_length=1)
    project: str | None = None


class JobUpdate(ApiModel):
    """A change that the provider reports, or its record in the job.

    `expected_state` and `expected_different_state` are guards: an update whose guard does not hold
    is ignored. `new_time_allocation` is the whole allocation in milliseconds.
    """

    timestamp: int = 0
    state: JobState | None = None
    status: str | None = None
    output_folder: str | None = Field(default=None, max_length=MAXIMUM_FOLDER_LENGTH)
    new_time_allocation: int | None = Field(default=None, gt=0, le=MAXIMUM_HOURS * 3_600_000)
    expected_state: JobState | None = None
    expected_different_state: bool | None = None


class JobBilling(ApiModel):
    """The cost of the job so far, in credits, and its price, frozen at admission."""

    credits_charged: int = 0
    price_per_unit: int = 0


class JobStatus(ApiModel):
    """The current state of the job, and the catalog entries that it was admitted with."""

    state: JobState
    started_at: int | None = None
    expires_at: int | None = None
    resolved_application: Any = None
    resolved_product: Any = None
    resolved_support: Any = None
    resolved_licenses: dict[str, str] | None = None
    """For the provider alone: the argument of each license. It may be a secret."""
    resolved_links: dict[str, str] | None = None
    """For the provider alone: the domain of each public link that is bound to the job."""


class JobOutput(ApiModel):
    output_folder: str | None = None


class Permission(StrEnum):
    READ = "READ"
    EDIT = "EDIT"
    ADMIN = "ADMIN"


class AclEntity(ApiModel):
    """The grantee of an access list entry: a user, or a group of a project."""

    model_config = ConfigDict(defer_build=True)

    type: str

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls is AclEntity:
            return handler.generate_schema(_AnyEntity)
        return handler(source)


class UserEntity(AclEntity):
    type: Literal["user"] = "user"
    username: str


class ProjectGroupEntity(AclEntity):
    type: Literal["project_group"] = "project_group"
    project_id: str
    group: str


_AnyEntity = Annotated[Union[UserEntity, ProjectGroupEntity], Field(discriminator="type")]  # noqa: UP007
AclEntity.model_rebuild(force=True)


class ResourceAclEntry(ApiModel):
    entity: AclEntity
    permissions: list[Permission]


class ResourcePermissions(ApiModel):
    """The reader's permissions; `others` is the access list, for admins only."""

    myself: list[Permission] = Field(default_factory=list)
    others: list[ResourceAclEntry] = Field(default_factory=list)


class Job(ApiModel):
    """A unit of computation.

    `updates` is ordered, oldest first. `omitted_updates` is the number of older updates that were
    offloaded to the store; `JobClient.retrieve` adds them. `withheld_updates` is the number of
    newer updates that are on the next pages (`models.update_paging`).
    """

    id: str
    owner: JobOwner
    updates: list[JobUpdate] = Field(default_factory=list)
    billing: JobBilling = Field(default_factory=JobBilling)
    specification: JobSpecification
    status: JobStatus
    created_at: int
    output: JobOutput | None = None
    acl: list[ResourceAclEntry] | None = None
    permissions: ResourcePermissions | None = None
    omitted_updates: int = Field(default=0, exclude_if=lambda count: count == 0)
    withheld_updates: int = Field(default=0, exclude_if=lambda count: count == 0)

"""The Job and its parts, as in the seed of UCloud's compute orchestrator ("Job",
"JobSpecification", ...).

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
"""A hundred years: any deadline has a date, and any price fits into a database."""
MAXIMUM_FOLDER_LENGTH = 4096
_NAME = re.compile(r"^[\w -]+$")


class JobState(StrEnum):
    """Where a job is in its life.

    The moves between the states are the table of `workflows.lifecycle`.
    """

    IN_QUEUE = "IN_QUEUE"
    """The provider has it; not all replicas run. Set at acceptance, or by the provider (a requeue).
    """
    RUNNING = "RUNNING"
    """All replicas run. Set by the provider; logs and interactive sessions are available."""
    SUSPENDED = "SUSPENDED"
    """The provider holds it without running it. The time allocation goes on."""
    CANCELING = "CANCELING"
    """A cancel was asked for; the provider is stopping it. Set by the orchestrator."""
    SUCCESS = "SUCCESS"
    """It ended without a fault of UCloud, the provider or the scheduler, whatever the program's
    exit code was.
    """
    FAILURE = "FAILURE"
    """The scheduler, the hardware or the provider failed."""
    EXPIRED = "EXPIRED"
    """It was stopped because its time allocation ran out."""

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended; nothing leaves such a state."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({JobState.SUCCESS, JobState.FAILURE, JobState.EXPIRED})


class SimpleDuration(ApiModel):
    """A length of time as UCloud writes it."""

    hours: int = Field(default=0, ge=0, le=MAXIMUM_HOURS)
    minutes: int = Field(default=0, ge=0, le=59)
    seconds: int = Field(default=0, ge=0, le=59)

    @property
    def milliseconds(self) -> int:
        """The whole length in milliseconds."""
        return ((self.hours * 60 + self.minutes) * 60 + self.seconds) * MILLISECONDS_PER_SECOND

    @classmethod
    def from_milliseconds(cls, milliseconds: int) -> SimpleDuration:
        """The length, rounded down to whole seconds."""
        minutes, seconds = divmod(milliseconds // MILLISECONDS_PER_SECOND, 60)
        hours, minutes = divmod(minutes, 60)
        return cls(hours=hours, minutes=minutes, seconds=seconds)


class NameAndVersion(ApiModel):
    """What identifies an application or a tool."""

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
    """What a user asks for."""

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
    """Who started the job, and for which project.

    Without a project it belongs to the personal workspace.
    """

    created_by: str = Field(min_length=1)
    project: str | None = None


class JobUpdate(ApiModel):
    """A change that the provider reports, and what is kept of it in the job.

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
    """What the job has cost, in credits, and the price that was frozen when it was created."""

    credits_charged: int = 0
    price_per_unit: int = 0


class JobStatus(ApiModel):
    """A summary of where the job is now."""

    state: JobState
    started_at: int | None = None
    expires_at: int | None = None
    resolved_application: Any = None
    resolved_product: Any = None
    resolved_support: Any = None
    resolved_licenses: dict[str, str] | None = None
    """For the provider alone: what each license is in the command line. It may be a secret."""
    resolved_links: dict[str, str] | None = None
    """For the provider alone: the domain of each public link that is bound to the job."""


class JobOutput(ApiModel):
    """Where the job's results are."""

    output_folder: str | None = None


class Permission(StrEnum):
    """What somebody may do with a job."""

    READ = "READ"
    EDIT = "EDIT"
    ADMIN = "ADMIN"


class AclEntity(ApiModel):
    """Whom an entry of the access list is for: a user, or a group of a project."""

    model_config = ConfigDict(defer_build=True)

    type: str

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls is AclEntity:
            return handler.generate_schema(_AnyEntity)
        return handler(source)


class UserEntity(AclEntity):
    """One user."""

    type: Literal["user"] = "user"
    username: str


class ProjectGroupEntity(AclEntity):
    """All members of a project's group."""

    type: Literal["project_group"] = "project_group"
    project_id: str
    group: str


_AnyEntity = Annotated[Union[UserEntity, ProjectGroupEntity], Field(discriminator="type")]  # noqa: UP007
AclEntity.model_rebuild(force=True)


class ResourceAclEntry(ApiModel):
    """One line of a job's access list."""

    entity: AclEntity
    permissions: list[Permission]


class ResourcePermissions(ApiModel):
    """What the reader himself may do, and, if he may know it, what others may."""

    myself: list[Permission] = Field(default_factory=list)
    others: list[ResourceAclEntry] = Field(default_factory=list)


class Job(ApiModel):
    """A unit of computation, from the request to its end.

    `updates` is ordered, oldest first. A very chatty job keeps its oldest updates in the store:
    `omitted_updates` says how many are not in `updates`. `JobClient.retrieve` puts them back.
    `withheld_updates` says for how many of the newest an answer of the workflow had no room; they
    are asked for with their position (`models.answers`).
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

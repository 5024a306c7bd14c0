"""Workspaces and what belongs to them: projects with their members, drives, licenses, public links
and IP addresses.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import JobOwner, Permission, ResourceAclEntry


class Workspace(ApiModel):
    """A user's personal workspace, or a project: what owns jobs, wallets and everything else."""

    user: str | None = Field(default=None, min_length=1, max_length=255)
    project: str | None = Field(default=None, min_length=1, max_length=255)

    @model_validator(mode="after")
    def _is_one(self) -> Workspace:
        if (self.user is None) == (self.project is None):
            raise ValueError("needs either a user or a project")
        return self

    @classmethod
    def of(cls, owner: JobOwner) -> Workspace:
        """The workspace of a job: its project, or else that of the user who started it."""
        return cls(project=owner.project) if owner.project else cls(user=owner.created_by)

    def __str__(self) -> str:
        return f"project {self.project}" if self.project else f"user {self.user}"


class ProjectRole(StrEnum):
    """What a member is in a project.

    The PI and the administrators may do everything with what the project has.
    """

    PI = "PI"
    ADMIN = "ADMIN"
    USER = "USER"


class ProjectMember(ApiModel):
    """One member of a project."""

    username: str = Field(min_length=1)
    role: ProjectRole = ProjectRole.USER


class Project(ApiModel):
    """A project; `groups` are the usernames of each group."""

    id: str = Field(min_length=1, max_length=255)
    title: str = ""
    members: list[ProjectMember]
    groups: dict[str, list[str]] = Field(default_factory=dict)

    def role_of(self, username: str) -> ProjectRole | None:
        """The user's role; None if he is no member."""
        return next((member.role for member in self.members if member.username == username), None)

    @model_validator(mode="after")
    def _has_one_pi(self) -> Project:
        names = [member.username for member in self.members]
        if len(set(names)) < len(names):
            raise ValueError("has a member twice")
        if sum(member.role is ProjectRole.PI for member in self.members) != 1:
            raise ValueError("needs exactly one member with the role PI")
        strangers = sorted({name for group in self.groups.values() for name in group} - set(names))
        if strangers:
            raise ValueError(
                f"has groups with users who are not its members: {', '.join(strangers)}"
            )
        return self


class Membership(ApiModel):
    """What a user is in one project: his role, and the groups that he is in."""

    project: str
    role: ProjectRole
    groups: list[str] = Field(default_factory=list)


class Resource(ApiModel):
    """Something at a provider that belongs to a workspace.

    `public` is what everybody may do with it.
    """

    id: str = Field(min_length=1, max_length=255)
    title: str = ""
    provider: str = Field(min_length=1)
    owner: Workspace | None = None
    acl: list[ResourceAclEntry] = Field(default_factory=list)
    public: list[Permission] = Field(default_factory=list)


class Drive(Resource):
    """Files.

    `folder` is where a worker on the same machine finds them; without it only the provider looks.
    """

    id: str = Field(min_length=1, max_length=255, pattern=r"^[^/]+$")
    folder: Path | None = None

    @field_validator("id")
    @classmethod
    def _is_a_name(cls, drive_id: str) -> str:
        if drive_id in {".", ".."} or not drive_id.isprintable():
            raise ValueError("must be the name of a folder")
        return drive_id


class License(Resource):
    """A license server.

    In a command line it is `address:port/key`, or `address:port` without a key.
    """

    address: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    key: SecretStr | None = None

    @property
    def text(self) -> str:
        """What stands in the command line of a job."""
        key = f"/{self.key.get_secret_value()}" if self.key else ""
        return f"{self.address}:{self.port}{key}"


class PublicLink(Resource):
    """A domain name that leads to one job's web application."""

    domain: str = Field(min_length=1)


class PublicIp(Resource):
    """An IP address that is one job's own."""

    address: str = Field(min_length=1)

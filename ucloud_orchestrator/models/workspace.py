"""Workspaces, projects and their members, and the resources of workspaces."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import JobOwner, Permission, ResourceAclEntry


class Workspace(ApiModel):
    """A project, or the personal workspace of a user. It owns jobs, wallets and resources."""

    user: str | None = Field(default=None, min_length=1, max_length=255)
    project: str | None = Field(default=None, min_length=1, max_length=255)

    @model_validator(mode="after")
    def _check_one_owner(self) -> Workspace:
        if (self.user is None) == (self.project is None):
            raise ValueError("needs either a user or a project")
        return self

    @classmethod
    def of(cls, owner: JobOwner) -> Workspace:
        """Return the workspace of a job: its project, or its user's personal workspace."""
        return cls(project=owner.project) if owner.project else cls(user=owner.created_by)

    def __str__(self) -> str:
        return f"project {self.project}" if self.project else f"user {self.user}"


class ProjectRole(StrEnum):
    """The role of a project's member. PI and ADMIN have all permissions on its resources."""

    PI = "PI"
    ADMIN = "ADMIN"
    USER = "USER"


class ProjectMember(ApiModel):
    username: str = Field(min_length=1)
    role: ProjectRole = ProjectRole.USER


class Project(ApiModel):
    """A project; `groups` maps a group to its usernames."""

    id: str = Field(min_length=1, max_length=255)
    title: str = ""
    members: list[ProjectMember]
    groups: dict[str, list[str]] = Field(default_factory=dict)

    def role_of(self, username: str) -> ProjectRole | None:
        """Return the user's role; None if they are not a member."""
        return next((member.role for member in self.members if member.username == username), None)

    @model_validator(mode="after")
    def _check_members(self) -> Project:
        names = [member.username for member in self.members]
        if len(set(names)) < len(names):
            raise ValueError("has a member twice")
        if sum(member.role is ProjectRole.PI for member in self.members) != 1:
            raise ValueError("needs exactly one member with the role PI")
        non_members = sorted(
            {name for group in self.groups.values() for name in group} - set(names)
        )
        if non_members:
            raise ValueError(
                f"has groups with users who are not its members: {', '.join(non_members)}"
            )
        return self


class Membership(ApiModel):
    project: str
    role: ProjectRole
    groups: list[str] = Field(default_factory=list)


class Resource(ApiModel):
    """A resource of a workspace at a provider; `public` are the permissions of all users."""

    id: str = Field(min_length=1, max_length=255)
    title: str = ""
    provider: str = Field(min_length=1)
    owner: Workspace | None = None
    acl: list[ResourceAclEntry] = Field(default_factory=list)
    public: list[Permission] = Field(default_factory=list)


class Drive(Resource):
    """A drive with files; `folder` is its path on the worker's machine, if it is there."""

    id: str = Field(min_length=1, max_length=255, pattern=r"^[^/]+$")
    folder: Path | None = None

    @field_validator("id")
    @classmethod
    def _check_id(cls, drive_id: str) -> str:
        if drive_id in {".", ".."} or not drive_id.isprintable():
            raise ValueError("must be the name of a folder")
        return drive_id


class License(Resource):
    address: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    key: SecretStr | None = None

    @property
    def text(self) -> str:
        """Format the argument of a job: `address:port/key`, or `address:port` without a key."""
        key = f"/{self.key.get_secret_value()}" if self.key else ""
        return f"{self.address}:{self.port}{key}"


class PublicLink(Resource):
    domain: str = Field(min_length=1)


class PublicIp(Resource):
    address: str = Field(min_length=1)

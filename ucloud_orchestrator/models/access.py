"""Permissions on jobs and resources, from UCloud's documentation of resources and projects.

The owner of a personal workspace, and the PI and the administrators of a project, have all
permissions. Other users have those of the access list: of their own entries, and of the entries
for their groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ucloud_orchestrator.models.job import (
    Job,
    Permission,
    ProjectGroupEntity,
    ResourceAclEntry,
    ResourcePermissions,
    UserEntity,
)
from ucloud_orchestrator.models.workspace import Membership, ProjectRole, Resource, Workspace

ALL_PERMISSIONS = frozenset(Permission)
_IMPLIED = {
    Permission.READ: frozenset({Permission.READ}),
    Permission.EDIT: frozenset({Permission.READ, Permission.EDIT}),
    Permission.ADMIN: ALL_PERMISSIONS,
}


def job_permissions(
    username: str, memberships: Sequence[Membership], job: Job
) -> frozenset[Permission]:
    """Return the user's permissions on a job.

    The user who started it has all of them while they are a member of its project.
    """
    workspace = Workspace.of(job.owner)
    is_member = workspace.project is None or any(
        membership.project == workspace.project for membership in memberships
    )
    if job.owner.created_by == username and is_member:
        return ALL_PERMISSIONS
    return _permissions(username, memberships, workspace, job.acl or [])


def resource_permissions(
    username: str, memberships: Sequence[Membership], resource: Resource
) -> frozenset[Permission]:
    """Return the user's permissions on a drive, a license, a public link or an IP address."""
    return _permissions(username, memberships, resource.owner, resource.acl) | _expand(
        resource.public
    )


def restrict_to_reader(job: Job, username: str, memberships: Sequence[Membership]) -> Job:
    """Set the reader's permissions in the job; only an admin keeps the access list."""
    mine = job_permissions(username, memberships, job)
    others = (job.acl or []) if Permission.ADMIN in mine else []
    return job.model_copy(
        update={
            "permissions": ResourcePermissions(
                myself=sorted(mine, key=list(Permission).index), others=others
            ),
            "acl": job.acl if Permission.ADMIN in mine else None,
        }
    )


def _permissions(
    username: str,
    memberships: Sequence[Membership],
    owner: Workspace | None,
    acl: Iterable[ResourceAclEntry],
) -> frozenset[Permission]:
    if owner is not None:
        if owner.user == username:
            return ALL_PERMISSIONS
        roles = {
            membership.role
            for membership in memberships
            if owner.project and membership.project == owner.project
        }
        if roles & {ProjectRole.PI, ProjectRole.ADMIN}:
            return ALL_PERMISSIONS
    groups = {
        (membership.project, group) for membership in memberships for group in membership.groups
    }
    granted: frozenset[Permission] = frozenset()
    for entry in acl:
        match entry.entity:
            case UserEntity(username=name) if name == username:
                granted |= _expand(entry.permissions)
            case ProjectGroupEntity(project_id=project, group=group) if (project, group) in groups:
                granted |= _expand(entry.permissions)
    return granted


def _expand(permissions: Iterable[Permission]) -> frozenset[Permission]:
    return frozenset().union(*(_IMPLIED[permission] for permission in permissions))

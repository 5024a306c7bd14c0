"""Who may do what with what belongs to a workspace; from UCloud's documentation of resources and
projects.

The owner of a personal workspace, and the PI and the administrators of a project, may do
everything. Everybody else may do what the access list says: entries for himself, and for the groups
of projects that he is in.
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

ALL = frozenset(Permission)
_IMPLIED = {
    Permission.READ: frozenset({Permission.READ}),
    Permission.EDIT: frozenset({Permission.READ, Permission.EDIT}),
    Permission.ADMIN: ALL,
}


def job_permissions(
    username: str, memberships: Sequence[Membership], job: Job
) -> frozenset[Permission]:
    """What a user may do with a job.

    Who started it may do everything, as long as he is in its project.
    """
    workspace = Workspace.of(job.owner)
    is_inside = workspace.project is None or any(
        one.project == workspace.project for one in memberships
    )
    if job.owner.created_by == username and is_inside:
        return ALL
    return _permissions(username, memberships, workspace, job.acl or [])


def resource_permissions(
    username: str, memberships: Sequence[Membership], resource: Resource
) -> frozenset[Permission]:
    """What a user may do with a drive, a license, a public link or an IP address."""
    return _permissions(username, memberships, resource.owner, resource.acl) | _all_of(
        resource.public
    )


def for_reader(job: Job, username: str, memberships: Sequence[Membership]) -> Job:
    """The job with what its reader may do with it, and what others may if he may know that."""
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
            return ALL
        role = next(
            (one.role for one in memberships if owner.project and one.project == owner.project),
            None,
        )
        if role in {ProjectRole.PI, ProjectRole.ADMIN}:
            return ALL
    groups = {(one.project, group) for one in memberships for group in one.groups}
    granted: frozenset[Permission] = frozenset()
    for entry in acl:
        match entry.entity:
            case UserEntity(username=name) if name == username:
                granted |= _all_of(entry.permissions)
            case ProjectGroupEntity(project_id=project, group=group) if (project, group) in groups:
                granted |= _all_of(entry.permissions)
    return granted


def _all_of(permissions: Iterable[Permission]) -> frozenset[Permission]:
    return frozenset().union(*(_IMPLIED[permission] for permission in permissions))

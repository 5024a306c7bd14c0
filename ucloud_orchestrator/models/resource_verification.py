"""Verify a job's access to its files, peers, public links, addresses, licenses and project.

A message does not distinguish between a resource without permission and a missing one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ucloud_orchestrator.models.access import job_permissions, resource_permissions
from ucloud_orchestrator.models.application import Application, ApplicationParameter
from ucloud_orchestrator.models.claims import fields_and_values
from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.models.job import Job, JobOwner, JobSpecification, JobState, Permission
from ucloud_orchestrator.models.parameter_values import (
    AppParameterValue,
    FileValue,
    IngressValue,
    LicenseServerValue,
    NetworkValue,
    PeerValue,
    split_path,
)
from ucloud_orchestrator.models.workspace import (
    Drive,
    License,
    Membership,
    PublicIp,
    PublicLink,
    Resource,
    Workspace,
)


class FileKind(StrEnum):
    """The kind of file at a path. UNKNOWN: only the provider can access the drive."""

    FILE = "file"
    DIRECTORY = "folder"
    MISSING = "nothing"
    UNKNOWN = "unknown"


_EXPECTED_KINDS = {"input_file": FileKind.FILE, "input_directory": FileKind.DIRECTORY}


@dataclass(frozen=True)
class JobReferences:
    """Everything that the values of a job may refer to, by id."""

    memberships: Sequence[Membership] = ()
    drives: Mapping[str, Drive] = field(default_factory=dict)
    licenses: Mapping[str, License] = field(default_factory=dict)
    links: Mapping[str, PublicLink] = field(default_factory=dict)
    addresses: Mapping[str, PublicIp] = field(default_factory=dict)
    peers: Mapping[str, Job] = field(default_factory=dict)
    file_kind: Callable[[Drive, str], FileKind] = lambda _drive, _path: FileKind.UNKNOWN


def verify_resources(
    owner: JobOwner,
    specification: JobSpecification,
    application: Application | None,
    references: JobReferences,
) -> list[Finding]:
    """Find references of the job without permission, or of the wrong kind."""
    findings = access_findings(owner, specification, references)
    parameters = application.parameters if application else {}
    for path, value in fields_and_values(specification):
        parameter = parameters.get(path.removeprefix("parameters."))
        if isinstance(value, FileValue) and not any(finding.field == path for finding in findings):
            findings += _file_findings(path, value, parameter, references)
        if isinstance(value, PeerValue):
            findings += _peer_findings(path, value, owner, references)
        if application is not None and path.startswith("resources"):
            findings += _kind_findings(path, value, application)
    return findings


def lost_access_findings(
    owner: JobOwner, specification: JobSpecification, references: JobReferences
) -> list[Finding]:
    """Find references of a live job for which its owner has lost permission."""
    return access_findings(owner, specification, references, Permission.EDIT)


def access_findings(
    owner: JobOwner,
    specification: JobSpecification,
    references: JobReferences,
    write_permission: Permission = Permission.READ,
) -> list[Finding]:
    """Find references for which the owner lacks permission.

    `write_permission` is needed for a file that is not read-only. For a new job READ suffices: it
    has the file read-only then (`with_forced_read_only`). A running job may be writing to it.
    """
    if owner.project is not None and all(
        membership.project != owner.project for membership in references.memberships
    ):
        message = f"{owner.created_by} is not a member of a project {owner.project}."
        return [Finding(field="project", message=message, code=ErrorCode.FORBIDDEN)]
    findings: list[Finding] = []
    for path, value in fields_and_values(specification):
        needed = (
            write_permission
            if isinstance(value, FileValue) and not value.read_only
            else Permission.READ
        )
        findings += _value_findings(
            path, value, needed, owner, specification.product.provider, references
        )
    return findings


def with_forced_read_only(
    owner: JobOwner, specification: JobSpecification, references: JobReferences
) -> JobSpecification:
    """Make every file read-only for which the owner lacks the permission to write."""

    def force(value: AppParameterValue) -> AppParameterValue:
        if not isinstance(value, FileValue) or value.read_only:
            return value
        drive = references.drives.get(split_path(value.path)[0])
        if drive is None or Permission.EDIT in _permissions(owner, drive, references):
            return value
        return value.model_copy(update={"read_only": True})

    return specification.model_copy(
        update={
            "parameters": {name: force(value) for name, value in specification.parameters.items()},
            "resources": [force(value) for value in specification.resources],
        }
    )


def _value_findings(
    path: str,
    value: AppParameterValue,
    needed: Permission,
    owner: JobOwner,
    provider: str,
    references: JobReferences,
) -> Iterator[Finding]:
    resource: Resource | None
    match value:
        case FileValue(path=file):
            resource, name = references.drives.get(split_path(file)[0]), f"file {file}"
        case IngressValue(id=id_):
            resource, name, needed = (
                references.links.get(id_),
                f"public link {id_}",
                Permission.EDIT,
            )
        case NetworkValue(id=id_):
            resource, name, needed = (
                references.addresses.get(id_),
                f"public IP address {id_}",
                Permission.EDIT,
            )
        case LicenseServerValue(id=id_):
            resource, name = references.licenses.get(id_), f"license {id_}"
        case _:
            return
    if resource is None or needed not in _permissions(owner, resource, references):
        yield Finding(
            field=path,
            message=f"You cannot use the {name}: it does not exist, or not for "
            f"{Workspace.of(owner)}.",
            code=ErrorCode.NOT_FOUND,
        )
    elif resource.provider != provider:
        yield Finding(
            field=path,
            message=f"The {name} is provided by {resource.provider}, and the job by {provider}.",
        )


def _permissions(
    owner: JobOwner, resource: Resource, references: JobReferences
) -> frozenset[Permission]:
    workspace = Workspace.of(owner)
    is_foreign = resource.owner is not None and resource.owner != workspace
    if is_foreign and not isinstance(resource, Drive):
        return resource_permissions(
            owner.created_by, [], resource.model_copy(update={"owner": None, "acl": []})
        )
    return resource_permissions(owner.created_by, references.memberships, resource)


def _file_findings(
    path: str,
    value: FileValue,
    parameter: ApplicationParameter | None,
    references: JobReferences,
) -> Iterator[Finding]:
    drive = references.drives[split_path(value.path)[0]]
    kind = references.file_kind(drive, value.path)
    if kind is FileKind.MISSING:
        yield Finding(
            field=path, message=f"There is no file {value.path}.", code=ErrorCode.NOT_FOUND
        )
    expected = _EXPECTED_KINDS.get(parameter.type if parameter else "")
    if (
        expected is not None
        and kind in {FileKind.FILE, FileKind.DIRECTORY}
        and kind is not expected
    ):
        yield Finding(
            field=path, message=f"{value.path} is a {kind}, and {path} takes a {expected}."
        )


def _peer_findings(
    path: str, value: PeerValue, owner: JobOwner, references: JobReferences
) -> Iterator[Finding]:
    peer = references.peers.get(value.job_id)
    if (
        peer is None
        or Workspace.of(peer.owner) != Workspace.of(owner)
        or Permission.EDIT not in job_permissions(owner.created_by, references.memberships, peer)
    ):
        message = f"There is no job {value.job_id} for the peer {value.hostname}."
        yield Finding(field=path, message=message, code=ErrorCode.NOT_FOUND)
    elif peer.status.state is not JobState.RUNNING:
        message = (
            f"The peer {value.hostname} (job {value.job_id}) is in state "
            f"{peer.status.state}; it must be RUNNING."
        )
        yield Finding(field=path, message=message)


def _kind_findings(
    path: str, value: AppParameterValue, application: Application
) -> Iterator[Finding]:
    if isinstance(value, IngressValue) and not application.allow_public_link:
        yield Finding(field=path, message=f"{application.reference} takes no public links.")
    if isinstance(value, NetworkValue) and not application.allow_public_ip:
        yield Finding(field=path, message=f"{application.reference} takes no public IP addresses.")

"""Whether a job may use what it names: files, other jobs, links, addresses, licenses, and its
project.

What one may not see does not exist, so the sentences do not tell the two apart.
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
)
from ucloud_orchestrator.models.paths import split
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
    """What a path leads to.

    UNKNOWN: only the provider can see the drive, and decides when it gets the job.
    """

    FILE = "file"
    DIRECTORY = "folder"
    MISSING = "nothing"
    UNKNOWN = "unknown"


_WANTED = {"input_file": FileKind.FILE, "input_directory": FileKind.DIRECTORY}


@dataclass(frozen=True)
class JobReferences:
    """Everything around a job that its values may name, by their ids."""

    memberships: Sequence[Membership] = ()
    drives: Mapping[str, Drive] = field(default_factory=dict)
    licenses: Mapping[str, License] = field(default_factory=dict)
    links: Mapping[str, PublicLink] = field(default_factory=dict)
    addresses: Mapping[str, PublicIp] = field(default_factory=dict)
    peers: Mapping[str, Job] = field(default_factory=dict)
    kind_of: Callable[[Drive, str], FileKind] = lambda _drive, _path: FileKind.UNKNOWN


def verify_resources(
    owner: JobOwner,
    specification: JobSpecification,
    application: Application | None,
    surroundings: JobReferences,
) -> list[Finding]:
    """Everything that the job names and may not use, or not in that way."""
    findings = access_findings(owner, specification, surroundings)
    parameters = application.parameters if application else {}
    for where, value in fields_and_values(specification):
        parameter = parameters.get(where.removeprefix("parameters."))
        if isinstance(value, FileValue) and not any(finding.field == where for finding in findings):
            findings += _file_findings(where, value, parameter, surroundings)
        if isinstance(value, PeerValue):
            findings += _peer_findings(where, value, owner, surroundings)
        if application is not None and where.startswith("resources"):
            findings += _kind_findings(where, value, application)
    return findings


def lost_access_findings(
    owner: JobOwner, specification: JobSpecification, surroundings: JobReferences
) -> list[Finding]:
    """What the owner of a live job may not use any more, or not in the way in which the job got
    it.
    """
    return access_findings(owner, specification, surroundings, Permission.EDIT)


def access_findings(
    owner: JobOwner,
    specification: JobSpecification,
    surroundings: JobReferences,
    for_writing: Permission = Permission.READ,
) -> list[Finding]:
    """What the owner may not use. `for_writing` is what he needs for a file that is not marked as
    read-only.

    A new job gets such a file read-only (`with_forced_read_only`); one that runs has it for
    writing.
    """
    if owner.project is not None and all(
        one.project != owner.project for one in surroundings.memberships
    ):
        message = f"{owner.created_by} is not a member of a project {owner.project}."
        return [Finding(field="project", message=message, code=ErrorCode.FORBIDDEN)]
    findings: list[Finding] = []
    for where, value in fields_and_values(specification):
        needed = (
            for_writing if isinstance(value, FileValue) and not value.read_only else Permission.READ
        )
        findings += _access_findings(
            where, value, needed, owner, specification.product.provider, surroundings
        )
    return findings


def with_forced_read_only(
    owner: JobOwner, specification: JobSpecification, surroundings: JobReferences
) -> JobSpecification:
    """The specification with every file read-only that its owner may not write."""

    def forced(value: AppParameterValue) -> AppParameterValue:
        if not isinstance(value, FileValue) or value.read_only:
            return value
        drive = surroundings.drives.get(split(value.path)[0])
        if drive is None or Permission.EDIT in _permissions(owner, drive, surroundings):
            return value
        return value.model_copy(update={"read_only": True})

    return specification.model_copy(
        update={
            "parameters": {name: forced(value) for name, value in specification.parameters.items()},
            "resources": [forced(value) for value in specification.resources],
        }
    )


def _access_findings(
    where: str,
    value: AppParameterValue,
    needed: Permission,
    owner: JobOwner,
    provider: str,
    surroundings: JobReferences,
) -> Iterator[Finding]:
    found: Resource | None
    match value:
        case FileValue(path=path):
            found, name = surroundings.drives.get(split(path)[0]), f"file {path}"
        case IngressValue(id=id_):
            found, name, needed = surroundings.links.get(id_), f"public link {id_}", Permission.EDIT
        case NetworkValue(id=id_):
            found, name, needed = (
                surroundings.addresses.get(id_),
                f"public IP address {id_}",
                Permission.EDIT,
            )
        case LicenseServerValue(id=id_):
            found, name = surroundings.licenses.get(id_), f"license {id_}"
        case _:
            return
    if found is None or needed not in _permissions(owner, found, surroundings):
        yield Finding(
            field=where,
            message=f"You cannot use the {name}: it does not exist, or not for "
            f"{Workspace.of(owner)}.",
            code=ErrorCode.NOT_FOUND,
        )
    elif found.provider != provider:
        yield Finding(
            field=where,
            message=f"The {name} is provided by {found.provider}, and the job by {provider}.",
        )


def _permissions(
    owner: JobOwner, resource: Resource, surroundings: JobReferences
) -> frozenset[Permission]:
    """What the job's owner may do with a resource in the workspace that he acts for."""
    workspace = Workspace.of(owner)
    belongs_elsewhere = resource.owner is not None and resource.owner != workspace
    if belongs_elsewhere and not isinstance(resource, Drive):
        return resource_permissions(
            owner.created_by, [], resource.model_copy(update={"owner": None, "acl": []})
        )
    return resource_permissions(owner.created_by, surroundings.memberships, resource)


def _file_findings(
    where: str,
    value: FileValue,
    parameter: ApplicationParameter | None,
    surroundings: JobReferences,
) -> Iterator[Finding]:
    drive = surroundings.drives[split(value.path)[0]]
    kind = surroundings.kind_of(drive, value.path)
    if kind is FileKind.MISSING:
        yield Finding(
            field=where, message=f"There is no file {value.path}.", code=ErrorCode.NOT_FOUND
        )
    wanted = _WANTED.get(parameter.type if parameter else "")
    if wanted is not None and kind in {FileKind.FILE, FileKind.DIRECTORY} and kind is not wanted:
        yield Finding(
            field=where, message=f"{value.path} is a {kind}, and {where} takes a {wanted}."
        )


def _peer_findings(
    where: str, value: PeerValue, owner: JobOwner, surroundings: JobReferences
) -> Iterator[Finding]:
    peer = surroundings.peers.get(value.job_id)
    if (
        peer is None
        or Workspace.of(peer.owner) != Workspace.of(owner)
        or Permission.EDIT not in job_permissions(owner.created_by, surroundings.memberships, peer)
    ):
        message = f"There is no job {value.job_id} for the peer {value.hostname}."
        yield Finding(field=where, message=message, code=ErrorCode.NOT_FOUND)
    elif peer.status.state is not JobState.RUNNING:
        message = (
            f"The peer {value.hostname} (job {value.job_id}) is in state "
            f"{peer.status.state}; it must be RUNNING."
        )
        yield Finding(field=where, message=message)


def _kind_findings(
    where: str, value: AppParameterValue, application: Application
) -> Iterator[Finding]:
    if isinstance(value, IngressValue) and not application.allow_public_link:
        yield Finding(field=where, message=f"{application.reference} takes no public links.")
    if isinstance(value, NetworkValue) and not application.allow_public_ip:
        yield Finding(field=where, message=f"{application.reference} takes no public IP addresses.")

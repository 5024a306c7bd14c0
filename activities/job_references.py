"""Gathers what a job names from the catalog, the drives of this machine and the live jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.claims import fields_and_values
from ucloud_orchestrator.models.job import Job, JobOwner, JobSpecification
from ucloud_orchestrator.models.parameter_values import PeerValue
from ucloud_orchestrator.models.paths import OutsideDrive, resolve_inside, split
from ucloud_orchestrator.models.resource_verification import FileKind, JobReferences
from ucloud_orchestrator.models.workspace import Drive

FindPeer = Callable[[str], Awaitable[Job | None]]
"""Finds a live job by its id."""


async def load_references(
    catalog: Catalog, find_peer: FindPeer, owner: JobOwner, specification: JobSpecification
) -> JobReferences:
    """Everything that the verification of a job needs to see."""
    wanted = {
        value.job_id
        for _, value in fields_and_values(specification)
        if isinstance(value, PeerValue)
    }
    peers = {
        job_id: peer for job_id in sorted(wanted) if (peer := await find_peer(job_id)) is not None
    }
    return catalog_surroundings(catalog, owner, peers)


def catalog_surroundings(
    catalog: Catalog, owner: JobOwner, peers: dict[str, Job] | None = None
) -> JobReferences:
    """What the catalog alone says; enough to see whether access was lost."""
    return JobReferences(
        memberships=catalog.memberships(owner.created_by),
        drives=catalog.drives,
        licenses=catalog.licenses,
        links=catalog.links,
        addresses=catalog.addresses,
        peers=peers or {},
        kind_of=_kind_of,
    )


def _kind_of(drive: Drive, path: str) -> FileKind:
    if drive.folder is None or not drive.folder.is_dir():
        return FileKind.UNKNOWN
    try:
        found = resolve_inside(drive.folder, split(path)[1])
    except (FileNotFoundError, OutsideDrive):
        return FileKind.MISSING
    return FileKind.DIRECTORY if found.is_dir() else FileKind.FILE

"""Load what a job refers to: from the catalog, the drives of this machine, and live jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.claims import fields_and_values
from ucloud_orchestrator.models.job import Job, JobOwner, JobSpecification
from ucloud_orchestrator.models.parameter_values import PeerValue, split_path
from ucloud_orchestrator.models.resource_verification import FileKind, JobReferences
from ucloud_orchestrator.models.workspace import Drive
from ucloud_orchestrator.process.paths import OutsideDrive, resolve_inside
from ucloud_orchestrator.temporal.names import QUERY_JOB

FindPeer = Callable[[str], Awaitable[Job | None]]
"""Finds a live job by its id."""
PEER_TIMEOUT = timedelta(seconds=5)
"""For the query of a job that another job connects to."""


async def load_references(
    catalog: Catalog, find_peer: FindPeer, owner: JobOwner, specification: JobSpecification
) -> JobReferences:
    peer_ids = {
        value.job_id
        for _, value in fields_and_values(specification)
        if isinstance(value, PeerValue)
    }
    peers = {
        job_id: peer for job_id in sorted(peer_ids) if (peer := await find_peer(job_id)) is not None
    }
    return catalog_references(catalog, owner, peers)


def catalog_references(
    catalog: Catalog, owner: JobOwner, peers: dict[str, Job] | None = None
) -> JobReferences:
    """Return the references that are in the catalog; enough to detect lost access."""
    return JobReferences(
        memberships=catalog.memberships(owner.created_by),
        drives=catalog.drives,
        licenses=catalog.licenses,
        links=catalog.links,
        addresses=catalog.addresses,
        peers=peers or {},
        file_kind=_file_kind,
    )


async def find_live_job(client: Client, job_id: str) -> Job | None:
    """Query the workflow of a job. Return None for an unknown id."""
    try:
        handle = client.get_workflow_handle(job_id)
        return Job.model_validate(
            await handle.query(QUERY_JOB, result_type=dict, rpc_timeout=PEER_TIMEOUT)
        )
    except WorkflowQueryFailedError:  # not the workflow of a job
        return None
    except RPCError as error:
        if error.status in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
            return None
        raise


def _file_kind(drive: Drive, path: str) -> FileKind:
    if drive.folder is None or not drive.folder.is_dir():
        return FileKind.UNKNOWN
    try:
        found = resolve_inside(drive.folder, split_path(path)[1])
    except (FileNotFoundError, OutsideDrive):
        return FileKind.MISSING
    return FileKind.DIRECTORY if found.is_dir() else FileKind.FILE

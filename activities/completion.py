"""Settlement of ended jobs, withdrawal of rejected ones, and the archive."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio import activity

from activities.metrics import SeenWorkflows, count_end
from ucloud_orchestrator.models.messages import (
    ArchiveAnswer,
    ArchiveRequest,
    BatchWithdrawal,
    BrowseAnswer,
    BrowseRequest,
    OffloadedUpdates,
    Settlement,
)
from ucloud_orchestrator.store import Archive, ClaimStore
from ucloud_orchestrator.temporal.names import (
    ACTIVITY_BROWSE_ARCHIVE,
    ACTIVITY_RETRIEVE_FROM_ARCHIVE,
)


class CompletionActivities:
    """Local activities of the workflows. Idempotent."""

    def __init__(self, claims: ClaimStore, archive: Archive) -> None:
        self._claims = claims
        self._archive = archive
        self._counted = SeenWorkflows()

    @activity.defn
    async def settle(self, settlement: Settlement) -> None:
        """Release the claim of an ended job, and archive it, in one transaction."""
        await self._claims.settle(settlement.job)
        if self._counted.add(settlement.job.id):
            count_end(settlement.job)

    @activity.defn
    async def withdraw(self, job_id: str) -> None:
        await self._withdraw([job_id])

    @activity.defn
    async def withdraw_batch(self, withdrawal: BatchWithdrawal) -> None:
        """Release the claims of a rejected batch, in one transaction."""
        await self._withdraw(withdrawal.job_ids)

    @activity.defn
    async def store_updates(self, offloaded: OffloadedUpdates) -> None:
        """Store the oldest updates of a live job that has too many to carry."""
        await self._archive.add_updates(
            offloaded.job_id, offloaded.first_position, offloaded.updates
        )

    async def _withdraw(self, job_ids: Sequence[str]) -> None:
        claimed_by = activity.info().workflow_id
        assert claimed_by is not None  # a local activity belongs to a workflow
        await self._claims.withdraw(claimed_by, job_ids)


class ArchiveActivities:
    """Standalone activities: clients have no access to the database."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @activity.defn(name=ACTIVITY_RETRIEVE_FROM_ARCHIVE)
    async def retrieve(self, request: ArchiveRequest) -> ArchiveAnswer:
        """Return an archived job, and a page of its updates: all may exceed a payload."""
        updates, next_position = await self._archive.list_updates(
            request.job_id, request.first_position
        )
        return ArchiveAnswer(
            job=await self._archive.retrieve_without_updates(request.job_id),
            updates=updates,
            next_position=next_position,
        )

    @activity.defn(name=ACTIVITY_BROWSE_ARCHIVE)
    async def browse(self, request: BrowseRequest) -> BrowseAnswer:
        """Return a page of finished jobs without their updates, newest first."""
        return BrowseAnswer(jobs=await self._archive.browse(request))

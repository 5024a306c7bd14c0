"""Settlement: what is written down and what comes free when a job ends, and what it keeps in the
store before.
"""

from __future__ import annotations

from temporalio import activity

from activities.context import workflow_id
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
    """Local activities of the workflow; each may be repeated without a further effect."""

    def __init__(self, holdings: ClaimStore, archive: Archive) -> None:
        self._holdings = holdings
        self._archive = archive
        self._counted = SeenWorkflows()

    @activity.defn
    async def settle(self, settlement: Settlement) -> None:
        """Release all that the ended job held, and archive it with all its updates, in one
        transaction.
        """
        await self._holdings.settle(settlement.job)
        if self._counted.add(settlement.job.id):
            count_end(settlement.job)

    @activity.defn
    async def withdraw(self, job_id: str) -> None:
        """Remove every trace of a job that was never accepted."""
        await self._holdings.withdraw(workflow_id(), [job_id])

    @activity.defn
    async def withdraw_batch(self, withdrawal: BatchWithdrawal) -> None:
        """Remove every trace of the jobs of a batch that is refused, in one transaction."""
        await self._holdings.withdraw(workflow_id(), withdrawal.job_ids)

    @activity.defn
    async def keep_updates(self, spilled: OffloadedUpdates) -> None:
        """Keep the oldest updates of a live job that has too many to carry."""
        await self._archive.add_updates(spilled.job_id, spilled.first_position, spilled.updates)


class ArchiveActivities:
    """Standalone activities, for clients, who have no database of their own."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @activity.defn(name=ACTIVITY_RETRIEVE_FROM_ARCHIVE)
    async def retrieve(self, request: ArchiveRequest) -> ArchiveAnswer:
        """The archived job, and a page of the updates that the store has of it: all at once may be
        too much.
        """
        updates, next_position = await self._archive.page_of_updates(
            request.job_id, request.first_position
        )
        return ArchiveAnswer(
            job=await self._archive.retrieve_bare(request.job_id),
            updates=updates,
            next_position=next_position,
        )

    @activity.defn(name=ACTIVITY_BROWSE_ARCHIVE)
    async def browse(self, request: BrowseRequest) -> BrowseAnswer:
        """One page of finished jobs, newest first, without their updates."""
        return BrowseAnswer(jobs=await self._archive.browse(request))

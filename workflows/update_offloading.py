"""Offloading: the oldest updates of a job move to the store, so that its workflow stays small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from temporalio import workflow

from activities.completion import CompletionActivities
from ucloud_orchestrator.models.job import JobUpdate
from ucloud_orchestrator.models.messages import OffloadedUpdates
from workflows import timeouts
from workflows.job_state import CARRIED_UPDATE_BYTES, WorkflowState, json_size

PAGE_BYTES = 256 * 1024
"""The size of the updates in one call; all at once may exceed a payload."""


async def offload_updates(state: WorkflowState) -> None:
    """Store all but the newest `CARRIED_UPDATE_BYTES` of the updates."""
    for page in _pages(_oldest(state.job.updates)):
        await workflow.execute_local_activity_method(
            CompletionActivities.store_updates,
            OffloadedUpdates(
                job_id=state.job.id, first_position=state.job.omitted_updates, updates=page
            ),
            start_to_close_timeout=timeouts.STORE_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )
        state.drop_oldest_updates(len(page))


def _oldest(updates: Sequence[JobUpdate]) -> Sequence[JobUpdate]:
    budget = CARRIED_UPDATE_BYTES
    for kept, update in enumerate(reversed(updates)):
        budget -= json_size(update)
        if budget < 0:
            return updates[: len(updates) - kept]
    return []


def _pages(updates: Sequence[JobUpdate]) -> Iterator[list[JobUpdate]]:
    """Split the updates, in order, into pages of about `PAGE_BYTES`."""
    page: list[JobUpdate] = []
    budget = PAGE_BYTES
    for update in updates:
        if page and budget < json_size(update):
            yield page
            page, budget = [], PAGE_BYTES
        page.append(update)
        budget -= json_size(update)
    if page:
        yield page

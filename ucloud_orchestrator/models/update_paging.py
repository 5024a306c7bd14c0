"""Page through the updates of a job: one query result cannot hold all (decision 0013)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any

from ucloud_orchestrator.models.job import Job, JobUpdate

PAGE_BYTES = 768 * 1024
"""The size of the updates of one page, as JSON."""


def page_of(job: Job, position: int, sizes: Sequence[int]) -> Job:
    """Return the job with one page of its updates, from `position` among all that it ever had.

    `sizes` are those of its updates, in bytes. A page after the first holds at least one update,
    even if that exceeds the limit.
    """
    start = min(max(0, position - job.omitted_updates), len(job.updates))
    count = sum(1 for used in accumulate(sizes[start:]) if used <= PAGE_BYTES)
    end = start + max(count, 1 if position else 0)
    return job.model_copy(
        update={
            "updates": job.updates[start:end],
            "omitted_updates": job.omitted_updates + start,
            "withheld_updates": max(0, len(job.updates) - end),
        }
    )


async def query_all_pages(query: Callable[..., Awaitable[Any]]) -> Job:
    """Return the job with all updates in its workflow.

    `query` queries the workflow; `args` is its keyword argument for the query's arguments.
    """

    async def query_page(position: int) -> Job:
        return Job.model_validate(await query(args=[position]))

    job = await query_page(0)
    while job.withheld_updates:
        updates: list[JobUpdate] = job.updates
        position = job.omitted_updates + len(updates)
        page = await query_page(position)
        if page.omitted_updates == position:
            page = page.model_copy(
                update={
                    "updates": [*updates, *page.updates],
                    "omitted_updates": job.omitted_updates,
                }
            )
        # Else the updates of the pages before were offloaded to the store in the meantime.
        job = page
    return job

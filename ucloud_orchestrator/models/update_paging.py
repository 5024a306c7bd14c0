"""The answers of a job's workflow, page by page: there is not always room for all updates in one
(decision 0013).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any

from ucloud_orchestrator.models.job import Job, JobUpdate

ANSWERED_UPDATE_BYTES = 768 * 1024
"""What of the updates one answer has, as JSON."""


def page_of(job: Job, position: int, sizes: Sequence[int]) -> Job:
    """The job with as many of its updates as there is room for, from the given position among all
    that it ever got.

    `sizes` are those of its updates, in bytes. Whoever asks for a position gets one update at
    least, however large.
    """
    start = min(max(0, position - job.omitted_updates), len(job.updates))
    room = sum(1 for used in accumulate(sizes[start:]) if used <= ANSWERED_UPDATE_BYTES)
    end = start + max(room, 1 if position else 0)
    return job.model_copy(
        update={
            "updates": job.updates[start:end],
            "omitted_updates": job.omitted_updates + start,
            "withheld_updates": max(0, len(job.updates) - end),
        }
    )


async def query_all_pages(query: Callable[..., Awaitable[Any]]) -> Job:
    """The job with all updates that its workflow holds.

    `query` asks the workflow, with the arguments in `args`.
    """

    async def ask(position: int) -> Job:
        # Workers of the release before take no position, and need none.
        return Job.model_validate(await query(args=[position] if position else []))

    job = await ask(0)
    while job.withheld_updates:
        updates: list[JobUpdate] = job.updates
        position = job.omitted_updates + len(updates)
        more = await ask(position)
        if more.omitted_updates == position:
            more = more.model_copy(
                update={
                    "updates": [*updates, *more.updates],
                    "omitted_updates": job.omitted_updates,
                }
            )
        job = more  # else what came before has moved to the store meanwhile
    return job

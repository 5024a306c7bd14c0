"""The archive of finished jobs, and of the updates that live jobs no longer carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ucloud_orchestrator.models.job import Job, JobUpdate
from ucloud_orchestrator.models.messages import BrowseRequest
from ucloud_orchestrator.store.database import insert_or_ignore, write_transaction
from ucloud_orchestrator.store.tables import ArchivedUpdate, FinishedJob

ROWS_PER_STATEMENT = 500
"""SQLite takes at most 32,766 values in one statement; a row has at most nine."""
UPDATES_PER_PAGE = 2000
BYTES_PER_PAGE = 256 * 1024
"""A page of updates travels as one Temporal payload, which warns from 512 kB and ends at 2 MB."""


class Archive:
    """Reads and writes of finished jobs. Every write may be repeated without a further effect."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add_updates(
        self, job_id: str, first_position: int, updates: Sequence[JobUpdate]
    ) -> None:
        """Write updates of a live job; the first of them is number `first_position` of all of its
        updates.
        """
        async with write_transaction(self._engine) as connection:
            await _write_updates(connection, job_id, first_position, updates)

    async def contains(self, job_id: str) -> bool:
        """Whether a job of this id has ended."""
        async with self._engine.connect() as connection:
            found = await connection.execute(select(FinishedJob.id).where(FinishedJob.id == job_id))
            return found.first() is not None

    async def retrieve(self, job_id: str) -> Job | None:
        """A finished job with all its updates, or None."""
        job = await self.retrieve_bare(job_id)
        if job is None:
            return None
        updates: list[JobUpdate] = []
        position: int | None = 0
        while position is not None:
            page, position = await self.page_of_updates(job_id, position)
            updates += page
        return job.model_copy(update={"updates": updates})

    async def retrieve_bare(self, job_id: str) -> Job | None:
        """A finished job without its updates, or None."""
        async with self._engine.connect() as connection:
            document = await connection.scalar(
                select(FinishedJob.document).where(FinishedJob.id == job_id)
            )
        return None if document is None else Job.model_validate_json(document)

    async def page_of_updates(
        self, job_id: str, first_position: int
    ) -> tuple[list[JobUpdate], int | None]:
        """The updates that the store has of a job from that position on, and where the next page
        begins, if any.
        """
        statement = (
            select(ArchivedUpdate.position, ArchivedUpdate.document)
            .where(ArchivedUpdate.job_id == job_id, ArchivedUpdate.position >= first_position)
            .order_by(ArchivedUpdate.position)
            .limit(UPDATES_PER_PAGE)
        )
        updates: list[JobUpdate] = []
        size = 0
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).all()
        for position, document in rows:
            size += len(document)
            if updates and size > BYTES_PER_PAGE:
                return updates, position
            updates.append(JobUpdate.model_validate_json(document))
        return updates, rows[-1].position + 1 if len(rows) == UPDATES_PER_PAGE else None

    async def browse(self, request: BrowseRequest) -> list[Job]:
        """One page of finished jobs, newest first, without their updates."""
        statement = (
            select(FinishedJob.document).order_by(FinishedJob.id.desc()).limit(request.limit)
        )
        exact = {
            FinishedJob.created_by: request.created_by,
            FinishedJob.project: request.project,
            FinishedJob.provider: request.provider,
            FinishedJob.application: request.application,
        }
        for column, value in exact.items():
            if value is not None:
                statement = statement.where(column == value)
        if request.personal:
            statement = statement.where(FinishedJob.project.is_(None))
        if request.states is not None:
            statement = statement.where(
                FinishedJob.state.in_([state.value for state in request.states])
            )
        if request.before is not None:
            statement = statement.where(FinishedJob.id < request.before)
        async with self._engine.connect() as connection:
            return [
                Job.model_validate_json(document)
                for document in await connection.scalars(statement)
            ]


async def archive(connection: AsyncConnection, job: Job) -> None:
    """Write an ended job with its updates, as a part of a transaction."""
    row = {
        "id": job.id,
        "created_by": job.owner.created_by,
        "project": job.owner.project,
        "provider": job.specification.product.provider,
        "application": str(job.specification.application),
        "state": job.status.state.value,
        "created_at": job.created_at,
        "ended_at": job.updates[-1].timestamp if job.updates else job.created_at,
        "document": _document(job),
    }
    await connection.execute(insert_or_ignore(connection, FinishedJob).values(row))
    await _write_updates(connection, job.id, job.omitted_updates, job.updates)


def _document(job: Job) -> str:
    bare = job.model_copy(update={"updates": [], "omitted_updates": 0})
    return bare.model_dump_json(by_alias=True, exclude_none=True)


async def _write_updates(
    connection: AsyncConnection, job_id: str, first_position: int, updates: Sequence[JobUpdate]
) -> None:
    rows: list[dict[str, Any]] = [
        {
            "job_id": job_id,
            "position": first_position + index,
            "document": update.model_dump_json(by_alias=True, exclude_none=True),
        }
        for index, update in enumerate(updates)
    ]
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        await connection.execute(
            insert_or_ignore(connection, ArchivedUpdate).values(
                rows[start : start + ROWS_PER_STATEMENT]
            )
        )

"""The archive: finished jobs with their updates, and updates offloaded from live jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ucloud_orchestrator.models.job import Job, JobUpdate
from ucloud_orchestrator.models.messages import BrowseRequest
from ucloud_orchestrator.store.database import insert_or_ignore, write_transaction
from ucloud_orchestrator.store.tables import ArchivedUpdate, FinishedJob

ROWS_PER_STATEMENT = 500
"""SQLite accepts at most 32,766 values in a statement; a row has at most nine."""
UPDATES_PER_PAGE = 2000
BYTES_PER_PAGE = 256 * 1024
"""A page is one Temporal payload, of which 2 MB are the limit; the server warns from 512 kB."""


class Archive:
    """Reads and writes of finished jobs. Every write is idempotent."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add_updates(
        self, job_id: str, first_position: int, updates: Sequence[JobUpdate]
    ) -> None:
        """Store updates of a live job, of which the first has this position among all of them."""
        async with write_transaction(self._engine) as connection:
            await _insert_updates(connection, job_id, first_position, updates)

    async def retrieve(self, job_id: str) -> Job | None:
        job = await self.retrieve_without_updates(job_id)
        if job is None:
            return None
        updates: list[JobUpdate] = []
        position: int | None = 0
        while position is not None:
            page, position = await self.list_updates(job_id, position)
            updates += page
        return job.model_copy(update={"updates": updates})

    async def retrieve_without_updates(self, job_id: str) -> Job | None:
        async with self._engine.connect() as connection:
            document = await connection.scalar(
                select(FinishedJob.document).where(FinishedJob.id == job_id)
            )
        return None if document is None else Job.model_validate_json(document)

    async def list_updates(
        self, job_id: str, first_position: int
    ) -> tuple[list[JobUpdate], int | None]:
        """Return a page of a job's stored updates, and the position of the next page.

        A page always holds at least one update, even if that exceeds the limit.
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
        """Return a page of finished jobs without their updates, newest first."""
        statement = (
            select(FinishedJob.document)
            .where(*_conditions(request))
            .order_by(FinishedJob.id.desc())
            .limit(request.limit)
        )
        async with self._engine.connect() as connection:
            documents = await connection.scalars(statement)
        return [Job.model_validate_json(document) for document in documents]


async def archive_job(connection: AsyncConnection, job: Job) -> None:
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
    await _insert_updates(connection, job.id, job.omitted_updates, job.updates)


def _conditions(request: BrowseRequest) -> list[ColumnElement[bool]]:
    exact = {
        FinishedJob.created_by: request.created_by,
        FinishedJob.project: request.project,
        FinishedJob.provider: request.provider,
        FinishedJob.application: request.application,
    }
    conditions = [column == value for column, value in exact.items() if value is not None]
    if request.personal:
        conditions.append(FinishedJob.project.is_(None))
    if request.states is not None:
        conditions.append(FinishedJob.state.in_([state.value for state in request.states]))
    if request.before is not None:
        conditions.append(FinishedJob.id < request.before)
    return conditions


def _document(job: Job) -> str:
    stripped = job.model_copy(update={"updates": [], "omitted_updates": 0})
    return stripped.model_dump_json(by_alias=True, exclude_none=True)


async def _insert_updates(
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

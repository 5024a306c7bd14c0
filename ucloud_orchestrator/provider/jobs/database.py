"""The provider's own memory (SQLite): jobs taken, jobs never to be taken, and what is yet to be
reported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Boolean, Integer, String, Text, delete, event, func, select, union, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ucloud_orchestrator.models.job import Job, JobStatus, JobUpdate
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.process.migrations import Migrations
from ucloud_orchestrator.provider.errors import JobAlreadyTerminated, MigrationError

DATABASE_FILE = "provider.sqlite"
"""Its name in the provider's data directory."""
MIGRATIONS = Migrations(Path(__file__).parent / "migrations")


class Table(DeclarativeBase):
    """The base of the tables. Every change of them is a migration in `migrations/versions`."""


class JobRow(Table):
    """A job that this provider has accepted. `document` is its `Job` as it came."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String, primary_key=True)
    document: Mapped[str] = mapped_column(Text)
    stop_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    running_reported: Mapped[bool] = mapped_column(Boolean, default=False)
    ended: Mapped[bool] = mapped_column(Boolean, default=False, index=True)


class TombstoneRow(Table):
    """A job whose end came before its beginning: a create that arrives later must not start it."""

    __tablename__ = "refused_jobs"

    id: Mapped[str] = mapped_column(String, primary_key=True)


class Report(Table):
    """An update that the orchestrator has not taken yet."""

    __tablename__ = "reports"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String, index=True)
    document: Mapped[str] = mapped_column(Text)


class Meter(Table):
    """Since when a job has run (milliseconds since the epoch), and how many units of it have become
    charges.

    Where it waited in between, `started_at` is later by that time.
    """

    __tablename__ = "meters"

    job_id: Mapped[str] = mapped_column(String, primary_key=True)
    started_at: Mapped[int] = mapped_column(Integer)
    charged: Mapped[int] = mapped_column(Integer)


class MeterPause(Table):
    """A job that ran and waits again: its meter stands still at what it had used by then
    (milliseconds).
    """

    __tablename__ = "meter_pauses"

    job_id: Mapped[str] = mapped_column(String, primary_key=True)
    used: Mapped[int] = mapped_column(Integer)


class DueCharge(Table):
    """A charge that the orchestrator has not taken yet."""

    __tablename__ = "due_charges"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String, index=True)
    document: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True)
class JobRecord:
    """A job and how far it has come."""

    job: Job
    stop_requested: bool
    running_reported: bool
    ended: bool


class JobDatabase:
    """Reads and writes of the provider's memory; every method is one transaction."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _close_to_others(file)
        self._file = file
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        event.listen(self._engine.sync_engine, "connect", _prepare)

    async def open(self) -> None:
        """Migrate the tables to this release. Raises `MigrationError`."""
        try:
            newer = await MIGRATIONS.is_newer(self._engine)
            if not newer:
                await MIGRATIONS.upgrade(self._engine)
        except SQLAlchemyError as error:
            raise MigrationError(
                f"The tables of the provider's database {self._file} cannot be migrated to "
                f"revision {MIGRATIONS.revisions()[-1]}: {getattr(error, 'orig', None) or error}."
            ) from error
        if newer:
            raise MigrationError(
                f"The provider's database {self._file} was migrated by a newer release: start "
                "that one."
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def check(self) -> None:
        """Read anything of the database. Raises if it does not answer."""
        async with self._engine.connect() as connection:
            await connection.execute(select(TombstoneRow.id).limit(1))

    async def take(self, jobs: Sequence[Job]) -> list[Job]:
        """Accept all jobs or none; returns those that are new. Raises `JobAlreadyTerminated`."""
        new = []
        async with self._engine.begin() as connection:
            for job in jobs:
                flags = {"stop_requested": False, "running_reported": False, "ended": False}
                row = {"id": job.id, "document": _document(job), **flags}
                inserted = await connection.execute(
                    insert(JobRow).values(row).on_conflict_do_nothing()
                )
                # Only after the first write: SQLite begins the transaction there, so what was read
                # before may be old.
                if (
                    await connection.execute(
                        select(TombstoneRow.id).where(TombstoneRow.id == job.id)
                    )
                ).first():
                    raise JobAlreadyTerminated(
                        f"The job {job.id} was terminated before it was created."
                    )
                if inserted.rowcount:
                    new.append(job)
        return new

    async def request_stop(self, job_ids: Sequence[str]) -> None:
        """Note that jobs shall end. An unknown one is never to be started."""
        async with self._engine.begin() as connection:
            for job_id in job_ids:
                found = await connection.execute(
                    update(JobRow).where(JobRow.id == job_id).values(stop_requested=True)
                )
                if not found.rowcount:
                    await connection.execute(
                        insert(TombstoneRow).values(id=job_id).on_conflict_do_nothing()
                    )

    async def find(self, job_id: str) -> JobRecord | None:
        """A job that was taken."""
        async with self._engine.connect() as connection:
            row = (
                await connection.execute(select(JobRow.__table__).where(JobRow.id == job_id))
            ).first()
        return None if row is None else _taken(row)

    async def live(self) -> list[JobRecord]:
        """All jobs that have not ended."""
        async with self._engine.connect() as connection:
            rows = (
                await connection.execute(select(JobRow.__table__).where(JobRow.ended.is_(False)))
            ).all()
        return [_taken(row) for row in rows]

    async def replace(self, job: Job) -> None:
        """Keep a changed job, such as one with a longer allocation."""
        async with self._engine.begin() as connection:
            await connection.execute(
                update(JobRow).where(JobRow.id == job.id).values(document=_document(job))
            )

    async def note_running(self, job_id: str, now: int, report: JobUpdate | None) -> None:
        """Note that the job runs, and what is to be reported of it; None if the answer to `create`
        says it.
        """
        meter = {"job_id": job_id, "started_at": now, "charged": 0}
        async with self._engine.begin() as connection:
            await connection.execute(
                update(JobRow).where(JobRow.id == job_id).values(running_reported=True)
            )
            await connection.execute(insert(Meter).values(meter).on_conflict_do_nothing())
            used = (
                await connection.execute(select(MeterPause.used).where(MeterPause.job_id == job_id))
            ).scalar()
            if used is not None:
                await connection.execute(
                    update(Meter).where(Meter.job_id == job_id).values(started_at=now - used)
                )
                await connection.execute(delete(MeterPause).where(MeterPause.job_id == job_id))
            if report is not None:
                await connection.execute(insert(Report).values(_report(job_id, report)))

    async def note_requeued(self, job_id: str, now: int, report: JobUpdate) -> None:
        """Note that a job which ran waits again, and what is to be reported of that; its meter
        stands still.
        """
        used = select(Meter.job_id, now - Meter.started_at).where(Meter.job_id == job_id)
        async with self._engine.begin() as connection:
            await connection.execute(
                update(JobRow).where(JobRow.id == job_id).values(running_reported=False)
            )
            await connection.execute(insert(MeterPause).from_select(["job_id", "used"], used))
            await connection.execute(insert(Report).values(_report(job_id, report)))

    async def meter(self, job_id: str, until: int) -> tuple[int, int] | None:
        """For how many milliseconds the job has run until then, and how many units of that have
        become charges.

        None if it never ran.
        """
        statement = select(Meter.started_at, Meter.charged, MeterPause.used).where(
            Meter.job_id == job_id
        )
        statement = statement.outerjoin(MeterPause, MeterPause.job_id == Meter.job_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(statement)).first()
        if row is None:
            return None
        return max(0, until - row.started_at) if row.used is None else row.used, row.charged

    async def add_charge(self, job_id: str, charge: Charge) -> None:
        """Note a charge that is to be sent."""
        row = {"job_id": job_id, "document": charge.model_dump_json(by_alias=True)}
        async with self._engine.begin() as connection:
            await connection.execute(
                update(Meter)
                .where(Meter.job_id == job_id)
                .values(charged=Meter.charged + charge.units)
            )
            await connection.execute(insert(DueCharge).values(row))

    async def due_charges(self, job_id: str) -> list[tuple[int, Charge]]:
        """The charges of a job that were not taken yet, with the numbers under which they are
        kept.
        """
        statement = select(DueCharge.number, DueCharge.document).where(DueCharge.job_id == job_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement.order_by(DueCharge.number))).all()
        return [(row.number, Charge.model_validate_json(row.document)) for row in rows]

    async def forget_charges(self, numbers: Sequence[int]) -> None:
        """Delete charges that were taken or refused."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(DueCharge).where(DueCharge.number.in_(numbers)))

    async def report_end(self, job_id: str, reports: Sequence[JobUpdate]) -> None:
        """Note that the job has ended, and what is to be reported of it, oldest first."""
        async with self._engine.begin() as connection:
            await connection.execute(update(JobRow).where(JobRow.id == job_id).values(ended=True))
            await connection.execute(
                insert(Report).values([_report(job_id, report) for report in reports])
            )

    async def report(self, job_id: str, report: JobUpdate) -> None:
        """Note something to be reported about a job, known or not."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(Report).values(_report(job_id, report)))

    async def pending_reports(self, job_id: str) -> list[tuple[int, JobUpdate]]:
        """What is to be reported of a job, oldest first, with the numbers under which it is
        kept.
        """
        statement = select(Report.number, Report.document).where(Report.job_id == job_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement.order_by(Report.number))).all()
        return [(row.number, JobUpdate.model_validate_json(row.document)) for row in rows]

    async def unanswered_jobs(self) -> list[str]:
        """The jobs of which reports or charges were not taken yet."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(union(select(Report.job_id), select(DueCharge.job_id)))
            return [row.job_id for row in rows]

    async def count_unanswered(self) -> tuple[int, int]:
        """How many reports, and how many charges, were not taken yet."""
        statement = select(
            select(func.count()).select_from(Report).scalar_subquery(),
            select(func.count()).select_from(DueCharge).scalar_subquery(),
        )
        async with self._engine.connect() as connection:
            reports, charges = (await connection.execute(statement)).one()
        return reports, charges

    async def forget_reports(self, job_id: str, numbers: Sequence[int]) -> None:
        """Delete reports of a job that were taken; with those of its end goes what nobody needs any
        more of it.
        """
        async with self._engine.begin() as connection:
            await connection.execute(delete(Report).where(Report.number.in_(numbers)))
            left = union(
                select(Report.job_id).where(Report.job_id == job_id),
                select(DueCharge.job_id).where(DueCharge.job_id == job_id),
            )
            ended = select(JobRow.document).where(JobRow.id == job_id, JobRow.ended.is_(True))
            row = (await connection.execute(ended)).first()
            if row is None or (await connection.execute(left)).first():
                return
            job = Job.model_validate_json(row.document)
            # What the orchestrator had resolved may hold secrets, such as licenses.
            bare = job.model_copy(update={"status": JobStatus(state=job.status.state)})
            await connection.execute(
                update(JobRow).where(JobRow.id == job_id).values(document=_document(bare))
            )
            for table in (Meter, MeterPause):
                await connection.execute(delete(table).where(table.job_id == job_id))


def _close_to_others(file: Path) -> None:
    """Make the database for its owner alone; SQLite gives the files beside it the same rights."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    for one in (file, *(file.with_name(f"{file.name}{suffix}") for suffix in ("-wal", "-shm"))):
        with contextlib.suppress(FileNotFoundError):
            one.chmod(0o600)


def _prepare(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _document(job: Job) -> str:
    return job.model_dump_json(by_alias=True, exclude_none=True)


def _report(job_id: str, report: JobUpdate) -> dict[str, str]:
    return {"job_id": job_id, "document": report.model_dump_json(by_alias=True, exclude_none=True)}


def _taken(row: object) -> JobRecord:
    return JobRecord(
        job=Job.model_validate_json(row.document),  # type: ignore[attr-defined]
        stop_requested=row.stop_requested,  # type: ignore[attr-defined]
        running_reported=row.running_reported,  # type: ignore[attr-defined]
        ended=row.ended,  # type: ignore[attr-defined]
    )

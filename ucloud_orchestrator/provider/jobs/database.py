"""The provider's database (SQLite): its jobs, tombstones, meters and the outbox of reports."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Integer,
    Row,
    String,
    Text,
    Update,
    delete,
    event,
    func,
    select,
    union,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ucloud_orchestrator.models.job import Job, JobStatus, JobUpdate
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.process.migrations import Migrations
from ucloud_orchestrator.provider.errors import JobAlreadyTerminated, MigrationError
from ucloud_orchestrator.provider.jobs.decisions import DesiredState, JobPhase, JobRecord

DATABASE_FILE = "provider.sqlite"
MIGRATIONS = Migrations(Path(__file__).parent / "migrations")


class Table(DeclarativeBase):
    """The base of the tables. Every change of them is a migration in `migrations/versions`."""


class JobRow(Table):
    """A job of this provider. `document` is its `Job` as the orchestrator sent it."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String, primary_key=True)
    document: Mapped[str] = mapped_column(Text)
    desired: Mapped[str] = mapped_column(String)
    phase: Mapped[str] = mapped_column(String, index=True)
    failure: Mapped[str | None] = mapped_column(Text)


class TombstoneRow(Table):
    """A job that was terminated before its `create`, which must not start it any more."""

    __tablename__ = "tombstones"

    id: Mapped[str] = mapped_column(String, primary_key=True)


class Report(Table):
    __tablename__ = "reports"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String, index=True)
    document: Mapped[str] = mapped_column(Text)


class Meter(Table):
    """The start of a job (milliseconds since the epoch) and its charged units.

    `started_at` is later by the time that the job waited after a requeue.
    """

    __tablename__ = "meters"

    job_id: Mapped[str] = mapped_column(String, primary_key=True)
    started_at: Mapped[int] = mapped_column(Integer)
    charged: Mapped[int] = mapped_column(Integer)


class MeterPause(Table):
    """A paused meter, of a requeued job: the milliseconds that it had run."""

    __tablename__ = "meter_pauses"

    job_id: Mapped[str] = mapped_column(String, primary_key=True)
    used: Mapped[int] = mapped_column(Integer)


class DueCharge(Table):
    __tablename__ = "due_charges"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String, index=True)
    document: Mapped[str] = mapped_column(Text)


class JobDatabase:
    """Reads and writes the provider's database; every method is one transaction."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _restrict_to_owner(file)
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
        await self._engine.dispose()

    async def check(self) -> None:
        """Run a query. Raises if the database does not answer."""
        async with self._engine.connect() as connection:
            await connection.execute(select(TombstoneRow.id).limit(1))

    async def accept(self, jobs: Sequence[Job]) -> list[Job]:
        """Insert all jobs or none; returns the new ones. Raises `JobAlreadyTerminated`."""
        new = []
        async with self._engine.begin() as connection:
            for job in jobs:
                row = {
                    "id": job.id,
                    "document": _document(job),
                    "desired": DesiredState.RUN,
                    "phase": JobPhase.PENDING,
                }
                inserted = await connection.execute(
                    insert(JobRow).values(row).on_conflict_do_nothing()
                )
                # After the first write: SQLite begins the transaction there.
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
        """Set the desired state of jobs to STOP; an unknown job gets a tombstone."""
        async with self._engine.begin() as connection:
            for job_id in job_ids:
                found = await connection.execute(
                    update(JobRow).where(JobRow.id == job_id).values(desired=DesiredState.STOP)
                )
                if not found.rowcount:
                    await connection.execute(
                        insert(TombstoneRow).values(id=job_id).on_conflict_do_nothing()
                    )

    async def find(self, job_id: str) -> JobRecord | None:
        async with self._engine.connect() as connection:
            row = (
                await connection.execute(select(JobRow.__table__).where(JobRow.id == job_id))
            ).first()
        return None if row is None else _record(row)

    async def live_records(self) -> list[JobRecord]:
        async with self._engine.connect() as connection:
            rows = (
                await connection.execute(
                    select(JobRow.__table__).where(JobRow.phase != JobPhase.ENDED)
                )
            ).all()
        return [_record(row) for row in rows]

    async def update_job(self, job: Job) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(
                update(JobRow).where(JobRow.id == job.id).values(document=_document(job))
            )

    async def mark_running(self, job_id: str, now: int, report: JobUpdate | None) -> None:
        """Set the phase to RUNNING, and start the meter at `now` (milliseconds since the epoch).

        The report is None if the answer to `create` has it.
        """
        meter = {"job_id": job_id, "started_at": now, "charged": 0}
        async with self._engine.begin() as connection:
            await connection.execute(_set_phase(job_id, JobPhase.RUNNING))
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

    async def mark_requeued(self, job_id: str, now: int, report: JobUpdate) -> None:
        """Set the phase of a job that ran to PENDING, and pause its meter."""
        used = select(Meter.job_id, now - Meter.started_at).where(Meter.job_id == job_id)
        async with self._engine.begin() as connection:
            await connection.execute(_set_phase(job_id, JobPhase.PENDING))
            await connection.execute(insert(MeterPause).from_select(["job_id", "used"], used))
            await connection.execute(insert(Report).values(_report(job_id, report)))

    async def mark_failed(self, job_id: str, failure: str) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(_set_phase(job_id, JobPhase.FAILED, failure=failure))

    async def meter(self, job_id: str, until: int) -> tuple[int, int] | None:
        """Return the milliseconds that the job has run until then, and its charged units.

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
        row = {"job_id": job_id, "document": charge.model_dump_json(by_alias=True)}
        async with self._engine.begin() as connection:
            await connection.execute(
                update(Meter)
                .where(Meter.job_id == job_id)
                .values(charged=Meter.charged + charge.units)
            )
            await connection.execute(insert(DueCharge).values(row))

    async def due_charges(self, job_id: str) -> list[tuple[int, Charge]]:
        """Return the charges of a job in the outbox with their numbers, oldest first."""
        statement = select(DueCharge.number, DueCharge.document).where(DueCharge.job_id == job_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement.order_by(DueCharge.number))).all()
        return [(row.number, Charge.model_validate_json(row.document)) for row in rows]

    async def delete_charges(self, numbers: Sequence[int]) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(delete(DueCharge).where(DueCharge.number.in_(numbers)))

    async def mark_ended(self, job_id: str, reports: Sequence[JobUpdate]) -> None:
        """Set the phase to ENDED, and put the reports into the outbox, oldest first."""
        async with self._engine.begin() as connection:
            await connection.execute(_set_phase(job_id, JobPhase.ENDED))
            await connection.execute(
                insert(Report).values([_report(job_id, report) for report in reports])
            )

    async def add_report(self, job_id: str, report: JobUpdate) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(insert(Report).values(_report(job_id, report)))

    async def pending_reports(self, job_id: str) -> list[tuple[int, JobUpdate]]:
        """Return the reports of a job in the outbox with their numbers, oldest first."""
        statement = select(Report.number, Report.document).where(Report.job_id == job_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement.order_by(Report.number))).all()
        return [(row.number, JobUpdate.model_validate_json(row.document)) for row in rows]

    async def undelivered_jobs(self) -> list[str]:
        """Return the ids of the jobs with reports or charges in the outbox."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(union(select(Report.job_id), select(DueCharge.job_id)))
            return [row.job_id for row in rows]

    async def count_undelivered(self) -> tuple[int, int]:
        statement = select(
            select(func.count()).select_from(Report).scalar_subquery(),
            select(func.count()).select_from(DueCharge).scalar_subquery(),
        )
        async with self._engine.connect() as connection:
            reports, charges = (await connection.execute(statement)).one()
        return reports, charges

    async def delete_reports(self, job_id: str, numbers: Sequence[int]) -> None:
        """Delete delivered reports; after the last of an ended job, also its meter and secrets."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(Report).where(Report.number.in_(numbers)))
            left = union(
                select(Report.job_id).where(Report.job_id == job_id),
                select(DueCharge.job_id).where(DueCharge.job_id == job_id),
            )
            ended = select(JobRow.document).where(
                JobRow.id == job_id, JobRow.phase == JobPhase.ENDED
            )
            row = (await connection.execute(ended)).first()
            if row is None or (await connection.execute(left)).first():
                return
            job = Job.model_validate_json(row.document)
            # The resolved documents may have secrets, such as licenses.
            bare = job.model_copy(update={"status": JobStatus(state=job.status.state)})
            await connection.execute(
                update(JobRow).where(JobRow.id == job_id).values(document=_document(bare))
            )
            for table in (Meter, MeterPause):
                await connection.execute(delete(table).where(table.job_id == job_id))


def _restrict_to_owner(file: Path) -> None:
    """Create the database with mode 0600, which SQLite copies to the files beside it."""
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


def _set_phase(job_id: str, phase: JobPhase, **values: str) -> Update:
    return update(JobRow).where(JobRow.id == job_id).values(phase=phase, **values)


def _record(row: Row[Any]) -> JobRecord:
    return JobRecord(
        job=Job.model_validate_json(row.document),
        desired=DesiredState(row.desired),
        phase=JobPhase(row.phase),
        failure=row.failure,
    )

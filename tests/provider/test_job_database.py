"""The provider's database: concurrent writes, and what it keeps of jobs that have ended."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event

from tests.builders import shell_job
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobState, JobUpdate
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.provider.errors import JobAlreadyTerminated
from ucloud_orchestrator.provider.jobs.database import JobDatabase


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[JobDatabase]:
    opened = JobDatabase(tmp_path / "provider.sqlite")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def job() -> Job:
    return Job.model_validate(shell_job("true"))


async def test_a_terminate_beside_a_create_is_not_lost(
    tmp_path: Path, database: JobDatabase, job: Job
) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(database._engine.sync_engine, "before_cursor_execute", note)
    other = sqlite3.connect(tmp_path / "provider.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO tombstones (id) VALUES (?)", [job.id])
    accepting = asyncio.create_task(database.accept([job]))
    await eventually(
        lambda: any(statement.startswith("INSERT INTO jobs") for statement in statements)
    )
    other.execute("COMMIT")
    other.close()
    with pytest.raises(JobAlreadyTerminated):
        await accepting
    assert await database.live_records() == []


async def test_a_meter_is_paused_by_a_requeue(database: JobDatabase, job: Job) -> None:
    await database.accept([job])
    assert await database.meter(job.id, 5_000) is None
    await database.mark_running(job.id, 10_000, None)
    for time in (70_000, 1_000_000):
        await database.mark_requeued(job.id, time, JobUpdate(status="waits"))
        assert await database.meter(job.id, time + 500_000) == (60_000, 0)
        await database.mark_running(job.id, 1_000_000, None)
    assert await database.meter(job.id, 1_030_000) == (90_000, 0)


async def test_no_secret_of_an_ended_job_is_kept(
    tmp_path: Path, database: JobDatabase, job: Job
) -> None:
    status = job.status.model_copy(update={"resolved_licenses": {"key": "a-secret"}})
    await database.accept([job.model_copy(update={"status": status})])
    await database.mark_running(job.id, 1, JobUpdate(status="runs"))
    await database.delete_reports(
        job.id, [number for number, _ in await database.pending_reports(job.id)]
    )
    await database.add_charge(job.id, Charge(charge_id="1-1", units=1, periods=1))
    await database.mark_ended(job.id, [JobUpdate(state=JobState.SUCCESS), JobUpdate(status="more")])
    (first, _), (second, _) = await database.pending_reports(job.id)
    await database.delete_reports(job.id, [first])
    record = await database.find(job.id)
    assert record is not None
    assert record.job.status.resolved_licenses == {"key": "a-secret"}
    assert await database.meter(job.id, 2) is not None
    await database.delete_charges([number for number, _ in await database.due_charges(job.id)])
    await database.delete_reports(job.id, [second])
    record = await database.find(job.id)
    assert record is not None
    assert record.has_ended
    assert record.job.specification == job.specification
    assert (record.job.status.resolved_licenses, record.job.status.resolved_application) == (
        None,
        None,
    )
    assert await database.meter(job.id, 2) is None


async def test_the_database_has_mode_0600_even_if_made_otherwise(tmp_path: Path, job: Job) -> None:
    file = tmp_path / "provider.sqlite"
    file.touch(0o644)
    file.chmod(0o644)
    database = JobDatabase(file)
    await database.open()
    await database.accept([job])
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in os.scandir(tmp_path)}
    await database.close()
    assert modes == {f"provider.sqlite{suffix}": 0o600 for suffix in ("", "-wal", "-shm")}

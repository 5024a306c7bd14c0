"""The provider's memory: what is written at the same time, and what is kept of jobs that have
ended.
"""

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
async def ledger(tmp_path: Path) -> AsyncIterator[JobDatabase]:
    opened = JobDatabase(tmp_path / "provider.sqlite")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def job() -> Job:
    return Job.model_validate(shell_job("true"))


async def test_a_terminate_beside_a_create_is_not_lost(
    tmp_path: Path, ledger: JobDatabase, job: Job
) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(ledger._engine.sync_engine, "before_cursor_execute", note)
    other = sqlite3.connect(tmp_path / "provider.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO refused_jobs (id) VALUES (?)", [job.id])
    taking = asyncio.create_task(ledger.take([job]))
    await eventually(
        lambda: any(statement.startswith("INSERT INTO jobs") for statement in statements)
    )
    other.execute("COMMIT")
    other.close()
    with pytest.raises(JobAlreadyTerminated):
        await taking
    assert await ledger.live() == []


async def test_a_meter_stands_still_while_a_job_waits_again(ledger: JobDatabase, job: Job) -> None:
    await ledger.take([job])
    assert await ledger.meter(job.id, 5_000) is None
    await ledger.note_running(job.id, 10_000, None)
    for time in (70_000, 1_000_000):
        await ledger.note_requeued(job.id, time, JobUpdate(status="waits"))
        assert await ledger.meter(job.id, time + 500_000) == (60_000, 0)
        await ledger.note_running(job.id, 1_000_000, None)
    assert await ledger.meter(job.id, 1_030_000) == (90_000, 0)


async def test_of_a_job_that_has_ended_no_secret_is_kept(
    tmp_path: Path, ledger: JobDatabase, job: Job
) -> None:
    status = job.status.model_copy(update={"resolved_licenses": {"key": "a-secret"}})
    await ledger.take([job.model_copy(update={"status": status})])
    await ledger.note_running(job.id, 1, JobUpdate(status="runs"))
    await ledger.forget_reports(
        job.id, [number for number, _ in await ledger.pending_reports(job.id)]
    )
    await ledger.add_charge(job.id, Charge(charge_id="1-1", units=1, periods=1))
    await ledger.report_end(job.id, [JobUpdate(state=JobState.SUCCESS), JobUpdate(status="more")])
    (first, _), (second, _) = await ledger.pending_reports(job.id)
    await ledger.forget_reports(job.id, [first])
    taken = await ledger.find(job.id)
    assert taken is not None
    assert taken.job.status.resolved_licenses == {"key": "a-secret"}
    assert await ledger.meter(job.id, 2) is not None
    await ledger.forget_charges([number for number, _ in await ledger.due_charges(job.id)])
    await ledger.forget_reports(job.id, [second])
    taken = await ledger.find(job.id)
    assert taken is not None
    assert taken.ended
    assert taken.job.specification == job.specification
    assert (taken.job.status.resolved_licenses, taken.job.status.resolved_application) == (
        None,
        None,
    )
    assert await ledger.meter(job.id, 2) is None


async def test_the_database_is_its_owners_alone_also_when_it_was_made_otherwise(
    tmp_path: Path, job: Job
) -> None:
    file = tmp_path / "provider.sqlite"
    file.touch(0o644)
    file.chmod(0o644)
    ledger = JobDatabase(file)
    await ledger.open()
    await ledger.take([job])
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in os.scandir(tmp_path)}
    await ledger.close()
    assert modes == {f"provider.sqlite{suffix}": 0o600 for suffix in ("", "-wal", "-shm")}

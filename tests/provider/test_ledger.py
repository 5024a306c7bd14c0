"""The provider's memory: what is written at the same time, and what is kept of jobs that have ended."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event

from models import Job, JobUpdate
from provider.ledger import Ledger, TerminatedBefore
from tests.conditions import eventually
from tests.provider.served import shell


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    opened = Ledger(tmp_path / "provider.sqlite")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def job() -> Job:
    return Job.model_validate(shell("true"))


async def test_a_terminate_beside_a_create_is_not_lost(tmp_path: Path, ledger: Ledger, job: Job) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(ledger._engine.sync_engine, "before_cursor_execute", note)
    other = sqlite3.connect(tmp_path / "provider.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO refused_jobs (id) VALUES (?)", [job.id])
    taking = asyncio.create_task(ledger.take([job]))
    await eventually(lambda: any(statement.startswith("INSERT INTO jobs") for statement in statements))
    other.execute("COMMIT")
    other.close()
    with pytest.raises(TerminatedBefore):
        await taking
    assert await ledger.live() == []


async def test_a_meter_stands_still_while_a_job_waits_again(ledger: Ledger, job: Job) -> None:
    await ledger.take([job])
    assert await ledger.meter(job.id, 5_000) is None
    await ledger.note_running(job.id, 10_000, None)
    for time in (70_000, 1_000_000):
        await ledger.note_requeued(job.id, time, JobUpdate(status="waits"))
        assert await ledger.meter(job.id, time + 500_000) == (60_000, 0)
        await ledger.note_running(job.id, 1_000_000, None)
    assert await ledger.meter(job.id, 1_030_000) == (90_000, 0)

"""The provider's memory: what is written at the same time, and what is kept of jobs that have ended."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event

from models import Job
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

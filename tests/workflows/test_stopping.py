"""The graceful stop of a worker."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.service import RPCError

from tests.conftest import Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState


async def test_a_worker_stops_once_its_database_is_back(
    orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    await orchestrator.stop_worker()
    worker = orchestrator.new_worker(stop_timeout=0)
    working = asyncio.create_task(worker.run())
    store = sqlite3.connect(orchestrator.engine.url.database or "", isolation_level=None)
    store.execute("BEGIN IMMEDIATE")
    job_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(orchestrator.jobs.create(orchestrator.specification(), job_id))
    await eventually(lambda: is_being_admitted(orchestrator, job_id))
    with caplog.at_level(logging.INFO, "temporalio.worker"):
        worker.stop()
        await eventually(lambda: caplog.text.count("Beginning worker shutdown") == 3)
    store.rollback()
    store.close()
    async with asyncio.timeout(30):
        await working
    async with orchestrator.another_worker():
        await creating
        await orchestrator.report(job_id, JobState.SUCCESS)
        await orchestrator.jobs.wait(job_id)
    assert orchestrator.provider.calls_for(job_id) == ["create"]


async def is_being_admitted(orchestrator: Orchestrator, job_id: str) -> bool:
    try:
        events = (await orchestrator.handle(job_id).fetch_history()).events
    except RPCError:  # it is not there yet
        return False
    return EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED in [event.event_type for event in events]

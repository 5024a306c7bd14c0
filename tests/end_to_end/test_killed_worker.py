"""`kill -9` of the worker, a real process, while jobs are at every point of their lives."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from client import Actor, JobClient, ProviderClient
from tests.builders import specification, text
from tests.conftest import as_stored
from tests.end_to_end.worker_process import WorkerProcess, prepare, serving
from tests.fake_provider import FakeProvider
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobState, JobUpdate
from ucloud_orchestrator.store import Archive, connect

pytestmark = pytest.mark.long

SPECIFICATION = specification("echo", parameters={"text": text("hello")}, allowDuplicateJob=True)


@pytest.fixture
async def worker(
    environment: WorkflowEnvironment, provider: FakeProvider, tmp_path: Path
) -> AsyncIterator[WorkerProcess]:
    await prepare(tmp_path)
    temporal = environment.client.service_client.config.target_host
    async with serving(WorkerProcess(tmp_path, temporal, {"local": provider.url})) as process:
        yield process


async def test_a_killed_worker_loses_no_job_at_any_point(
    environment: WorkflowEnvironment, provider: FakeProvider, worker: WorkerProcess
) -> None:
    temporal = environment.client
    jobs, reports = JobClient(temporal, Actor(username="alice")), ProviderClient(temporal, "local")

    async def report(job: Job, state: JobState) -> None:
        await reports.update(job.id, [JobUpdate(state=state, status=f"It is {state}.")])

    async def reached(job: Job, state: JobState) -> None:
        async def there() -> bool:
            return (await jobs.retrieve(job.id)).status.state is state

        await eventually(there)

    async def started(job_id: str) -> bool:
        found = [entry.id async for entry in temporal.list_workflows("WorkflowType = 'Job'")]
        return job_id in found

    queued, running, cancelled, settled = [await jobs.create(SPECIFICATION) for _ in range(4)]
    for job in (running, cancelled, settled):
        await report(job, JobState.RUNNING)
        await reached(job, JobState.RUNNING)
    provider.open["terminate"].clear()
    await jobs.cancel(cancelled.id)
    await eventually(lambda: "terminate" in provider.calls_for(cancelled.id))
    provider.open["create"].clear()
    submitted_id, unseen_id = jobs.new_job_id(), jobs.new_job_id()
    submitting = asyncio.create_task(jobs.create(SPECIFICATION, submitted_id))
    await eventually(lambda: "create" in provider.calls_for(submitted_id))
    store = sqlite3.connect(worker.database, isolation_level=None)
    store.execute("BEGIN IMMEDIATE")  # nothing can be settled now
    await report(settled, JobState.SUCCESS)
    await reached(settled, JobState.SUCCESS)
    worker.suspend()
    unseen = asyncio.create_task(jobs.create(SPECIFICATION, unseen_id))
    await eventually(lambda: started(unseen_id))
    await worker.kill()

    await report(queued, JobState.RUNNING)
    await report(running, JobState.SUCCESS)
    store.rollback()
    store.close()
    for call in ("create", "terminate"):
        provider.open[call].set()
    await worker.start()

    submitted, unseen_job = await submitting, await unseen
    for job in (submitted, unseen_job):
        await report(job, JobState.RUNNING)
    await reached(queued, JobState.RUNNING)
    for job in (queued, submitted, unseen_job, cancelled):
        await report(job, JobState.SUCCESS)
    ended = [
        await jobs.wait(job.id)
        for job in (queued, running, cancelled, settled, submitted, unseen_job)
    ]

    whole = [JobState.IN_QUEUE, JobState.RUNNING, JobState.SUCCESS]
    for job in ended:
        states = [update.state for update in job.updates]
        assert states == (
            [*whole[:2], JobState.CANCELING, whole[2]] if job.id == cancelled.id else whole
        )
        description = await temporal.get_workflow_handle(job.id).describe()
        assert description.status is not None
        assert description.status.name == ("CANCELED" if job.id == cancelled.id else "COMPLETED")
    for job in ended:
        # A call whose answer was lost is repeated with the same id, which is how a provider knows
        # it again.
        expected = {"create", "terminate"} if job.id == cancelled.id else {"create"}
        assert set(provider.calls_for(job.id)) == expected
        assert len(provider.calls_for(job.id)) == len(expected) + (
            job.id in {submitted_id, cancelled.id}
        )
    engine = connect(f"sqlite+aiosqlite:///{worker.database}")
    archived = [await Archive(engine).retrieve(job.id) for job in ended]
    await engine.dispose()
    assert archived == [as_stored(job) for job in ended]

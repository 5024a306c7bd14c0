"""Kill the worker process while jobs are at every point of their lives."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client
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


class Jobs:
    """Jobs at every point of their lives, seen by their user and by their provider."""

    def __init__(self, temporal: Client, provider: FakeProvider) -> None:
        self.temporal, self.provider = temporal, provider
        self.client = JobClient(temporal, Actor(username="alice"))
        self._reports = ProviderClient(temporal, "local")

    async def report(self, job: Job, state: JobState) -> None:
        await self._reports.update(job.id, [JobUpdate(state=state, status=f"It is {state}.")])

    async def reached(self, job: Job, state: JobState) -> None:
        async def is_in_state() -> bool:
            return (await self.client.retrieve(job.id)).status.state is state

        await eventually(is_in_state)

    async def is_started(self, job_id: str) -> bool:
        listed = self.temporal.list_workflows("WorkflowType = 'Job'")
        return job_id in [entry.id async for entry in listed]

    async def cancelled(self) -> Job:
        """Return a job whose provider does not answer to its `terminate`."""
        job = await self.client.create(SPECIFICATION)
        await self.report(job, JobState.RUNNING)
        await self.reached(job, JobState.RUNNING)
        self.provider.open["terminate"].clear()
        await self.client.cancel(job.id)
        await eventually(lambda: "terminate" in self.provider.calls_for(job.id))
        return job

    async def submitted(self) -> tuple[str, asyncio.Task[Job]]:
        """Return a job whose provider does not answer to its `create`."""
        self.provider.open["create"].clear()
        job_id = self.client.new_job_id()
        creating = asyncio.create_task(self.client.create(SPECIFICATION, job_id))
        await eventually(lambda: "create" in self.provider.calls_for(job_id))
        return job_id, creating

    async def check_end(self, job: Job, is_cancelled: bool, is_repeated: bool) -> None:
        """Check the job's states, its workflow's status, and the calls about it."""
        states = [JobState.IN_QUEUE, JobState.RUNNING, JobState.SUCCESS]
        if is_cancelled:
            states.insert(2, JobState.CANCELING)
        assert [update.state for update in job.updates] == states
        description = await self.temporal.get_workflow_handle(job.id).describe()
        assert description.status is not None
        assert description.status.name == ("CANCELED" if is_cancelled else "COMPLETED")
        # A call without an answer is repeated with the same id, by which a provider knows it.
        expected = ["create", "terminate"] if is_cancelled else ["create"]
        calls = self.provider.calls_for(job.id)
        assert sorted(calls) == sorted([*expected, *expected[-1:]] if is_repeated else expected)


async def test_a_killed_worker_loses_no_job(
    environment: WorkflowEnvironment, provider: FakeProvider, worker: WorkerProcess
) -> None:
    jobs = Jobs(environment.client, provider)
    queued, running, settled = [await jobs.client.create(SPECIFICATION) for _ in range(3)]
    for job in (running, settled):
        await jobs.report(job, JobState.RUNNING)
        await jobs.reached(job, JobState.RUNNING)
    cancelled = await jobs.cancelled()
    submitted_id, submitting = await jobs.submitted()
    store = sqlite3.connect(worker.database, isolation_level=None)
    store.execute("BEGIN IMMEDIATE")  # nothing can be settled now
    await jobs.report(settled, JobState.SUCCESS)
    await jobs.reached(settled, JobState.SUCCESS)
    worker.suspend()
    unseen_id = jobs.client.new_job_id()
    creating_unseen = asyncio.create_task(jobs.client.create(SPECIFICATION, unseen_id))
    await eventually(lambda: jobs.is_started(unseen_id))
    await worker.kill()

    await jobs.report(queued, JobState.RUNNING)
    await jobs.report(running, JobState.SUCCESS)
    store.rollback()
    store.close()
    for call in ("create", "terminate"):
        provider.open[call].set()
    await worker.start()

    submitted, unseen = await submitting, await creating_unseen
    for job in (submitted, unseen):
        await jobs.report(job, JobState.RUNNING)
    await jobs.reached(queued, JobState.RUNNING)
    for job in (queued, submitted, unseen, cancelled):
        await jobs.report(job, JobState.SUCCESS)
    ended = [
        await jobs.client.wait(job.id)
        for job in (queued, running, cancelled, settled, submitted, unseen)
    ]
    for job in ended:
        is_repeated = job.id in {submitted_id, cancelled.id}
        await jobs.check_end(job, job.id == cancelled.id, is_repeated)
    engine = connect(f"sqlite+aiosqlite:///{worker.database}")
    archived = [await Archive(engine).retrieve(job.id) for job in ended]
    await engine.dispose()
    assert archived == [as_stored(job) for job in ended]

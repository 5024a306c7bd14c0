"""Stop, add and remove real worker processes; the fault of one job does not affect others."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from client import Actor, JobClient, ProviderClient
from tests.builders import product, specification, text
from tests.conftest import TEST_CATALOG
from tests.end_to_end.worker_process import WorkerProcess, prepare, serving
from tests.fake_provider import FakeProvider
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobSpecification, JobState, JobUpdate
from ucloud_orchestrator.temporal.names import TASK_QUEUE, WORKFLOW

pytestmark = pytest.mark.long

LONG, SHORT = 20.0, 1.0
"""Seconds for calls to finish after SIGTERM; the long one is the default."""
MARGIN = 3.0
"""Seconds after that timeout at which the process ends anyway."""
CALLS = 4
"""The maximum of concurrent calls to the provider `local`."""
SLACK = 5.0
"""Seconds for the rest, on a busy machine."""


def specification_for(provider: str = "local") -> JobSpecification:
    reference = product(provider=provider) | ({} if provider == "local" else {"id": "cpu-2"})
    parameters = {"text": text("hello")}
    return specification("echo", product=reference, parameters=parameters, allowDuplicateJob=True)


class Life:
    """A worker process, a fake provider, and clients of both."""

    def __init__(self, temporal: Client, provider: FakeProvider, folder: Path) -> None:
        self.temporal, self.provider, self.folder = temporal, provider, folder
        self.jobs, self.reports = (
            JobClient(temporal, Actor(username="alice")),
            ProviderClient(temporal, "local"),
        )
        self.worker = self.new_worker(LONG)

    def new_worker(self, timeout: float) -> WorkerProcess:
        addresses = dict.fromkeys(("local", "second"), self.provider.url)
        host = self.temporal.service_client.config.target_host
        more = {"UCLOUD_STOP_TIMEOUT": str(timeout), "UCLOUD_CATALOG": str(self.folder / "catalog")}
        return WorkerProcess(self.folder, host, addresses, **more)

    async def serve(self, timeout: float) -> None:
        """Start a worker with that timeout."""
        if self.worker.is_running and self.worker.settings["UCLOUD_STOP_TIMEOUT"] != str(timeout):
            await self.worker.terminate()
        if not self.worker.is_running:
            self.worker = self.new_worker(timeout)
            await self.worker.start()

    async def report(self, job_id: str, state: JobState) -> None:
        await self.reports.update(job_id, [JobUpdate(state=state, status=f"It is {state}.")])

    async def reached(self, job_id: str, state: JobState) -> None:
        async def there() -> bool:
            return (await self.jobs.retrieve(job_id)).status.state is state

        await eventually(there)

    async def running(self) -> str:
        job = await self.jobs.create(specification_for())
        await self.report(job.id, JobState.RUNNING)
        await self.reached(job.id, JobState.RUNNING)
        return job.id

    async def submitting(self) -> tuple[str, asyncio.Task[Job]]:
        """Create a job whose `create` the provider does not answer."""
        job_id, creating = self.create()
        await eventually(lambda: "create" in self.provider.calls_for(job_id))
        return job_id, creating

    async def cancelling(self) -> str:
        """Cancel a job whose `terminate` the provider does not answer."""
        job_id = await self.running()
        await self.jobs.cancel(job_id)
        await eventually(lambda: "terminate" in self.provider.calls_for(job_id))
        return job_id

    def create(self) -> tuple[str, asyncio.Task[Job]]:
        job_id = self.jobs.new_job_id()
        return job_id, asyncio.create_task(self.jobs.create(specification_for(), job_id))

    async def history(self, job_id: str) -> list[HistoryEvent]:
        return list((await self.temporal.get_workflow_handle(job_id).fetch_history()).events)

    async def has(self, kind: EventType.ValueType, job_id: str) -> bool:
        """Return whether the job's history has such an event."""
        return kind in [event.event_type for event in await self.history(job_id)]

    async def identities(self, job_id: str) -> set[str]:
        """Return the workers that have processed the job."""
        done = [
            event.workflow_task_completed_event_attributes for event in await self.history(job_id)
        ]
        return {event.identity for event in done if event.identity}

    async def end(self, job_id: str) -> list[JobState]:
        """Report the job's success, and return its states."""
        await self.report(job_id, JobState.SUCCESS)
        return self.states(await self.jobs.wait(job_id))

    def states(self, job: Job) -> list[JobState]:
        return [update.state for update in job.updates if update.state is not None]


@pytest.fixture(scope="module")
async def life(
    environment: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Life]:
    folder = tmp_path_factory.mktemp("graceful")
    await prepare(folder)
    shutil.copytree(TEST_CATALOG, folder / "catalog")
    file = folder / "catalog" / "catalog.yaml"
    limited = f"id: local\nlimits: {{maximumConcurrentCalls: {CALLS}}}\n"
    file.write_text(file.read_text().replace("id: local\n", limited, 1))
    provider = FakeProvider()
    await provider.listen()
    lived = Life(environment.client, provider, folder)
    yield lived
    await lived.worker.kill()
    await provider.close()


QUEUED_TO_END = [JobState.IN_QUEUE, JobState.RUNNING, JobState.SUCCESS]
CANCELLED = [JobState.IN_QUEUE, JobState.RUNNING, JobState.CANCELING, JobState.SUCCESS]


async def test_a_stopping_worker_finishes_its_calls(life: Life) -> None:
    await life.serve(LONG)
    running = await life.running()
    life.provider.open["terminate"].clear()
    cancelled = await life.cancelling()
    life.provider.open["create"].clear()
    submitted, creating = await life.submitting()
    said = life.worker.log.read_text().count("Beginning worker shutdown")
    stopping = asyncio.create_task(life.worker.terminate())
    await eventually(
        lambda: life.worker.log.read_text().count("Beginning worker shutdown") == said + 3
    )
    for call in ("create", "terminate"):
        life.provider.open[call].set()
    assert await stopping < SLACK
    await life.serve(SHORT)
    await creating
    await life.report(submitted, JobState.RUNNING)
    assert await life.end(submitted) == await life.end(running) == QUEUED_TO_END
    assert await life.end(cancelled) == CANCELLED
    assert life.provider.calls_for(running) == life.provider.calls_for(submitted) == ["create"]
    assert life.provider.calls_for(cancelled) == ["create", "terminate"]


@pytest.mark.timeout(180)
async def test_the_next_worker_repeats_unfinished_calls(life: Life) -> None:
    await life.serve(SHORT)
    settled = await life.running()
    life.provider.open["terminate"].clear()
    cancelled = await life.cancelling()
    life.provider.open["create"].clear()
    submitted, creating = await life.submitting()
    store = sqlite3.connect(life.worker.database, isolation_level=None)
    store.execute("BEGIN IMMEDIATE")  # nothing can be admitted and nothing settled now
    admitted, being_admitted = life.create()
    await life.report(settled, JobState.SUCCESS)
    await life.reached(settled, JobState.SUCCESS)
    await eventually(lambda: life.has(EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED, admitted))
    assert SHORT < await life.worker.terminate() < SHORT + MARGIN + SLACK
    store.rollback()
    store.close()
    for call in ("create", "terminate"):
        life.provider.open[call].set()
    await life.serve(SHORT)
    for job_id, waiting in ((submitted, creating), (admitted, being_admitted)):
        await waiting
        await life.report(job_id, JobState.RUNNING)
        assert await life.end(job_id) == QUEUED_TO_END
    assert await life.end(cancelled) == CANCELLED
    assert life.states(await life.jobs.wait(settled)) == QUEUED_TO_END
    assert life.provider.calls_for(admitted) == life.provider.calls_for(settled) == ["create"]
    assert (
        life.provider.calls_for(submitted) == ["create"] * 2
    )  # of the same id: its provider starts it once
    assert life.provider.calls_for(cancelled) == ["create", "terminate", "terminate"]


@pytest.mark.timeout(180)
async def test_workers_share_the_load(life: Life) -> None:
    await life.serve(LONG)
    first, second, third = life.worker, life.new_worker(LONG), life.new_worker(LONG)
    lived: list[str] = []

    async def live() -> None:
        job_id = await life.running()
        assert await life.end(job_id) == QUEUED_TO_END
        lived.append(job_id)

    async def both_work(*workers: WorkerProcess) -> bool:
        """Return whether exactly these workers process new jobs."""
        before = len(lived)
        await asyncio.gather(*(live() for _ in range(6)))
        identities = set().union(*[await life.identities(job_id) for job_id in lived[before:]])
        return {int(identity.partition("@")[0]) for identity in identities} == {
            one.process.pid for one in workers
        }

    async with serving(second):
        await eventually(lambda: both_work(first, second))
        meanwhile = [asyncio.create_task(live()) for _ in range(15)]
        already = len(lived)
        await eventually(lambda: len(lived) > already)
        async with serving(third):
            await first.terminate()
            await asyncio.gather(*meanwhile)
            await eventually(lambda: both_work(second, third))
    for job_id in lived:
        assert life.provider.calls_for(job_id) == ["create"]


async def test_a_hanging_or_failing_provider_delays_no_other(life: Life) -> None:
    await life.serve(SHORT)
    life.provider.requests.clear()
    life.provider.open["create"].clear()
    hanging = [life.create() for _ in range(CALLS + 2)]
    await eventually(lambda: life.provider.requests.count("create") == CALLS)

    async def create_elsewhere() -> None:
        await asyncio.gather(*(life.jobs.create(specification_for("second")) for _ in range(3)))

    await asyncio.wait_for(create_elsewhere(), 20)
    life.provider.answers["create"] = [500] * 10_000
    life.provider.open["create"].set()
    await eventually(lambda: life.provider.requests.count("create") > CALLS + 2)
    await asyncio.wait_for(create_elsewhere(), 20)
    life.provider.answers["create"].clear()
    assert len(await asyncio.gather(*(creating for _, creating in hanging))) == CALLS + 2


async def test_an_undecodable_workflow_delays_no_other(life: Life) -> None:
    await life.serve(SHORT)
    poisonous = [life.jobs.new_job_id() for _ in range(10)]
    for job_id in poisonous:
        await life.temporal.start_workflow(
            WORKFLOW, "This is not a job.", id=job_id, task_queue=TASK_QUEUE
        )

    for job_id in poisonous:
        await eventually(
            lambda job_id=job_id: life.has(EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED, job_id)
        )  # type: ignore[misc]
    began = time.monotonic()
    jobs = await asyncio.gather(*(life.running() for _ in range(3)))
    for job_id in jobs:
        assert await life.end(job_id) == QUEUED_TO_END
    assert time.monotonic() - began < 20
    assert await life.worker.terminate() < SLACK
    for job_id in poisonous:
        await life.temporal.get_workflow_handle(job_id).terminate()

"""An upgrade and a way back on running jobs, with real worker processes of two releases."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.testing import WorkflowEnvironment

from client import Actor, JobClient, ProviderClient
from tests import next_release
from tests.end_to_end.test_killed_worker import SPECIFICATION
from tests.end_to_end.worker_process import ROOT, WorkerProcess, prepare, serving
from tests.fake_provider import FakeProvider
from tests.waiting import eventually
from tests.workflows.test_versioning import THIS_RELEASE, begun
from ucloud_orchestrator.models import JobState, JobUpdate, SimpleDuration

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

OPERATORS = ROOT / "docs" / "operators"
NEW_TABLES = """
ALTER TABLE finished_jobs ADD COLUMN of_the_next_release TEXT;
UPDATE alembic_version SET version_num = 'next';
"""
"""What the migrations of a later release do; this release has none of them."""
ENDED = [JobState.IN_QUEUE, JobState.RUNNING, JobState.SUCCESS]


class Releases:
    """This release and the next, on one Temporal, one store and one provider."""

    def __init__(
        self, environment: WorkflowEnvironment, provider: FakeProvider, folder: Path
    ) -> None:
        self.temporal, self.provider, self._folder = environment.client, provider, folder
        self.jobs = JobClient(self.temporal, Actor(username="alice"))
        self.reports = ProviderClient(self.temporal, "local")

    def this(self) -> WorkerProcess:
        """Return a worker of this release."""
        return self._worker("worker")

    def next(self, **settings: str) -> WorkerProcess:
        """Return a worker of the next release."""
        return self._worker("tests.next_release", **settings)

    def _worker(self, module: str, **settings: str) -> WorkerProcess:
        host = self.temporal.service_client.config.target_host
        return WorkerProcess(self._folder, host, {"local": self.provider.url}, module, **settings)

    async def running(self) -> str:
        job = await self.jobs.create(SPECIFICATION)
        await self.reports.update(job.id, [JobUpdate(state=JobState.RUNNING)])
        return job.id

    async def extend(self, job_ids: list[str]) -> None:
        await asyncio.gather(
            *(self.jobs.extend(job_id, SimpleDuration(hours=1)) for job_id in job_ids)
        )

    async def end(self, job_ids: list[str]) -> None:
        """End the jobs; each has had all its states and one start."""
        for job_id in job_ids:
            await self.reports.update(job_id, [JobUpdate(state=JobState.SUCCESS)])
        for job_id in job_ids:
            job = await self.jobs.wait(job_id)
            assert [update.state for update in job.updates] == ENDED
            assert self.provider.calls_for(job_id).count("create") == 1

    async def history(self, job_id: str) -> list[HistoryEvent]:
        return list((await self.temporal.get_workflow_handle(job_id).fetch_history()).events)

    async def pids(self, job_id: str) -> set[int]:
        """Return the processes that have worked on the job."""
        done = [
            event.workflow_task_completed_event_attributes.identity
            for event in await self.history(job_id)
        ]
        return {int(identity.partition("@")[0]) for identity in done if identity}

    async def patches(self, job_id: str) -> list[str]:
        return begun(await self.temporal.get_workflow_handle(job_id).fetch_history())

    async def failures(self, job_id: str) -> list[str]:
        """Return the messages of the job's failed workflow tasks."""
        failed = [event for event in await self.history(job_id) if event.event_type == FAILED]
        return [event.workflow_task_failed_event_attributes.failure.message for event in failed]


FAILED = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED


@pytest.fixture
async def releases(
    environment: WorkflowEnvironment, provider: FakeProvider, tmp_path: Path
) -> Releases:
    await prepare(tmp_path)
    return Releases(environment, provider, tmp_path)


async def test_two_releases_side_by_side_and_a_way_back(releases: Releases) -> None:
    async with serving(releases.this()) as this:
        jobs = [await releases.running() for _ in range(3)]
        with closing(sqlite3.connect(this.database)) as store:
            store.executescript(NEW_TABLES)
        async with serving(releases.next(UCLOUD_COMPATIBLE_WITH=THIS_RELEASE)) as beside:
            await this.terminate()
            await releases.extend(jobs)  # the next release goes on with the jobs of this one
            for job_id in jobs:
                assert await releases.pids(job_id) == {this.process.pid, beside.process.pid}
            await this.start()  # on the tables of the next release

            async def both_begin_jobs() -> bool:
                new = await asyncio.gather(*(releases.running() for _ in range(5)))
                jobs.extend(new)
                return set().union(*[await releases.pids(job_id) for job_id in new]) == {
                    this.process.pid,
                    beside.process.pid,
                }

            await eventually(both_begin_jobs)
            await releases.extend(jobs)
            await beside.terminate()
        await releases.extend(jobs)  # back: this release goes on with the jobs of the next one
        await releases.end(jobs[::2])
        await this.terminate()
    async with serving(releases.next()):
        after = await releases.running()
        await releases.extend([*jobs[1::2], after])
        await releases.end([*jobs[1::2], after])
    for job_id in [*jobs, after]:
        assert await releases.failures(job_id) == []
        assert (next_release.PATCH in await releases.patches(job_id)) is (job_id == after)
    with closing(sqlite3.connect(this.database)) as store:
        assert store.execute("SELECT count(*) FROM finished_jobs").fetchone() == (len(jobs) + 1,)
        assert store.execute("SELECT count(*) FROM live_jobs").fetchone() == (0,)


async def test_a_stuck_job_is_found_and_continues_under_code_that_can_replay_it(
    releases: Releases,
) -> None:
    async with serving(releases.next()):
        begun_job = await releases.running()
        await releases.extend([begun_job])
        assert next_release.PATCH in await releases.patches(begun_job)
        await eventually(lambda: is_known_to_a_running_job(releases))
    async with serving(releases.this()):  # which is to go back too far
        other = await releases.running()
        await releases.reports.update(begun_job, [JobUpdate(status="Reported while stuck.")])
        query = re.search(
            r"Stuck,.*?--query \"(.*?)\"\n", (OPERATORS / "README.md").read_text(), re.DOTALL
        )
        assert query is not None

        async def is_found() -> bool:
            return begun_job in [one.id async for one in releases.temporal.list_workflows(query[1])]

        await eventually(is_found, 60)
        assert "Nondeterminism" in (await releases.failures(begun_job))[0]
        await releases.end([other])
    async with serving(releases.next()):
        await releases.reports.update(begun_job, [JobUpdate(state=JobState.SUCCESS)])
        job = await releases.jobs.wait(begun_job)
    assert [update.state for update in job.updates] == [*ENDED[:2], None, ENDED[2]]
    assert job.updates[2].status == "Reported while stuck."
    assert not await is_found()


async def is_known_to_a_running_job(releases: Releases) -> bool:
    """Ask as `docs/operators/upgrades.md` does before a patch is dropped."""
    page = (OPERATORS / "upgrades.md").read_text()
    query = re.search(r"--query \"(.*TemporalChangeVersion = ')what-it-brings'\"\n", page)
    assert query is not None
    asked = f"{query[1]}{next_release.PATCH}'"
    return (await releases.temporal.count_workflows(asked)).count > 0

"""Two releases, as real processes, on the same jobs: forward, side by side, back, and forward
again.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.testing import WorkflowEnvironment

from client import Actor, JobClient, ProviderClient
from tests import next_release
from tests.end_to_end.test_killed_worker import SPECIFICATION
from tests.end_to_end.worker_process import WorkerProcess, prepare, serving
from tests.fake_provider import FakeProvider
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState, JobUpdate, SimpleDuration
from workflows import versioning

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

PAGE, UPGRADES = (
    (next_release.ROOT / "docs" / "operators" / name).read_text()
    for name in ("README.md", "upgrades.md")
)
ENDED = [JobState.IN_QUEUE, JobState.RUNNING, JobState.SUCCESS]


class Releases:
    """This release and the next, on one Temporal, one store and one provider."""

    def __init__(
        self, environment: WorkflowEnvironment, provider: FakeProvider, folder: Path
    ) -> None:
        self.temporal, self.provider, self._folder = environment.client, provider, folder
        self.jobs = JobClient(self.temporal, Actor(username="alice"))
        self.reports = ProviderClient(self.temporal, "local")
        self._next = next_release.copy(folder / "next")

    def this(self) -> WorkerProcess:
        """A worker of this release."""
        return self._worker(next_release.ROOT)

    def next(self, **settings: str) -> WorkerProcess:
        """A worker of the next one."""
        return self._worker(self._next, **settings)

    def _worker(self, source: Path, **settings: str) -> WorkerProcess:
        host = self.temporal.service_client.config.target_host
        return WorkerProcess(self._folder, host, {"local": self.provider.url}, source, **settings)

    async def running(self) -> str:
        job = await self.jobs.create(SPECIFICATION)
        await self.reports.update(job.id, [JobUpdate(state=JobState.RUNNING)])
        return job.id

    async def extend(self, job_ids: list[str]) -> None:
        await asyncio.gather(
            *(self.jobs.extend(job_id, SimpleDuration(hours=1)) for job_id in job_ids)
        )

    async def end(self, job_ids: list[str]) -> None:
        """Let them end: each has had all its states, its hours, and one start."""
        for job_id in job_ids:
            await self.reports.update(job_id, [JobUpdate(state=JobState.SUCCESS)])
        for job_id in job_ids:
            job = await self.jobs.wait(job_id)
            assert [update.state for update in job.updates] == ENDED
            assert self.provider.calls_for(job_id).count("create") == 1

    async def history(self, job_id: str) -> list[HistoryEvent]:
        return list((await self.temporal.get_workflow_handle(job_id).fetch_history()).events)

    async def pids(self, job_id: str) -> set[int]:
        """The processes that have worked on a job."""
        done = [
            event.workflow_task_completed_event_attributes.identity
            for event in await self.history(job_id)
        ]
        return {int(identity.partition("@")[0]) for identity in done if identity}

    async def patches(self, job_id: str) -> list[str]:
        markers = [event.marker_recorded_event_attributes for event in await self.history(job_id)]
        return [
            json.loads(marker.details["patch-data"].payloads[0].data)["id"]
            for marker in markers
            if marker.marker_name == "core_patch"
        ]

    async def failures(self, job_id: str) -> list[str]:
        """What the job's tasks failed with."""
        failed = [event for event in await self.history(job_id) if event.event_type == FAILED]
        return [event.workflow_task_failed_event_attributes.failure.message for event in failed]


FAILED = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED


@pytest.fixture
async def releases(
    environment: WorkflowEnvironment, provider: FakeProvider, tmp_path: Path
) -> Releases:
    await prepare(tmp_path)
    return Releases(environment, provider, tmp_path)


@pytest.mark.timeout(180)
async def test_two_releases_side_by_side_and_a_roll_back_in_the_middle(releases: Releases) -> None:
    async with serving(releases.this()) as this:
        jobs = [await releases.running() for _ in range(3)]
        beside = releases.next(UCLOUD_COMPATIBLE_WITH=versioning.RELEASE)
        await beside.setup()  # its tables come while this release works
        async with serving(beside):
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
        await releases.extend(
            jobs
        )  # rolled back: this release goes on with the jobs of the next one
        await releases.end(jobs[::2])
        await this.terminate()
    async with serving(releases.next()):
        after = await releases.running()
        await releases.extend([*jobs[1::2], after])
        await releases.end([*jobs[1::2], after])
    for job_id in [*jobs, after]:
        assert await releases.failures(job_id) == []
        assert (next_release.PATCH in await releases.patches(job_id)) is (job_id == after)
    with sqlite3.connect(this.database) as store:
        assert store.execute("SELECT count(*) FROM finished_jobs").fetchone() == (len(jobs) + 1,)
        assert store.execute("SELECT count(*) FROM live_jobs").fetchone() == (0,)
    store.close()


@pytest.mark.timeout(180)
async def test_a_job_that_this_code_does_not_understand_is_found_and_goes_on_with_code_that_does(
    releases: Releases,
) -> None:
    await releases.next().setup()
    async with serving(releases.next()):
        begun = await releases.running()
        assert next_release.PATCH in await releases.patches(begun)
        await eventually(lambda: is_known_to_a_running_job(releases))
    async with serving(releases.this()):  # which is to go back too far
        other = await releases.running()
        await releases.reports.update(
            begun, [JobUpdate(status="It was said while nobody understood.")]
        )
        query = re.search(r"Stuck,.*?--query \"(.*?)\"\n", PAGE, re.DOTALL)
        assert query is not None

        async def is_found() -> bool:
            return begun in [one.id async for one in releases.temporal.list_workflows(query[1])]

        await eventually(is_found, 60)
        assert "Nondeterminism" in (await releases.failures(begun))[0]
        await releases.end([other])
    async with serving(releases.next()):
        await releases.reports.update(begun, [JobUpdate(state=JobState.SUCCESS)])
        job = await releases.jobs.wait(begun)
    assert [update.state for update in job.updates] == [*ENDED[:2], None, ENDED[2]]
    assert job.updates[2].status == "It was said while nobody understood."
    assert not await is_found()


async def is_known_to_a_running_job(releases: Releases) -> bool:
    """Asks as `docs/operators/upgrades.md` does before a patch is dropped."""
    query = re.search(r"--query \"(.*TemporalChangeVersion = '.*')\"\n", UPGRADES)
    assert query is not None
    asked = re.sub(r"spill-in-pages", next_release.PATCH, query[1])
    return (await releases.temporal.count_workflows(asked)).count > 0


@pytest.mark.parametrize("is_guarded", [True, False], ids=["guarded", "unguarded"])
def test_a_change_that_running_jobs_do_not_understand_fails_the_tests(
    tmp_path: Path, is_guarded: bool
) -> None:
    folder = next_release.copy(tmp_path / "next", is_guarded)
    wanted = f"a_recorded_history and {versioning.RELEASE}"
    options = ["-q", "-k", wanted, "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "pytest")]
    command = [sys.executable, "-m", "pytest", "tests/workflows/test_replay.py", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if is_guarded:
        assert done.returncode == 0, done.stdout
    else:
        assert done.returncode == 1, done.stdout
        assert "[TMPRL1100] Nondeterminism error" in done.stdout

"""Jobs that no workflow owns are stopped, and no others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobState
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.orphans import MINIMUM_AGE, OrphanCollector


class Watched:
    """An orphan collector, and a database with one job."""

    def __init__(self, folder: Path) -> None:
        self.database = JobDatabase(folder / "provider.sqlite")
        self.open_jobs = Reports()
        self.orphans = OrphanCollector(self.database, "local", 900, lambda: None, self.open_jobs)
        self.job = Job.model_validate(shell_job("true"))

    async def is_stopped(self) -> bool:
        record = await self.database.find(self.job.id)
        assert record is not None
        return record.is_stop_requested


@pytest.fixture
async def watched(tmp_path: Path) -> Watched:
    made = Watched(tmp_path)
    await made.database.open()
    await made.database.accept([made.job])
    return made


async def test_a_job_without_an_owner_is_stopped_when_two_checks_agree(watched: Watched) -> None:
    await watched.orphans.check(0)
    await watched.orphans.check(MINIMUM_AGE - 1)
    assert not await watched.is_stopped()
    await watched.orphans.check(MINIMUM_AGE)
    assert await watched.is_stopped()
    assert watched.open_jobs.asked == [watched.job.id] * 3
    await watched.database.close()


async def test_two_checks_must_agree_however_old_the_job_is(watched: Watched) -> None:
    watched.open_jobs.jobs.add(watched.job.id)
    await watched.orphans.check(0)
    watched.open_jobs.closed.add(watched.job.id)
    await watched.orphans.check(1000)
    assert not await watched.is_stopped()
    watched.open_jobs.closed.clear()
    await watched.orphans.check(2000)
    watched.open_jobs.closed.add(watched.job.id)
    await watched.orphans.check(3000)
    assert not await watched.is_stopped()
    await watched.orphans.check(4000)
    assert await watched.is_stopped()
    await watched.database.close()


async def test_a_job_that_the_list_does_not_have_yet_is_left_alone(watched: Watched) -> None:
    watched.open_jobs.jobs.add(watched.job.id)
    watched.open_jobs.unlisted.add(watched.job.id)
    for now in (0, 1000, 2000):
        await watched.orphans.check(now)
    assert not await watched.is_stopped()
    await watched.database.close()


async def test_nothing_is_stopped_without_an_answer(watched: Watched) -> None:
    running = asyncio.create_task(watched.orphans.run())
    await watched.orphans.check(0)
    watched.open_jobs.is_down = True
    with pytest.raises(ConnectionError):
        await watched.orphans.check(1000)
    assert not await watched.is_stopped()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await watched.database.close()


async def test_a_check_of_the_orchestrator_leaves_no_process_without_an_owner(
    provider: Served,
) -> None:
    owned, unowned = shell_job("sleep 600"), shell_job("sleep 600")
    provider.reports.jobs.add(owned["id"])
    await provider.call("", owned, unowned)
    await eventually(lambda: provider.processes_of(owned) and provider.processes_of(unowned))
    assert (await provider.call("retrieveProducts")).status_code == 200
    end = await eventually(lambda: provider.reports.ended(unowned["id"]), 40)
    assert end is not None
    assert end.state is JobState.SUCCESS
    await eventually(lambda: not provider.processes_of(unowned))
    assert provider.processes_of(owned)
    await provider.call("terminate", owned)
    await provider.end_of(owned)

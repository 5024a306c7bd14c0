"""Many jobs at once on one machine: all end, and nothing of them is left in the provider."""

from __future__ import annotations

import asyncio
import gc

import psutil
import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Served
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState

pytestmark = pytest.mark.long

JOBS = 200
MEBIBYTE = 1024 * 1024


async def live_through(provider: Served, count: int) -> None:
    """Start jobs all at once, see each of them end, and see that nothing of them runs or lies
    about.
    """
    jobs = [shell_job("echo $UCLOUD_JOB_ID; sleep 3") for _ in range(count)]
    answers = await asyncio.gather(*(provider.call("", job) for job in jobs))
    assert {answer.status_code for answer in answers} == {200}
    for job in jobs:
        end = await eventually(lambda job=job: provider.reports.ended(job["id"]), 240)
        assert end is not None
        assert (end.state, end.status) == (
            JobState.SUCCESS,
            "The job has finished with exit code 0.",
        )
        assert provider.output(job, "stdout-0.txt") == f"{job['id']}\n"
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if child.status() == psutil.STATUS_ZOMBIE]
    assert not any(provider.processes_of(job) for job in jobs)
    await eventually(lambda: not list((provider.folder / "provider" / "jobs").iterdir()))
    gc.collect()


@pytest.mark.timeout(600)
async def test_two_hundred_jobs_at_once_leave_nothing(provider: Served) -> None:
    own = psutil.Process()
    await live_through(provider, JOBS)
    # What many jobs at once need, such as connections to the database, is kept for the next ones.
    files, memory = own.num_fds(), own.memory_info().rss
    await live_through(provider, JOBS // 2)
    print(
        f"open files {files}, then {own.num_fds()}; growth "
        f"{(own.memory_info().rss - memory) / MEBIBYTE:.1f} MiB"
    )
    assert own.num_fds() < files + 10
    assert own.memory_info().rss < memory + 16 * MEBIBYTE

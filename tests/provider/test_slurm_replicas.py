"""What the control folders of a Slurm job say, beside what Slurm says, without a cluster."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.builders import shell_job
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.provider.executors.replica import Phase
from ucloud_orchestrator.provider.executors.slurm.commands import SlurmJob
from ucloud_orchestrator.provider.executors.slurm.executor import SlurmExecutor
from ucloud_orchestrator.provider.executors.slurm.queue import SlurmQueue
from ucloud_orchestrator.provider.settings import SlurmOptions


@pytest.fixture
def job() -> Job:
    return Job.model_validate(shell_job("sleep 300"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a job whose first attempt was ended by SIGTERM."""
    for name in ("begun", "replica-0/started"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "begun" / "slurm-job").write_text("7")
    (tmp_path / "begun" / "restarts").write_text("0")
    (tmp_path / "replica-0" / "exit-code").write_text("143")
    return tmp_path


def executor(job: Job, folder: Path, state: str, restarts: int) -> SlurmExecutor:
    queue = SlurmQueue(interval=1)
    queue.jobs = {7: SlurmJob(7, state, "main", 1, "None", f"ucloud-{job.id}", restarts)}
    queue.looked_at = time.monotonic()
    return SlurmExecutor(SlurmOptions(), lambda _: folder, queue)


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", "PENDING"])
async def test_what_an_attempt_left_is_no_news_of_the_next_one(
    job: Job, folder: Path, state: str
) -> None:
    standing = executor(job, folder, state, restarts=1).standing(job)
    assert [condition.phase for condition in standing.conditions] == [Phase.NOT_STARTED]
    assert standing.waits_again
    assert not standing.is_settled


async def test_the_exit_code_of_the_same_attempt_counts(job: Job, folder: Path) -> None:
    standing = executor(job, folder, "COMPLETED", restarts=0).standing(job)
    assert [condition.exit_code for condition in standing.conditions] == [143]
    assert standing.is_settled

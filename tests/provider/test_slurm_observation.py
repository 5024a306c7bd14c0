"""How control directories and Slurm's queue become an observation, without a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import shell_job
from ucloud_orchestrator.models.job import Job, JobState
from ucloud_orchestrator.provider.errors import ExecutorError, TransientExecutorError
from ucloud_orchestrator.provider.executors.base import JobObservation
from ucloud_orchestrator.provider.executors.replica import ReplicaPhase, ReplicaStatus
from ucloud_orchestrator.provider.executors.slurm import commands
from ucloud_orchestrator.provider.executors.slurm.commands import SlurmJob
from ucloud_orchestrator.provider.executors.slurm.executor import SlurmExecutor
from ucloud_orchestrator.provider.executors.slurm.observation import (
    FILE_TIMEOUT,
    ControlFiles,
    QueueView,
    interpret,
)
from ucloud_orchestrator.provider.executors.slurm.queue import SlurmQueue
from ucloud_orchestrator.provider.settings import SlurmOptions

NOT_STARTED = ReplicaStatus(ReplicaPhase.NOT_STARTED)
RUNNING = ReplicaStatus(ReplicaPhase.RUNNING)
POLLED = QueueView(is_polled_since_submission=True, seconds_since_end=FILE_TIMEOUT + 1)


def ended(exit_code: int) -> ReplicaStatus:
    return ReplicaStatus(ReplicaPhase.ENDED, exit_code, 1.0)


def slurm_job(state: str, restarts: int = 0, slurm_job_id: int = 7) -> SlurmJob:
    return SlurmJob(slurm_job_id, state, "main", 1, "None", "ucloud-1", restarts)


def begun(*replicas: ReplicaStatus, restarts: int = 0) -> ControlFiles:
    """The files of a job that a Slurm job has begun to run."""
    return ControlFiles(replicas, True, 7, restarts, is_submitted=True)


def phases(observation: JobObservation) -> Sequence[ReplicaPhase]:
    return [replica.phase for replica in observation.replicas]


def test_a_job_is_not_submitted_before_the_queue_was_polled() -> None:
    unknown = interpret(ControlFiles([NOT_STARTED]), QueueView())
    assert (unknown.is_settled, unknown.is_submitted) == (False, False)
    known = interpret(ControlFiles([NOT_STARTED]), POLLED)
    assert (known.is_settled, known.is_submitted) == (True, False)


def test_a_lost_answer_of_sbatch_is_unknown_until_its_timeout() -> None:
    observation = interpret(ControlFiles([NOT_STARTED], is_submitting=True), POLLED)
    assert (observation.is_settled, observation.is_submitted) == (False, False)


def test_a_controller_that_does_not_answer_is_the_reason_for_waiting() -> None:
    observation = interpret(ControlFiles([NOT_STARTED]), QueueView(complaint="It is down."))
    assert observation.waiting_text == "Your job waits to be submitted. It is down."


@pytest.mark.parametrize("state", ["PENDING", "CONFIGURING"])
def test_a_job_in_the_queue_waits(state: str) -> None:
    files = ControlFiles([NOT_STARTED], is_submitted=True)
    queue = replace(POLLED, slurm_job=slurm_job(state), waiting_text="position 1")
    observation = interpret(files, queue)
    assert (observation.is_queued, observation.is_settled) == (True, False)
    assert observation.waiting_text == "position 1"


def test_a_poll_of_before_the_begin_is_not_a_requeue() -> None:
    queue = replace(POLLED, slurm_job=slurm_job("PENDING"), is_polled_since_begin=False)
    observation = interpret(begun(RUNNING), queue)
    assert (observation.is_queued, phases(observation)) == (False, [ReplicaPhase.RUNNING])


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", "PENDING"])
def test_the_files_of_an_earlier_attempt_do_not_count(state: str) -> None:
    observation = interpret(begun(ended(143)), replace(POLLED, slurm_job=slurm_job(state, 1)))
    assert phases(observation) == [ReplicaPhase.NOT_STARTED]
    assert (observation.is_queued, observation.is_settled) == (True, False)


def test_the_exit_code_of_the_same_attempt_counts() -> None:
    observation = interpret(begun(ended(143)), replace(POLLED, slurm_job=slurm_job("COMPLETED")))
    assert [replica.exit_code for replica in observation.replicas] == [143]
    assert observation.is_settled


def test_exit_codes_of_a_live_slurm_job_are_not_the_end() -> None:
    observation = interpret(begun(ended(0)), replace(POLLED, slurm_job=slurm_job("COMPLETING")))
    assert not observation.is_settled


def test_an_exit_code_may_come_later_than_the_end_of_the_slurm_job() -> None:
    queue = replace(POLLED, slurm_job=slurm_job("COMPLETED"), seconds_since_end=FILE_TIMEOUT / 2)
    assert not interpret(begun(RUNNING), queue).is_settled


@pytest.mark.parametrize("was_stopped", [False, True])
def test_a_rank_without_an_exit_code_vanished_unless_it_was_stopped(was_stopped: bool) -> None:
    observation = interpret(replace(begun(RUNNING), was_stopped=was_stopped), POLLED)
    assert phases(observation) == [ReplicaPhase.ENDED if was_stopped else ReplicaPhase.VANISHED]


def test_a_rank_that_another_one_ended_has_not_vanished() -> None:
    observation = interpret(
        begun(ended(3), RUNNING), replace(POLLED, slurm_job=slurm_job("FAILED"))
    )
    assert phases(observation) == [ReplicaPhase.ENDED] * 2
    assert observation.end is None


@pytest.mark.parametrize(
    ("state", "replica", "end"),
    [
        ("TIMEOUT", ended(143), JobState.EXPIRED),
        ("OUT_OF_MEMORY", ended(137), JobState.SUCCESS),
        ("NODE_FAIL", RUNNING, JobState.FAILURE),
        ("CANCELLED", ended(143), JobState.FAILURE),
        # A fault of the scheduler after an end of its own.
        ("CANCELLED", ended(5), None),
        ("CANCELLED", ended(0), None),
    ],
)
def test_slurms_end_explains_what_exit_codes_do_not(
    state: str, replica: ReplicaStatus, end: JobState | None
) -> None:
    queue = replace(POLLED, last_seen=slurm_job(state))
    observation = interpret(begun(replica), queue)
    assert (observation.end and observation.end.state) == end


def test_a_cancel_of_the_provider_is_not_an_administrators() -> None:
    files = replace(begun(ended(143)), was_stopped=True)
    assert interpret(files, replace(POLLED, last_seen=slurm_job("CANCELLED"))).end is None


def test_a_rank_that_could_not_be_started_is_the_end() -> None:
    files = replace(begun(NOT_STARTED), failure="The peer x is gone.")
    observation = interpret(files, replace(POLLED, seconds_since_end=0.0))
    assert observation.end is not None
    assert (observation.end.state, observation.end.status) == (JobState.FAILURE, files.failure)


def test_a_job_that_was_stopped_in_the_queue_never_began() -> None:
    files = ControlFiles([NOT_STARTED], is_submitted=True, was_stopped=True)
    observation = interpret(files, replace(POLLED, slurm_job=slurm_job("CANCELLED")))
    assert phases(observation) == [ReplicaPhase.NOT_STARTED]
    assert observation.is_settled


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a job whose first attempt was ended by SIGTERM."""
    for name in ("begun", "replica-0/started"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "begun" / "slurm-job").write_text("7")
    (tmp_path / "begun" / "restarts").write_text("0")
    (tmp_path / "replica-0" / "exit-code").write_text("143")
    return tmp_path


async def test_the_executor_reads_control_directories_and_the_queue(directory: Path) -> None:
    job = Job.model_validate(shell_job("sleep 300"))
    queue = SlurmQueue(interval=1)
    queue.jobs = {7: SlurmJob(7, "PENDING", "main", 1, "None", f"ucloud-{job.id}", 1)}
    queue.polled_at = time.monotonic()
    executor = SlurmExecutor(SlurmOptions(), lambda _: directory, queue)
    assert executor.observe(job).is_queued
    queue.jobs = {7: SlurmJob(7, "COMPLETED", "main", 1, "None", f"ucloud-{job.id}", 0)}
    observation = executor.observe(job)
    assert [replica.exit_code for replica in observation.replicas] == [143]
    assert observation.is_settled


async def test_a_job_seen_in_the_queue_is_never_submitted_again(tmp_path: Path) -> None:
    job = Job.model_validate(shell_job("sleep 300"))
    queue = SlurmQueue(interval=1)
    queue.jobs = {7: SlurmJob(7, "RUNNING", "main", 1, "None", f"ucloud-{job.id}")}
    queue.polled_at = time.monotonic()
    executor = SlurmExecutor(SlurmOptions(), lambda _: tmp_path, queue)
    assert executor.observe(job).is_submitted
    queue.jobs = {}
    assert executor.observe(job).is_submitted
    assert SlurmExecutor(SlurmOptions(), lambda _: tmp_path, queue).observe(job).is_submitted


@pytest.mark.parametrize(
    ("error", "is_cancelled"), [(TransientExecutorError, False), (ExecutorError, True)]
)
async def test_a_suspended_job_is_cancelled_after_slurm_answered_its_resume(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[ExecutorError],
    is_cancelled: bool,
) -> None:
    run: list[str] = []

    async def fake_run(*command: str) -> str:
        run.append(command[0])
        if command[0] == "scontrol":
            raise error("No resume.")
        return ""

    monkeypatch.setattr(commands, "run", fake_run)
    job = Job.model_validate(shell_job("sleep 300"))
    queue = SlurmQueue(interval=3600)
    queue.jobs = {7: SlurmJob(7, "SUSPENDED", "main", 1, "None", f"ucloud-{job.id}")}
    executor = SlurmExecutor(SlurmOptions(), lambda _: directory, queue)
    monkeypatch.setattr(queue, "refresh", lambda at_once=False: None)
    await executor.stop(job)
    queue.polled_at = time.monotonic()
    await executor.stop(job)
    assert run == (["scontrol", "scancel"] if is_cancelled else ["scontrol"])

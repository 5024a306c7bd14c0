"""What the runner asks of those who run replicas: an executor, in PSI/J's word, for each kind of
machine.

The runner decides what shall be; executors act, and say how things stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ucloud_orchestrator.models.job import Job, JobUpdate
from ucloud_orchestrator.provider.executors.replica import ReplicaStatus
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget


@dataclass(frozen=True)
class ReplicaStart:
    """What is to run as the replica of a rank: what the starter opens and becomes, and where its
    output goes.
    """

    rank: int
    command: Sequence[str]
    ucloud: Path
    stdout: Path
    stderr: Path


@dataclass(frozen=True)
class JobObservation:
    """How a job's replicas stand.

    `is_settled` says that nothing more will start or change, `waits_again` that a job which ran is
    back in the queue. `waiting_text` is what its user should hear while it waits; `end` is how a
    scheduler says that it ended, where that is more than the exit codes tell.
    """

    conditions: Sequence[ReplicaStatus]
    is_settled: bool
    waits_again: bool = False
    waiting_text: str | None = None
    end: JobUpdate | None = None


class Executor(Protocol):
    """Starts, watches, holds, stops and enters the replicas of jobs.

    Every method may be repeated after a crash.
    """

    assigns_hosts: bool
    """Whether it writes the replicas' `node-<rank>.txt` itself, because hosts are known only when
    they start.
    """

    maximum_replicas: int | None
    """How many replicas a job may have; None if that is the scheduler's to say."""

    prefix: Sequence[str]
    """What the program's command line begins with, inside its sandbox."""

    def tell(self, news: Callable[[], None]) -> None:
        """Call `news`, from any thread, whenever something may have changed."""

    async def look(self, jobs: Sequence[Job]) -> None:
        """Ask once how all these jobs stand; what cannot be learned now stays as it was."""

    def standing(self, job: Job) -> JobObservation:
        """How the job's replicas stand, as far as is known."""

    def is_started(self, job: Job) -> bool | None:
        """Whether nothing is left to be started; None while a start is under way, or that cannot be
        known yet.

        Raises `TransientExecutorError`.
        """

    async def start(self, job: Job, work: Path, replicas: Sequence[ReplicaStart]) -> None:
        """Start these replicas, where `was_started` says False.

        Raises `TransientExecutorError` or `ExecutorError`.
        """

    async def stop(self, job: Job) -> None:
        """Ask all replicas to end, and kill those that do not; to be called until they have
        ended.
        """

    async def suspend(self, job: Job) -> None:
        """Hold all replicas. Raises `TransientExecutorError` or `ExecutorError`."""

    async def unsuspend(self, job: Job) -> None:
        """Let all replicas go on. Raises `TransientExecutorError` or `ExecutorError`."""

    async def extend(self, job: Job) -> None:
        """Let the job run for its (new) time allocation.

        Raises `TransientExecutorError` or `ExecutorError`.
        """

    def forget(self, job_id: str) -> None:
        """The job has ended."""

    def exec_target(self, job: Job, rank: int) -> ExecTarget | None:
        """How a program comes into a running replica; None if it does not run, or there is no such
        rank.
        """

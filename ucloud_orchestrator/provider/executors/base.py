"""The interface of executors: each runs replicas on one kind of machine.

The reconciler decides; executors observe and act.
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
    """The command of a rank, as arguments of the launcher, and the files of its output."""

    rank: int
    command: Sequence[str]
    ucloud: Path
    stdout: Path
    stderr: Path


@dataclass(frozen=True)
class JobObservation:
    replicas: Sequence[ReplicaStatus]
    """By rank."""
    is_settled: bool
    """No replica begins any more unless the reconciler starts it. Those that run may still end."""
    is_submitted: bool
    """Nothing is left to be started. False also where that is unknown and not settled."""
    is_queued: bool = False
    """Whether the job waits in the scheduler's queue, for the first time or again."""
    waiting_text: str | None = None
    """Why the job waits, for its user."""
    end: JobUpdate | None = None
    """The end that a scheduler reports, where exit codes alone do not explain it."""


class Executor(Protocol):
    """Observes and controls the replicas of jobs. Every method is idempotent."""

    assigns_hosts: bool
    """Whether it writes `node-<rank>.txt` itself: a scheduler chooses hosts at the start."""

    maximum_replicas: int | None
    """Replicas of one job; None if the scheduler limits them."""

    prefix: Sequence[str]
    """Words before the program, inside its sandbox."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback`, from any thread, when an observation may have changed."""

    async def poll(self, jobs: Sequence[Job]) -> None:
        """Poll the state of these jobs once; without an answer the last one stays."""

    def observe(self, job: Job) -> JobObservation:
        """Return the last known state of the job."""

    async def start(self, job: Job, work: Path, replicas: Sequence[ReplicaStart]) -> None:
        """Start these replicas of a job that is not submitted.

        Raises `TransientExecutorError` or `ExecutorError`.
        """

    async def stop(self, job: Job) -> None:
        """Ask all replicas to end, and kill those that do not; to be repeated until they end."""

    async def suspend(self, job: Job) -> None:
        """Suspend all replicas. Raises `TransientExecutorError` or `ExecutorError`."""

    async def unsuspend(self, job: Job) -> None:
        """Resume all replicas. Raises `TransientExecutorError` or `ExecutorError`."""

    async def extend(self, job: Job) -> None:
        """Apply the job's (new) time allocation.

        Raises `TransientExecutorError` or `ExecutorError`.
        """

    def forget(self, job_id: str) -> None:
        """Free what is kept of a job that has ended."""

    def exec_target(self, job: Job, rank: int) -> ExecTarget | None:
        """Return how to run a program in a running replica; None without such a replica."""

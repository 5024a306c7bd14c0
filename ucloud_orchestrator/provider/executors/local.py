"""Replicas as processes of this machine, started by PSI/J's executor `local`."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psij
import psutil

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.provider.executors.base import JobObservation, ReplicaStart
from ucloud_orchestrator.provider.executors.replica import Phase, Replica
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget, exec_command

MAXIMUM_REPLICAS = 64
"""Of a job: all of them are processes of one machine, each with a network and with files for each
of the others.
"""
BEGIN_TIMEOUT = 2.0
"""Seconds that rank 0 may take to begin, which needs some milliseconds; then the others wait for
the next look.
"""
BEGIN_INTERVAL = 0.01
"""Seconds between two looks whether it has."""


@dataclass
class _LocalJob:
    replicas: list[Replica]
    psij_jobs: dict[int, psij.Job] = field(default_factory=dict)
    """Of each rank that this process has started, the last."""

    def may_begin(self, rank: int) -> bool:
        """Whether a process of PSI/J's may not have come yet to what it was started for."""
        psij_job = self.psij_jobs.get(rank)
        if psij_job is None or psij_job.status.final:
            return False
        # PSI/J may take a process that ended at once for one that runs.
        return psij_job.native_id is None or psutil.pid_exists(int(psij_job.native_id))

    async def begins(self, replica: Replica) -> bool:
        """Wait until a replica that was started has begun; False if it does not in time, or has
        come to nothing.
        """
        until = time.monotonic() + BEGIN_TIMEOUT
        while not replica.has_begun and self.may_begin(replica.rank) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(BEGIN_INTERVAL)
        return replica.has_begun


class LocalExecutor:
    """Runs replicas on this machine; `control` names the control folder of a job's rank."""

    assigns_hosts = False
    maximum_replicas: int | None = MAXIMUM_REPLICAS
    prefix: Sequence[str] = ()

    def __init__(self, control: Callable[[str, int], Path]) -> None:
        self._control = control
        self._executor = psij.JobExecutor.get_instance("local")
        self._jobs: dict[str, _LocalJob] = {}

    def tell(self, news: Callable[[], None]) -> None:
        """PSI/J says when a process has started or ended."""

        class Wake(psij.JobStatusCallback):
            def job_status_changed(_self, _job: psij.Job, _status: psij.JobStatus) -> None:  # noqa: N805
                news()

        self._executor.set_job_status_callback(Wake())

    async def look(self, jobs: Sequence[Job]) -> None:
        """Nothing to ask: the control folders are at hand."""

    def standing(self, job: Job) -> JobObservation:
        """What the control folders and this machine's processes say now."""
        local = self._local(job)
        may_begin = [
            local.may_begin(replica.rank) for replica in local.replicas
        ]  # before what it has come to is read
        conditions = [replica.condition() for replica in local.replicas]
        are_waited_for = [
            condition.phase is Phase.NOT_STARTED and may
            for condition, may in zip(conditions, may_begin, strict=True)
        ]
        return JobObservation(conditions, is_settled=not any(are_waited_for))

    def is_started(self, job: Job) -> bool | None:
        """Whether all replicas have begun; one whose wrapper ended before that is to be started
        again.
        """
        standing = self.standing(job)
        if all(condition.phase is not Phase.NOT_STARTED for condition in standing.conditions):
            return True
        return False if standing.is_settled else None

    async def start(self, job: Job, work: Path, replicas: Sequence[ReplicaStart]) -> None:
        """Start those that have not begun; the others follow rank 0, or are left to the next
        attempt.

        Rank 0's network serves them all, and would end with the first of them if rank 0 did not
        hold it yet.
        """
        local = self._local(job)
        for start in replicas:
            if start.rank > 0 and not await local.begins(local.replicas[0]):
                return
            replica = local.replicas[start.rank]
            if replica.condition().phase is Phase.NOT_STARTED:
                local.psij_jobs[start.rank] = await asyncio.to_thread(
                    replica.start, self._executor, start.command, work, start.stdout, start.stderr
                )

    async def stop(self, job: Job) -> None:
        """SIGTERM, and SIGKILL after a grace period."""
        for replica in self._local(job).replicas:
            if replica.condition().phase is Phase.RUNNING:
                replica.stop()

    async def suspend(self, job: Job) -> None:
        """SIGSTOP to all processes."""
        self._signal(job, signal.SIGSTOP)

    async def unsuspend(self, job: Job) -> None:
        """SIGCONT to all processes."""
        self._signal(job, signal.SIGCONT)

    async def extend(self, job: Job) -> None:
        """The orchestrator alone enforces the time here."""

    def forget(self, job_id: str) -> None:
        """Nothing runs any more."""
        self._jobs.pop(job_id, None)

    def exec_target(self, job: Job, rank: int) -> ExecTarget | None:
        """How a program comes into a replica; None if it does not run, or there is no such rank."""
        replicas = self._local(job).replicas
        wrapper = replicas[rank].wrapper if 0 <= rank < len(replicas) else None
        return None if wrapper is None else ExecTarget(partial(exec_command, wrapper), wrapper)

    def _local(self, job: Job) -> _LocalJob:
        if job.id not in self._jobs:
            ranks = range(job.specification.replicas)
            self._jobs[job.id] = _LocalJob(
                [Replica(rank, self._control(job.id, rank)) for rank in ranks]
            )
        return self._jobs[job.id]

    def _signal(self, job: Job, number: signal.Signals) -> None:
        for replica in self._local(job).replicas:
            replica.signal(number)

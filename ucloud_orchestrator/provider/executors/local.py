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
from ucloud_orchestrator.provider.executors.replica import Replica, ReplicaPhase
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget, exec_command

MAXIMUM_REPLICAS = 64
"""Replicas of a job: each has a network, and files for each of the others."""
BEGIN_TIMEOUT = 2.0
"""Seconds that rank 0 may take to begin, which needs milliseconds; the next attempt starts the
others.
"""
BEGIN_INTERVAL = 0.01
"""Seconds until the first check whether a replica has begun or can be entered."""


@dataclass
class _LocalJob:
    replicas: list[Replica]
    psij_jobs: dict[int, psij.Job] = field(default_factory=dict)
    """The last start of each rank by this process."""

    def may_begin(self, rank: int) -> bool:
        """Whether a process that PSI/J started may not have begun its replica yet."""
        psij_job = self.psij_jobs.get(rank)
        if psij_job is None or psij_job.status.final:
            return False
        # PSI/J may report a process as running that ended at once.
        return psij_job.native_id is None or psutil.pid_exists(int(psij_job.native_id))

    async def wait_for_begin(self, replica: Replica) -> bool:
        """Wait until a started replica has begun; False at the timeout or if it came to nothing."""
        until = time.monotonic() + BEGIN_TIMEOUT
        while not replica.has_begun and self.may_begin(replica.rank) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(BEGIN_INTERVAL)
        return replica.has_begun


class LocalExecutor:
    """Runs replicas on this machine; `control` returns the control directory of a job's rank."""

    assigns_hosts = False
    maximum_replicas: int | None = MAXIMUM_REPLICAS
    prefix: Sequence[str] = ()

    def __init__(self, control: Callable[[str, int], Path]) -> None:
        self._control = control
        self._executor = psij.JobExecutor.get_instance("local")
        self._jobs: dict[str, _LocalJob] = {}
        self._changed: Callable[[], None] = lambda: None

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call it when PSI/J reports a status, and when the sandboxes of a job can be entered."""

        class Callback(psij.JobStatusCallback):
            def job_status_changed(_self, _job: psij.Job, _status: psij.JobStatus) -> None:  # noqa: N805
                callback()

        self._executor.set_job_status_callback(Callback())
        self._changed = callback

    async def poll(self, jobs: Sequence[Job]) -> None:
        """Do nothing: `observe` reads the control directories."""

    def observe(self, job: Job) -> JobObservation:
        """Read the control directories and the process table."""
        local = self._local(job)
        # Read first: a replica that begins after it still counts as not begun.
        may_begin = [local.may_begin(replica.rank) for replica in local.replicas]
        replicas = [replica.status() for replica in local.replicas]
        waiting = [
            may
            for may, replica in zip(may_begin, replicas, strict=True)
            if replica.phase is ReplicaPhase.NOT_STARTED
        ]
        return JobObservation(replicas, is_settled=not any(waiting), is_submitted=not waiting)

    async def start(self, job: Job, work: Path, replicas: Sequence[ReplicaStart]) -> None:
        """Start the replicas that have not begun; without rank 0, the next attempt starts the
        others.

        Rank 0's network serves them all: it would end with the first of them if rank 0 did not
        hold it yet.
        """
        local = self._local(job)
        for start in replicas:
            if start.rank > 0 and not await local.wait_for_begin(local.replicas[0]):
                return
            replica = local.replicas[start.rank]
            if replica.status().phase is ReplicaPhase.NOT_STARTED:
                local.psij_jobs[start.rank] = await asyncio.to_thread(
                    replica.start, self._executor, start.command, work, start.stdout, start.stderr
                )
        self._notify_when_running(local, BEGIN_INTERVAL)

    def _notify_when_running(self, local: _LocalJob, delay: float) -> None:
        """Check at growing intervals whether all sandboxes can be entered: PSI/J reports only the
        start of the wrapper.
        """
        starting = {ReplicaPhase.NOT_STARTED, ReplicaPhase.STARTING}
        if any(replica.status().phase in starting for replica in local.replicas):
            if delay < BEGIN_TIMEOUT:
                asyncio.get_running_loop().call_later(
                    delay, self._notify_when_running, local, 1.5 * delay
                )
        else:
            self._changed()

    async def stop(self, job: Job) -> None:
        """Send SIGTERM, and SIGKILL after a grace period."""
        for replica in self._local(job).replicas:
            if replica.status().is_active:
                replica.stop()

    async def suspend(self, job: Job) -> None:
        """Send SIGSTOP to all processes."""
        self._signal(job, signal.SIGSTOP)

    async def unsuspend(self, job: Job) -> None:
        """Send SIGCONT to all processes."""
        self._signal(job, signal.SIGCONT)

    async def extend(self, job: Job) -> None:
        """Do nothing: the orchestrator alone enforces the time allocation here."""

    def forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)

    def exec_target(self, job: Job, rank: int) -> ExecTarget | None:
        """Return how to run a program in a running replica; None without such a replica."""
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

"""Replicas as tasks of one Slurm job, a node for each.

A Slurm job is found by its name, which has the id of our job. So nothing in the memory of this
process is needed after a restart. The control directories have what the ranks did; Slurm's queue
has what Slurm did with the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import psij

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.provider.errors import ExecError, ExecutorError, TransientExecutorError
from ucloud_orchestrator.provider.executors.base import JobObservation, ReplicaStart
from ucloud_orchestrator.provider.executors.slurm import (
    commands,
    control,
    peers,
    scripts,
    submission,
)
from ucloud_orchestrator.provider.executors.slurm.commands import NAME, SlurmJob
from ucloud_orchestrator.provider.executors.slurm.observation import QueueView, interpret, is_over
from ucloud_orchestrator.provider.executors.slurm.queue import SlurmQueue
from ucloud_orchestrator.provider.executors.slurm.states import SlurmPhase
from ucloud_orchestrator.provider.executors.slurm.submission import SlurmSubmitter
from ucloud_orchestrator.provider.sandbox import bubblewrap
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget
from ucloud_orchestrator.provider.settings import SlurmOptions

STOP_INTERVAL = 5.0
"""Seconds between two requests to cancel the same job."""
POSITION_INTERVAL = 60.0
"""Seconds for which a reported position in the queue stays, unless the reason changes."""


@dataclass
class _JobMemory:
    """What this process remembers of a job; nothing of it is needed after a restart.

    Times are of `time.monotonic`.
    """

    submitted_at: float = 0.0
    over_since: float | None = None
    last_seen: SlurmJob | None = None
    stop_requested_at: float | None = None
    stopped_at: float = -math.inf
    reason: str = ""
    waiting_text: str | None = None
    waiting_text_at: float = 0.0
    begin_seen_at: float | None = None


class SlurmExecutor:
    """Runs the replicas of one product's jobs in Slurm.

    `directory_of` returns a job's directory, which all nodes share.
    """

    assigns_hosts = True
    maximum_replicas: int | None = None
    # The wrapper and bubblewrap ignore SIGTERM, so that they outlive it; the program does not.
    prefix: Sequence[str] = ("/usr/bin/env", "--default-signal=TERM")

    def __init__(
        self, options: SlurmOptions, directory_of: Callable[[str], Path], queue: SlurmQueue
    ) -> None:
        self._directory_of = directory_of
        self._queue = queue
        self._submitter = SlurmSubmitter(options)
        self._memory: dict[str, _JobMemory] = {}

    def on_change(self, callback: Callable[[], None]) -> None:
        self._queue.on_change(callback)

    async def poll(self, jobs: Sequence[Job]) -> None:
        if jobs:
            self._queue.refresh()

    def observe(self, job: Job) -> JobObservation:
        """Read the control directories, and the last poll of the queue."""
        directory, memory = self._directory_of(job.id), self._memory_of(job.id)
        files = control.read(directory, job.specification.replicas)
        if files.slurm_job_id is not None and memory.begin_seen_at is None:
            memory.begin_seen_at = time.monotonic()
        slurm_job = self._find(job.id, files.slurm_job_id)
        if slurm_job is not None and not files.is_submitted:
            # The answer of `sbatch` was lost: the job is not to be submitted again when it is gone.
            (directory / "submitted").touch()
        queue = QueueView(
            slurm_job,
            memory.last_seen,
            is_polled_since_submission=self._queue.polled_at > memory.submitted_at,
            is_polled_since_begin=self._queue.polled_at >= (memory.begin_seen_at or 0.0),
            complaint=self._queue.complaint,
        )
        if not is_over(files, queue):
            memory.over_since = memory.last_seen = None
            if all(replica.is_over for replica in files.replicas):
                self._queue.refresh(at_once=True)
            waits = slurm_job is not None and slurm_job.mapping.phase is SlurmPhase.PENDING
            text = self._waiting_text(memory, slurm_job) if slurm_job and waits else None
            return interpret(files, replace(queue, last_seen=None, waiting_text=text))
        now = time.monotonic()
        memory.over_since = memory.over_since or now
        memory.last_seen = slurm_job or memory.last_seen
        return interpret(files, replace(queue, seconds_since_end=now - memory.over_since))

    async def start(self, job: Job, work: Path, replicas: Sequence[ReplicaStart]) -> None:
        """Submit the job.

        Raises `TransientExecutorError` where Slurm may have accepted it, and `ExecutorError`.
        """
        directory, memory = self._directory_of(job.id), self._memory_of(job.id)
        addresses = peers.lines(job, self._directory_of)
        await asyncio.to_thread(scripts.write, directory, replicas, addresses)
        (directory / "submitting").touch()
        memory.submitted_at = time.monotonic()
        try:
            await self._submitter.submit(job, directory, work)
        except psij.SubmitException as error:
            if commands.is_transient(str(error)):
                # Slurm may have accepted the job: once it answers again, its name shows that.
                raise TransientExecutorError(
                    "Your job waits to be submitted. Slurm does not answer at the moment."
                ) from error
            (directory / "submitting").unlink(missing_ok=True)
            memory.submitted_at = 0.0
            raise ExecutorError(f"Slurm rejected the job: {str(error).strip()}") from error
        (directory / "submitted").touch()
        (directory / "submitting").unlink(missing_ok=True)
        memory.submitted_at = time.monotonic()
        self._queue.refresh(at_once=True)

    async def stop(self, job: Job) -> None:
        """Cancel the Slurm job: Slurm sends SIGTERM, and SIGKILL after its `KillWait`."""
        directory, memory = self._directory_of(job.id), self._memory_of(job.id)
        slurm_job = self._find(job.id, control.slurm_job_id(directory))
        memory.stop_requested_at = memory.stop_requested_at or time.monotonic()
        if self._queue.polled_at <= memory.stop_requested_at:
            # It may be ending already.
            self._queue.refresh(at_once=True)
            return
        now = time.monotonic()
        if slurm_job is None or slurm_job.is_over or slurm_job.state == "COMPLETING":
            return
        if now - memory.stopped_at < STOP_INTERVAL:
            return
        memory.stopped_at = now
        (directory / "stopped").touch()
        with contextlib.suppress(TransientExecutorError):  # it is repeated
            if slurm_job.mapping.phase is SlurmPhase.SUSPENDED:
                await _resume(slurm_job)
            await commands.run("scancel", f"--name={slurm_job.name}")
        self._queue.refresh(at_once=True)

    async def suspend(self, job: Job) -> None:
        """Run `scontrol suspend`, which a centre must allow to the provider's user."""
        await self._run_scontrol(job, "suspend", SlurmPhase.SUSPENDED)

    async def unsuspend(self, job: Job) -> None:
        """Run `scontrol resume`."""
        await self._run_scontrol(job, "resume", SlurmPhase.RUNNING)

    async def extend(self, job: Job) -> None:
        """Set the time limit of the Slurm job to the whole allocation. Idempotent."""
        directory = self._directory_of(job.id)
        if not any((directory / name).exists() for name in ("submitting", "submitted", "begun")):
            return  # it is submitted with its new time
        slurm_job = await self._poll_job(job.id)
        limit = f"TimeLimit={_minutes(self._submitter.time_limit(job))}"
        await commands.run("scontrol", "update", f"JobId={slurm_job.id}", limit)

    def forget(self, job_id: str) -> None:
        """Delete PSI/J's files of a job that has ended."""
        directory, memory = self._directory_of(job_id), self._memory.pop(job_id, _JobMemory())
        begun = control.slurm_job_id(directory)
        seen = (self._find(job_id, begun), memory.last_seen)
        ids = {slurm_job.id for slurm_job in seen if slurm_job is not None}
        submission.forget(job_id, directory, ids if begun is None else ids | {begun})

    def exec_target(self, job: Job, rank: int) -> ExecTarget | None:
        """Return how to run a program in a running replica; None without such a replica."""

        def arguments(command: Sequence[str], more: Mapping[str, str]) -> list[str]:
            # The terminal of `srun` belongs to processes that the replica cannot see, so `script`
            # makes another one inside.
            words = ("--quiet", "--return", "--command", shlex.join(command), "/dev/null")
            settings = [f"{name}={value}" for name, value in more.items()]
            inside = ["/usr/bin/env", *settings, "/usr/bin/script", *words]
            exec_words = self.exec_command(job.id, rank, inside)
            return ["/usr/bin/setsid", "--ctty", "--wait", *exec_words]

        if not 0 <= rank < job.specification.replicas:
            return None
        try:
            arguments(["true"], {})
        except ExecError:
            return None
        return ExecTarget(arguments)

    def exec_command(self, job_id: str, rank: int, command: Sequence[str]) -> list[str]:
        """Return the words that run `command` in a replica; standard input must be a terminal.

        Raises `ExecError` if the replica does not run.
        """
        directory = self._directory_of(job_id)
        slurm_job_id = control.slurm_job_id(directory)
        replica = control.replica_directory(directory, rank)
        if (
            slurm_job_id is None
            or not (replica / "host").exists()
            or (replica / "exit-code").exists()
        ):
            raise ExecError(f"Rank {rank} does not run.")
        node = (replica / "host").read_text().strip()
        target = [f"--jobid={slurm_job_id}", f"--nodelist={node}", "--nodes=1", "--ntasks=1"]
        # A session takes nothing from the program: it shares the job's cores and memory.
        options = ["--overlap", "--pty", "--quiet", "--chdir=/", "--mem=0", "--export=PATH"]
        script = ["/bin/sh", "-c", scripts.EXEC_SCRIPT, "exec", str(replica)]
        has_sandbox = "yes" if bubblewrap.is_available() else "no"
        return ["srun", *target, *options, *script, has_sandbox, *command]

    async def _poll_job(self, job_id: str) -> SlurmJob:
        await self._queue.poll()
        slurm_job = self._find(job_id, control.slurm_job_id(self._directory_of(job_id)))
        if slurm_job is None:
            raise TransientExecutorError(
                "The job is not to be seen in Slurm's queue at the moment."
            )
        return slurm_job

    async def _run_scontrol(self, job: Job, verb: str, phase: SlurmPhase) -> None:
        slurm_job = await self._poll_job(job.id)
        if slurm_job.mapping.phase is phase:
            return
        await commands.run("scontrol", verb, str(slurm_job.id))
        self._queue.refresh(at_once=True)

    def _find(self, job_id: str, begun: int | None) -> SlurmJob | None:
        """Return the job in the last poll of the queue; `begun` is the Slurm job that has begun.

        Without it, of two jobs of our name the older one is returned.
        """
        if begun is not None:
            slurm_job = self._queue.jobs.get(begun)
            # A controller that has lost its state assigns ids again.
            return slurm_job if slurm_job is not None and slurm_job.name == NAME + job_id else None
        return next(iter(self._queue.named(NAME + job_id)), None)

    def _waiting_text(self, memory: _JobMemory, job: SlurmJob) -> str | None:
        now = time.monotonic()
        is_old = now - memory.waiting_text_at > POSITION_INTERVAL
        if memory.waiting_text is None or job.reason != memory.reason or is_old:
            position = commands.position(list(self._queue.jobs.values()), job)
            memory.reason, memory.waiting_text_at = job.reason, now
            memory.waiting_text = (
                f"Your job waits in Slurm at position {position} of partition "
                f"{job.partition} ({job.reason})."
            )
        return memory.waiting_text

    def _memory_of(self, job_id: str) -> _JobMemory:
        return self._memory.setdefault(job_id, _JobMemory())


async def _resume(slurm_job: SlurmJob) -> None:
    """Resume a Slurm job if Slurm permits it, so that its programs get SIGTERM.

    Raises `TransientExecutorError`.
    """
    try:
        await commands.run("scontrol", "resume", str(slurm_job.id))
    except ExecutorError as error:
        if error.is_transient:
            raise


def _minutes(duration: timedelta) -> int:
    """Return the duration in Slurm's unit, rounded up."""
    return -int(-duration.total_seconds() // 60)

"""Replicas as tasks of one Slurm job, a node for each.

A Slurm job is found by its name, which holds our job's id; so nothing that this process knows can
be lost. What the ranks have come to is read from their control folders, as on this machine; Slurm
says what it did to the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psij

from ucloud_orchestrator.models.job import Job, JobState, JobUpdate
from ucloud_orchestrator.provider.errors import ExecError, ExecutorError, TransientExecutorError
from ucloud_orchestrator.provider.executors.base import JobObservation, ReplicaStart
from ucloud_orchestrator.provider.executors.replica import Phase, ReplicaStatus
from ucloud_orchestrator.provider.executors.slurm import commands, peers, scripts, submission
from ucloud_orchestrator.provider.executors.slurm.commands import NAME, SlurmJob
from ucloud_orchestrator.provider.executors.slurm.queue import SlurmQueue
from ucloud_orchestrator.provider.executors.slurm.states import SlurmPhase
from ucloud_orchestrator.provider.executors.slurm.submission import SlurmSubmitter
from ucloud_orchestrator.provider.sandbox import bubblewrap
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget
from ucloud_orchestrator.provider.settings import SlurmOptions

SUBMISSION_TIMEOUT = 15.0
"""Seconds for which a submission whose answer was lost may still reach Slurm."""
FILE_TIMEOUT = 5.0
"""Seconds that an exit code may take, after Slurm's job has ended, to be seen through a shared file
system.
"""
KILLED = 128
"""From here on an exit code is the shell's word for a signal that ended the program."""
STOP_INTERVAL = 5.0
"""Seconds between two requests to cancel the same job."""
POSITION_INTERVAL = 60.0
"""Seconds for which a position in the queue is told, unless the reason for waiting changes."""


@dataclass
class _JobMemory:
    """What this process remembers of a job, none of which matters after a restart."""

    submitted_at: float = 0.0
    gone_since: float | None = None
    end: SlurmJob | None = None
    stop_asked_at: float | None = None
    stopped_at: float = -math.inf
    reason: str = ""
    text: str | None = None
    told_at: float = 0.0
    begun_seen_at: float | None = None


class SlurmExecutor:
    """Runs the replicas of one product's jobs in Slurm; `folder_of` names the folder of a job,
    shared by all nodes.
    """

    assigns_hosts = True
    maximum_replicas: int | None = None
    # The wrapper and bubblewrap ignore SIGTERM, so that they outlive it; the program does not.
    prefix: Sequence[str] = ("/usr/bin/env", "--default-signal=TERM")

    def __init__(
        self, options: SlurmOptions, folder_of: Callable[[str], Path], queue: SlurmQueue
    ) -> None:
        self._folder_of = folder_of
        self._queue = queue
        self._submitter = SlurmSubmitter(options)
        self._told: dict[str, _JobMemory] = {}

    def tell(self, news: Callable[[], None]) -> None:
        """The queue has news after each look at it."""
        self._queue.tell(news)

    async def look(self, jobs: Sequence[Job]) -> None:
        """Have the queue looked at, in the background, if there is a job to be found in it."""
        if jobs:
            self._queue.refresh()

    def standing(self, job: Job) -> JobObservation:
        """What the control folders say, and what the queue said last."""
        told = self._remembered(job.id)
        slurm_job = self._find(job.id)
        is_known = self._queue.looked_at > told.submitted_at and not self._is_being_submitted(
            job.id
        )
        is_over = is_known and (slurm_job is None or slurm_job.is_over)
        conditions = [
            self._condition(self._control(job.id, rank))
            for rank in range(job.specification.replicas)
        ]
        if self._begins_again(job.id, slurm_job or told.end):
            conditions = [ReplicaStatus(Phase.NOT_STARTED)] * len(conditions)
        if not is_over:
            told.gone_since = told.end = None
            return self._unfinished(job, told, slurm_job, conditions)
        now = time.monotonic()
        told.gone_since = told.gone_since or now
        # Slurm forgets a job a while after its end (`MinJobAge`), which may be sooner than our
        # patience.
        slurm_job = told.end = slurm_job or told.end
        all_ended = all(condition.phase is Phase.ENDED for condition in conditions)
        failure = peers.failure(self._folder_of(job.id))
        if not all_ended and failure is None and now - told.gone_since < FILE_TIMEOUT:
            return JobObservation(conditions, is_settled=False)
        was_stopped = (self._folder_of(job.id) / "stopped").exists()
        # What was ended because of another rank, or by us, leaves no exit code where it had to be
        # killed.
        lost = (
            Phase.ENDED if was_stopped or any(c.exit_code for c in conditions) else Phase.VANISHED
        )
        gone = [ReplicaStatus(lost) if c.phase is Phase.RUNNING else c for c in conditions]
        end = JobUpdate(state=JobState.FAILURE, status=failure) if failure is not None else None
        if end is None and slurm_job is not None and any(c.exit_code != 0 for c in gone):
            end = self._end(slurm_job, was_stopped, gone)
        has_begun = any(condition.phase is not Phase.NOT_STARTED for condition in gone)
        if end is None and told.submitted_at and (has_begun or not was_stopped):
            # It was submitted, and what has not begun now never will.
            gone = [ReplicaStatus(lost) if c.phase is Phase.NOT_STARTED else c for c in gone]
        return JobObservation(gone, is_settled=True, end=end)

    def is_started(self, job: Job) -> bool | None:
        """Whether Slurm has it, or it has begun; Slurm must have answered since the last
        attempt.
        """
        folder, told = self._folder_of(job.id), self._remembered(job.id)
        has_begun = (folder / "begun").exists() or self._find(job.id) is not None
        if not has_begun:
            is_submitted = (folder / "submitted").exists()
            if self._queue.looked_at <= told.submitted_at and not is_submitted:
                if self._queue.complaint:
                    raise TransientExecutorError(
                        f"Your job waits to be submitted. {self._queue.complaint}"
                    )
                return None
            if self._is_being_submitted(job.id):
                return None
            if not is_submitted:
                return False
        told.submitted_at = told.submitted_at or time.monotonic() - SUBMISSION_TIMEOUT
        return True

    async def start(self, job: Job, work: Path, replicas: Sequence[ReplicaStart]) -> None:
        """Submit it."""
        folder, told = self._folder_of(job.id), self._remembered(job.id)
        addresses = peers.lines(job, self._folder_of)
        await asyncio.to_thread(scripts.write, folder, replicas, addresses)
        (folder / "submitting").touch()
        told.submitted_at = time.monotonic()
        try:
            await self._submitter.submit(job, folder, work)
        except psij.SubmitException as error:
            if commands.is_unanswered(str(error)):
                # It may have been taken: the name tells, once Slurm answers again.
                raise TransientExecutorError(
                    "Your job waits to be submitted. Slurm does not answer at the moment."
                ) from error
            (folder / "submitting").unlink(missing_ok=True)
            told.submitted_at = 0.0
            raise ExecutorError(f"Slurm did not take the job: {str(error).strip()}") from error
        (folder / "submitted").touch()
        (folder / "submitting").unlink(missing_ok=True)
        told.submitted_at = time.monotonic()
        self._queue.refresh(at_once=True)

    async def stop(self, job: Job) -> None:
        """Cancel it in Slurm, which sends SIGTERM, and SIGKILL after its `KillWait`."""
        told, slurm_job = self._remembered(job.id), self._find(job.id)
        told.stop_asked_at = told.stop_asked_at or time.monotonic()
        if self._queue.looked_at <= told.stop_asked_at:
            # Somebody else may be ending it: first see whether it is ending already.
            self._queue.refresh(at_once=True)
            return
        now = time.monotonic()
        if slurm_job is None or slurm_job.is_over or slurm_job.state == "COMPLETING":
            return
        if now - told.stopped_at < STOP_INTERVAL:
            return
        told.stopped_at = now
        (self._folder_of(job.id) / "stopped").touch()
        with contextlib.suppress(TransientExecutorError):  # it is repeated
            if slurm_job.meaning.course is SlurmPhase.IS_HELD:
                with contextlib.suppress(ExecutorError):
                    await commands.run("scontrol", "resume", str(slurm_job.number))
            await commands.run("scancel", f"--name={slurm_job.name}")
        self._queue.refresh(at_once=True)

    async def suspend(self, job: Job) -> None:
        """`scontrol suspend`, which a centre must allow to the provider's user."""
        await self._control_slurm(job, "suspend", SlurmPhase.IS_HELD)

    async def unsuspend(self, job: Job) -> None:
        """`scontrol resume`."""
        await self._control_slurm(job, "resume", SlurmPhase.RUNS)

    async def extend(self, job: Job) -> None:
        """Set the time limit to what the job may have now, so that a repeat changes nothing."""
        folder = self._folder_of(job.id)
        if not any((folder / marker).exists() for marker in ("submitting", "submitted", "begun")):
            return  # it is submitted with its new time
        slurm_job = await self._seen_now(job.id)
        limit = f"TimeLimit={_minutes(self._submitter.time_limit(job))}"
        await commands.run("scontrol", "update", f"JobId={slurm_job.number}", limit)

    def forget(self, job_id: str) -> None:
        """It has ended; so do PSI/J's files of it."""
        told = self._told.pop(job_id, _JobMemory())
        seen = {job.number for job in (self._find(job_id), told.end) if job is not None}
        begun = self._begun(job_id)
        submission.forget(
            job_id, self._folder_of(job_id), seen if begun is None else seen | {begun}
        )

    def exec_target(self, job: Job, rank: int) -> ExecTarget | None:
        """How a program comes into a replica on its node; None if it does not run, or there is no
        such rank.
        """

        def arguments(command: Sequence[str], more: Mapping[str, str]) -> list[str]:
            # A terminal of its own inside: that of `srun` belongs to processes that the replica
            # cannot see.
            inside = [
                "/usr/bin/script",
                "--quiet",
                "--return",
                "--command",
                shlex.join(command),
                "/dev/null",
            ]
            settings = [f"{name}={value}" for name, value in more.items()]
            try:
                entered = self.exec_command(job.id, rank, ["/usr/bin/env", *settings, *inside])
            except TransientExecutorError as error:
                raise ExecError(str(error)) from error
            return ["/usr/bin/setsid", "--ctty", "--wait", *entered]

        if not 0 <= rank < job.specification.replicas:
            return None
        try:
            arguments(["true"], {})
        except ExecError:
            return None
        return ExecTarget(arguments)

    def exec_command(self, job_id: str, rank: int, command: Sequence[str]) -> list[str]:
        """What to run, with a terminal as its standard input, to run `command` inside a replica.

        Raises `TransientExecutorError` if the replica does not run.
        """
        number, control = self._begun(job_id), self._control(job_id, rank)
        if number is None or not (control / "host").exists() or (control / "exit-code").exists():
            raise TransientExecutorError(f"Rank {rank} does not run.")
        node = (control / "host").read_text().strip()
        place = [f"--jobid={number}", f"--nodelist={node}", "--nodes=1", "--ntasks=1"]
        # A session takes nothing from the program: it shares the cores and memory that the job has.
        options = ["--overlap", "--pty", "--quiet", "--chdir=/", "--mem=0", "--export=PATH"]
        enter = ["/bin/sh", "-c", scripts.EXEC_SCRIPT, "enter", str(control)]
        return [
            "srun",
            *place,
            *options,
            *enter,
            "yes" if bubblewrap.is_available() else "no",
            *command,
        ]

    async def _seen_now(self, job_id: str) -> SlurmJob:
        await self._queue.look()
        slurm_job = self._find(job_id)
        if slurm_job is None:
            raise TransientExecutorError(
                "The job is not to be seen in Slurm's queue at the moment."
            )
        return slurm_job

    async def _control_slurm(self, job: Job, verb: str, course: SlurmPhase) -> None:
        slurm_job = await self._seen_now(job.id)
        if slurm_job.meaning.course is course:
            return
        await commands.run("scontrol", verb, str(slurm_job.number))
        self._queue.refresh(at_once=True)

    @staticmethod
    def _end(
        slurm_job: SlurmJob, was_stopped: bool, conditions: Sequence[ReplicaStatus]
    ) -> JobUpdate | None:
        """What Slurm says of an end that is not told by the exit codes; a cancel of our own is
        none.

        A controller that was killed may take jobs that have ended for new ones, and cancel them
        when a node refuses to run them again: where every rank has ended by itself, the exit codes
        count, and not a fault after them.
        """
        meaning = slurm_job.meaning
        if meaning.end is None or (was_stopped and slurm_job.state == "CANCELLED"):
            return None
        by_themselves = all(c.exit_code is not None and c.exit_code < KILLED for c in conditions)
        if meaning.end is JobState.FAILURE and by_themselves:
            return None
        return JobUpdate(state=meaning.end, status=meaning.text)

    def _unfinished(
        self,
        job: Job,
        told: _JobMemory,
        slurm_job: SlurmJob | None,
        conditions: Sequence[ReplicaStatus],
    ) -> JobObservation:
        has_begun = (self._folder_of(job.id) / "begun" / "slurm-job").exists()
        if has_begun and told.begun_seen_at is None:
            told.begun_seen_at = time.monotonic()
        if all(condition.is_over for condition in conditions):
            self._queue.refresh(at_once=True)
        waits = slurm_job is not None and slurm_job.meaning.course is SlurmPhase.WAITS
        begins_again = self._begins_again(job.id, slurm_job)
        if not waits and not begins_again:
            return JobObservation(conditions, is_settled=False)
        if not begins_again and has_begun and self._queue.looked_at < (told.begun_seen_at or 0.0):
            return JobObservation(
                conditions, is_settled=False
            )  # Slurm was asked before the job began
        return JobObservation(
            [ReplicaStatus(Phase.NOT_STARTED)] * len(conditions),
            is_settled=False,
            waits_again=has_begun,
            waiting_text=self._waiting_text(told, slurm_job)
            if slurm_job is not None and waits
            else None,
        )

    def _is_being_submitted(self, job_id: str) -> bool:
        """Whether a submission, perhaps of a process that was killed, may still reach Slurm."""
        with contextlib.suppress(FileNotFoundError):
            began = (self._folder_of(job_id) / "submitting").stat().st_mtime
            return time.time() - began < SUBMISSION_TIMEOUT
        return False

    def _find(self, job_id: str) -> SlurmJob | None:
        """Our job in the queue as it was seen last; of two with its name, the one that has begun,
        or else the older.
        """
        number = self._begun(job_id)
        if number is not None:
            slurm_job = self._queue.jobs.get(number)
            # A controller that has lost its memory gives numbers again.
            return slurm_job if slurm_job is not None and slurm_job.name == NAME + job_id else None
        return next(iter(self._queue.named(NAME + job_id)), None)

    def _begun(self, job_id: str) -> int | None:
        """The number of the Slurm job that has begun to run it."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self._folder_of(job_id) / "begun" / "slurm-job").read_text())
        return None

    def _begins_again(self, job_id: str, slurm_job: SlurmJob | None) -> bool:
        """Whether Slurm has put it back into the queue since the attempt that the control folders
        tell of.
        """
        if slurm_job is None or self._begun(job_id) is None:
            return False
        file = self._folder_of(job_id) / "begun" / "restarts"
        with contextlib.suppress(FileNotFoundError, ValueError):
            return slurm_job.restarts > int(file.read_text())
        return False

    def _waiting_text(self, told: _JobMemory, job: SlurmJob) -> str | None:
        now = time.monotonic()
        if told.text is None or job.reason != told.reason or now - told.told_at > POSITION_INTERVAL:
            place = commands.position(list(self._queue.jobs.values()), job)
            told.reason, told.told_at = job.reason, now
            told.text = (
                f"Your job waits in Slurm at position {place} of partition "
                f"{job.partition} ({job.reason})."
            )
        return told.text

    def _remembered(self, job_id: str) -> _JobMemory:
        return self._told.setdefault(job_id, _JobMemory())

    def _control(self, job_id: str, rank: int) -> Path:
        return self._folder_of(job_id) / f"replica-{rank}"

    @staticmethod
    def _condition(control: Path) -> ReplicaStatus:
        with contextlib.suppress(FileNotFoundError, ValueError):
            file = control / "exit-code"
            return ReplicaStatus(Phase.ENDED, int(file.read_text()), file.stat().st_mtime)
        return ReplicaStatus(Phase.RUNNING if (control / "started").is_dir() else Phase.NOT_STARTED)


def _minutes(duration: timedelta) -> int:
    """Slurm's unit, rounded up."""
    return -int(-duration.total_seconds() // 60)

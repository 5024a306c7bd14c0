"""Slurm's commands: `squeue` for all jobs at once, and `scontrol` for single ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ucloud_orchestrator.provider.errors import ExecutorError, TransientExecutorError
from ucloud_orchestrator.provider.executors.slurm.states import (
    SlurmPhase,
    SlurmStateMapping,
    mapping_of,
)

TIMEOUT = 20.0
"""Seconds for a command; after that, Slurm's controller does not answer."""
NAME = "ucloud-"
"""The name of a Slurm job, before the id of our job."""
_SEPARATOR = "|"
TRANSIENT_MESSAGES = (
    "unable to contact",
    "connection",
    "timed out",
    "zero bytes",
    "transport endpoint",
    "communication",
    "temporarily",
    "munge",
    "authentication",
)
"""Parts of error messages after which a repeat may succeed."""


@dataclass(frozen=True)
class SlurmJob:
    """A job of `squeue`. A higher `priority` comes first; `restarts` counts requeues."""

    id: int
    state: str
    partition: str
    priority: int
    reason: str
    name: str
    restarts: int = 0

    @property
    def mapping(self) -> SlurmStateMapping:
        """Return the meaning of its state. Raises `UnknownSlurmState`."""
        return mapping_of(self.state)

    @property
    def is_over(self) -> bool:
        """Check if none of it runs any more. Raises `UnknownSlurmState`."""
        return self.mapping.phase is SlurmPhase.ENDED


async def queue() -> list[SlurmJob]:
    """List our jobs, with those that ended lately, and all that wait, without their names.

    The names of others' jobs are never read: a line break in one would forge a line of ours.
    Raises `TransientExecutorError`.
    """
    waiting = await _list_jobs("JobID", "--states=pending")
    ours = await _list_jobs("Name", "--states=all", "--me")
    return list((waiting | ours).values())


def position(jobs: Sequence[SlurmJob], job: SlurmJob) -> int:
    """Return the position of a waiting job in the queue of its partition, from 1."""
    waiting = [
        other for other in jobs if other.state == "PENDING" and other.partition == job.partition
    ]
    return 1 + sum((-other.priority, other.id) < (-job.priority, job.id) for other in waiting)


def is_transient(message: str) -> bool:
    """Check if an error message is of a command that could not reach Slurm."""
    return any(word in message.lower() for word in TRANSIENT_MESSAGES)


async def run(*command: str) -> str:
    """Run a command and return its output.

    Raises `TransientExecutorError` if Slurm does not answer, `ExecutorError` if it rejects.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise TransientExecutorError(
            f"Slurm's command {command[0]} cannot be started: {error}."
        ) from error
    try:
        async with asyncio.timeout(TIMEOUT):
            output, errors = await process.communicate()
    except BaseException as error:
        # A centre's command may be a script, whose children would keep the pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process._transport.close()  # type: ignore[attr-defined]
        if isinstance(error, TimeoutError):
            raise TransientExecutorError(
                "Slurm's controller does not answer at the moment."
            ) from error
        raise
    text = errors.decode(errors="replace").strip()
    if process.returncode:
        # Only these are decisions of Slurm; anything else may be different at the next attempt.
        if command[0] == "scontrol" and any(
            word in text.lower() for word in ("denied", "invalid", "disabled")
        ):
            raise ExecutorError(f"Slurm rejects this: {text}.")
        raise TransientExecutorError(
            f"Slurm does not answer at the moment: {text or 'no reason given'}."
        )
    return output.decode(errors="replace")


async def _list_jobs(name_column: str, *options: str) -> dict[int, SlurmJob]:
    """Run `squeue`, and return its jobs by Slurm's job id."""
    columns = ("JobID", "State", "Partition", "PriorityLong", "RestartCnt", name_column, "Reason")
    layout = ",".join(f"{column}:{_SEPARATOR}" for column in columns)
    output = await run("squeue", "--noheader", *options, f"--Format={layout}")
    jobs = [job for line in output.splitlines() if (job := _parse_line(line)) is not None]
    return {job.id: job for job in jobs}


def _parse_line(line: str) -> SlurmJob | None:
    """Return the job of a line; None for elements of arrays, which are never ours."""
    job_id, state, partition, priority, restarts, name, reason = line.split(_SEPARATOR, 6)
    if not job_id.isdecimal():
        return None
    reason = reason.rstrip().removesuffix(_SEPARATOR)
    return SlurmJob(int(job_id), state, partition, int(priority), reason, name, int(restarts))

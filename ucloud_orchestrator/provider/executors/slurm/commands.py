"""Slurm's commands: one list of all jobs, and what is asked for single ones."""

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
    meaning_of,
)

TIMEOUT = 20.0
"""Seconds that a command may take; then Slurm's controller counts as not answering."""
NAME = "ucloud-"
"""A Slurm job is named so, with our job's id after it; that is how it is found again."""
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
"""Words of complaints after which a repeat may succeed."""


@dataclass(frozen=True)
class SlurmJob:
    """A job as `squeue` shows it.

    `priority` is Slurm's, a higher one comes first; `restarts` is how often it was put back into
    the queue.
    """

    number: int
    state: str
    partition: str
    priority: int
    reason: str
    name: str
    restarts: int = 0

    @property
    def meaning(self) -> SlurmStateMapping:
        """What its state means. Raises `UnknownSlurmState`."""
        return meaning_of(self.state)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more. Raises `UnknownSlurmState`."""
        return self.meaning.course is SlurmPhase.IS_OVER


async def queue() -> list[SlurmJob]:
    """Our jobs, those that ended a moment ago too, and all that wait, without names. Raises
    `TransientExecutorError`.

    The names of others' jobs are never read: with a line break in one its owner could tell us what
    he likes.
    """
    waiting = await _listed("JobID", "--states=pending")
    ours = await _listed("Name", "--states=all", "--me")
    return list((waiting | ours).values())


def position(jobs: Sequence[SlurmJob], job: SlurmJob) -> int:
    """The place of a waiting job among those that wait in its partition, from 1."""
    waiting = [
        other for other in jobs if other.state == "PENDING" and other.partition == job.partition
    ]
    return 1 + sum(
        (-other.priority, other.number) < (-job.priority, job.number) for other in waiting
    )


def is_unanswered(complaint: str) -> bool:
    """Whether a command complains that it could not reach Slurm, and not that Slurm has decided
    against it.
    """
    return any(word in complaint.lower() for word in TRANSIENT_MESSAGES)


async def run(*command: str) -> str:
    """The output of a command.

    Raises `TransientExecutorError` if Slurm does not answer, `ExecutorError` if it refuses.
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
            output, complaint = await process.communicate()
    except BaseException as error:
        # A centre's command may be a script: what it has started may live on, and keep the pipes
        # open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process._transport.close()  # type: ignore[attr-defined]
        if isinstance(error, TimeoutError):
            raise TransientExecutorError(
                "Slurm's controller does not answer at the moment."
            ) from error
        raise
    text = complaint.decode(errors="replace").strip()
    if process.returncode:
        # Only what Slurm has decided is a refusal; all else may be different at the next attempt.
        if command[0] == "scontrol" and any(
            word in text.lower() for word in ("denied", "invalid", "disabled")
        ):
            raise ExecutorError(f"Slurm refuses: {text}.")
        raise TransientExecutorError(
            f"Slurm does not answer at the moment: {text or 'no reason given'}."
        )
    return output.decode(errors="replace")


async def _listed(name_column: str, *options: str) -> dict[int, SlurmJob]:
    """What `squeue` shows, by number."""
    columns = ("JobID", "State", "Partition", "PriorityLong", "RestartCnt", name_column, "Reason")
    layout = ",".join(f"{column}:{_SEPARATOR}" for column in columns)
    output = await run("squeue", "--noheader", *options, f"--Format={layout}")
    jobs = [job for line in output.splitlines() if (job := _parsed(line)) is not None]
    return {job.number: job for job in jobs}


def _parsed(line: str) -> SlurmJob | None:
    """The job of a line; None for parts of arrays, which are never ours."""
    number, state, partition, priority, restarts, name, reason = line.split(_SEPARATOR, 6)
    if not number.isdecimal():
        return None
    reason = reason.rstrip().removesuffix(_SEPARATOR)
    return SlurmJob(int(number), state, partition, int(priority), reason, name, int(restarts))

"""The mapping of Slurm's job states: one table, total over them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ucloud_orchestrator.models.job import JobState
from ucloud_orchestrator.provider.errors import UnknownSlurmState


class SlurmPhase(Enum):
    """The phase of a Slurm job. A job that Slurm holds in its queue is PENDING."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    ENDED = "ended"


@dataclass(frozen=True)
class SlurmStateMapping:
    """The meaning of one Slurm state.

    `end` is the final state of our job, and `text` the reason in its final report. An ended Slurm
    job without `end` is judged by the exit codes of its ranks. A fault of the scheduler or the
    hardware is FAILURE; a fault of the program is not. Any other `text` is only for the table in
    the documentation.
    """

    phase: SlurmPhase
    text: str
    end: JobState | None = None


STATES = {
    "PENDING": SlurmStateMapping(SlurmPhase.PENDING, "waits for its nodes"),
    "CONFIGURING": SlurmStateMapping(SlurmPhase.PENDING, "its nodes are made ready"),
    "REQUEUED": SlurmStateMapping(SlurmPhase.PENDING, "is put back into the queue"),
    "REQUEUE_FED": SlurmStateMapping(
        SlurmPhase.PENDING, "is put back into the queue of a federation"
    ),
    "REQUEUE_HOLD": SlurmStateMapping(
        SlurmPhase.PENDING, "is put back into the queue and held there"
    ),
    "RESV_DEL_HOLD": SlurmStateMapping(
        SlurmPhase.PENDING, "is held, since its reservation was deleted"
    ),
    "SPECIAL_EXIT": SlurmStateMapping(
        SlurmPhase.PENDING, "is put back into the queue and held in a special state"
    ),
    "RUNNING": SlurmStateMapping(SlurmPhase.RUNNING, "runs"),
    "RESIZING": SlurmStateMapping(SlurmPhase.RUNNING, "changes its size"),
    "SIGNALING": SlurmStateMapping(SlurmPhase.RUNNING, "is sent a signal"),
    "COMPLETING": SlurmStateMapping(SlurmPhase.RUNNING, "ends"),
    "STAGE_OUT": SlurmStateMapping(SlurmPhase.RUNNING, "its files are staged out"),
    "SUSPENDED": SlurmStateMapping(SlurmPhase.SUSPENDED, "is suspended"),
    "STOPPED": SlurmStateMapping(SlurmPhase.SUSPENDED, "is stopped, and keeps its cores"),
    "COMPLETED": SlurmStateMapping(SlurmPhase.ENDED, "ended with exit code 0"),
    "FAILED": SlurmStateMapping(SlurmPhase.ENDED, "ended with another exit code"),
    "OUT_OF_MEMORY": SlurmStateMapping(
        SlurmPhase.ENDED,
        "The job used more memory than its product has and was ended.",
        JobState.SUCCESS,
    ),
    "TIMEOUT": SlurmStateMapping(
        SlurmPhase.ENDED, "The job reached the time limit of its Slurm job.", JobState.EXPIRED
    ),
    "DEADLINE": SlurmStateMapping(
        SlurmPhase.ENDED, "The job reached its deadline in Slurm.", JobState.EXPIRED
    ),
    "CANCELLED": SlurmStateMapping(
        SlurmPhase.ENDED, "The job was cancelled in Slurm by an administrator.", JobState.FAILURE
    ),
    "NODE_FAIL": SlurmStateMapping(SlurmPhase.ENDED, "A node of the job failed.", JobState.FAILURE),
    "BOOT_FAIL": SlurmStateMapping(
        SlurmPhase.ENDED, "A node of the job could not be booted.", JobState.FAILURE
    ),
    "LAUNCH_FAILED": SlurmStateMapping(
        SlurmPhase.ENDED, "Slurm could not launch the job.", JobState.FAILURE
    ),
    "RECONFIG_FAIL": SlurmStateMapping(
        SlurmPhase.ENDED, "A node of the job could not be configured.", JobState.FAILURE
    ),
    "PREEMPTED": SlurmStateMapping(
        SlurmPhase.ENDED, "The job had to make room for another one.", JobState.FAILURE
    ),
    "REVOKED": SlurmStateMapping(
        SlurmPhase.ENDED,
        "The job was started by another cluster of the federation.",
        JobState.FAILURE,
    ),
}
"""By Slurm's long names, as in `squeue --Format=State`."""


def mapping_of(state: str) -> SlurmStateMapping:
    """Return the mapping of a Slurm state. Raises `UnknownSlurmState`."""
    try:
        return STATES[state]
    except KeyError:
        raise UnknownSlurmState(
            f"Slurm reports a job as {state!r}, which has no meaning here."
        ) from None


def table() -> str:
    """Render the table in Markdown, as in docs/operators/slurm.md."""
    lines = ["| Slurm state | phase | final state | text |", "| --- | --- | --- | --- |"]
    for state, mapping in STATES.items():
        end = (
            mapping.end.value
            if mapping.end
            else ("by exit codes" if mapping.phase is SlurmPhase.ENDED else "")
        )
        lines.append(f"| {state} | {mapping.phase.value} | {end} | {mapping.text} |")
    return "\n".join(lines) + "\n"

"""Slurm's job states and what they mean for a job: one table, total over Slurm's states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ucloud_orchestrator.models.job import JobState
from ucloud_orchestrator.provider.errors import UnknownSlurmState


class SlurmPhase(Enum):
    """How far a Slurm job has come."""

    WAITS = "waits"
    RUNS = "runs"
    IS_HELD = "is held"
    IS_OVER = "is over"


@dataclass(frozen=True)
class SlurmStateMapping:
    """The meaning of one Slurm state.

    `end` is the final state of our job, and `text` the reason; without `end` the exit codes of the
    ranks decide. A fault of the scheduler or the hardware is FAILURE; a fault of the program is
    not.
    """

    phase: SlurmPhase
    text: str
    end: JobState | None = None


STATES = {
    "PENDING": SlurmStateMapping(SlurmPhase.WAITS, "waits for its nodes"),
    "CONFIGURING": SlurmStateMapping(SlurmPhase.WAITS, "its nodes are made ready"),
    "REQUEUED": SlurmStateMapping(SlurmPhase.WAITS, "is put back into the queue"),
    "REQUEUE_FED": SlurmStateMapping(
        SlurmPhase.WAITS, "is put back into the queue of a federation"
    ),
    "REQUEUE_HOLD": SlurmStateMapping(
        SlurmPhase.WAITS, "is put back into the queue and held there"
    ),
    "RESV_DEL_HOLD": SlurmStateMapping(
        SlurmPhase.WAITS, "is held, since its reservation was deleted"
    ),
    "SPECIAL_EXIT": SlurmStateMapping(
        SlurmPhase.WAITS, "is put back into the queue and held in a special state"
    ),
    "RUNNING": SlurmStateMapping(SlurmPhase.RUNS, "runs"),
    "RESIZING": SlurmStateMapping(SlurmPhase.RUNS, "changes its size"),
    "SIGNALING": SlurmStateMapping(SlurmPhase.RUNS, "is sent a signal"),
    "COMPLETING": SlurmStateMapping(SlurmPhase.RUNS, "ends"),
    "STAGE_OUT": SlurmStateMapping(SlurmPhase.RUNS, "its files are staged out"),
    "SUSPENDED": SlurmStateMapping(SlurmPhase.IS_HELD, "is suspended"),
    "STOPPED": SlurmStateMapping(SlurmPhase.IS_HELD, "is stopped, and keeps its cores"),
    "COMPLETED": SlurmStateMapping(SlurmPhase.IS_OVER, "ended with exit code 0"),
    "FAILED": SlurmStateMapping(SlurmPhase.IS_OVER, "ended with another exit code"),
    "OUT_OF_MEMORY": SlurmStateMapping(
        SlurmPhase.IS_OVER,
        "The job used more memory than its product has and was ended.",
        JobState.SUCCESS,
    ),
    "TIMEOUT": SlurmStateMapping(
        SlurmPhase.IS_OVER, "The job reached the time limit of its Slurm job.", JobState.EXPIRED
    ),
    "DEADLINE": SlurmStateMapping(
        SlurmPhase.IS_OVER, "The job reached its deadline in Slurm.", JobState.EXPIRED
    ),
    "CANCELLED": SlurmStateMapping(
        SlurmPhase.IS_OVER, "The job was cancelled in Slurm by an administrator.", JobState.FAILURE
    ),
    "NODE_FAIL": SlurmStateMapping(
        SlurmPhase.IS_OVER, "A node of the job failed.", JobState.FAILURE
    ),
    "BOOT_FAIL": SlurmStateMapping(
        SlurmPhase.IS_OVER, "A node of the job could not be booted.", JobState.FAILURE
    ),
    "LAUNCH_FAILED": SlurmStateMapping(
        SlurmPhase.IS_OVER, "Slurm could not launch the job.", JobState.FAILURE
    ),
    "RECONFIG_FAIL": SlurmStateMapping(
        SlurmPhase.IS_OVER, "A node of the job could not be configured.", JobState.FAILURE
    ),
    "PREEMPTED": SlurmStateMapping(
        SlurmPhase.IS_OVER, "The job had to make room for another one.", JobState.FAILURE
    ),
    "REVOKED": SlurmStateMapping(
        SlurmPhase.IS_OVER,
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
    """The table in Markdown, as it stands in docs/operators/slurm.md."""
    lines = ["| Slurm | the job | our end | text |", "| --- | --- | --- | --- |"]
    for state, mapping in STATES.items():
        end = (
            mapping.end.value
            if mapping.end
            else ("by exit codes" if mapping.phase is SlurmPhase.IS_OVER else "")
        )
        lines.append(f"| {state} | {mapping.phase.value} | {end} | {mapping.text} |")
    return "\n".join(lines) + "\n"

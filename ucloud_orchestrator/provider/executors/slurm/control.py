"""Reading of a Slurm job's control directories, which the scripts on its nodes write."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from ucloud_orchestrator.provider.executors.replica import (
    ReplicaPhase,
    ReplicaStatus,
    read_exit_code,
)
from ucloud_orchestrator.provider.executors.slurm.observation import ControlFiles

SUBMISSION_TIMEOUT = 15.0
"""Seconds for which a submission whose answer was lost may still reach Slurm."""


def read(directory: Path, replicas: int) -> ControlFiles:
    return ControlFiles(
        replicas=[_replica_status(replica_directory(directory, rank)) for rank in range(replicas)],
        has_begun=(directory / "begun").exists(),
        slurm_job_id=slurm_job_id(directory),
        restarts=_read_number(directory / "begun" / "restarts"),
        is_submitted=(directory / "submitted").exists(),
        is_submitting=_is_submitting(directory),
        was_stopped=(directory / "stopped").exists(),
        failure=_read_failure(directory),
    )


def replica_directory(directory: Path, rank: int) -> Path:
    return directory / f"replica-{rank}"


def slurm_job_id(directory: Path) -> int | None:
    """Return the id of the Slurm job that has begun to run the job."""
    return _read_number(directory / "begun" / "slurm-job")


def _replica_status(control: Path) -> ReplicaStatus:
    if (end := read_exit_code(control)) is not None:
        return end
    if not (control / "started").is_dir():
        return ReplicaStatus(ReplicaPhase.NOT_STARTED)
    has_host = (control / "host").exists()
    return ReplicaStatus(ReplicaPhase.RUNNING if has_host else ReplicaPhase.STARTING)


def _is_submitting(directory: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - (directory / "submitting").stat().st_mtime < SUBMISSION_TIMEOUT
    return False


def _read_failure(directory: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return (directory / "begun" / "failed").read_text().strip() or None
    return None


def _read_number(file: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(file.read_text())
    return None

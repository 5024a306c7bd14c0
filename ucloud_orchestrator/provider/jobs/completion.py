"""The end of a job: what ended it, what is said of it, and what is kept of its files."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from ucloud_orchestrator.models.job import Job, JobState, JobUpdate
from ucloud_orchestrator.models.parameter_values import FileValue
from ucloud_orchestrator.provider.errors import OutputError
from ucloud_orchestrator.provider.executors.base import JobObservation
from ucloud_orchestrator.provider.executors.replica import Phase, ReplicaStatus
from ucloud_orchestrator.provider.files import output_files
from ucloud_orchestrator.provider.jobs.database import JobRecord
from ucloud_orchestrator.provider.jobs.directories import JobFolders
from ucloud_orchestrator.provider.jobs.preparation import resolved

log = logging.getLogger(__name__)


def collect(job: Job, folders: JobFolders) -> list[str]:
    """Move the job's output to where it is kept; returns what could not be moved.

    May be repeated after a crash.
    """
    application, _ = resolved(job)
    values = (*job.specification.parameters.values(), *job.specification.resources)
    mounts = {
        value.path.rstrip("/").rpartition("/")[2]
        for value in values
        if isinstance(value, FileValue)
    }
    try:
        output = folders.make_output(job.id)
    except (OSError, OutputError) as error:
        log.warning("Nothing of the job %s is kept: %s", job.id, error)
        return ["all of it"]
    return output_files.collect(folders.work(job.id), output, application.output_file_globs, mounts)


def first_failed_rank(conditions: Sequence[ReplicaStatus]) -> int | None:
    """The rank whose failure ends the job: the first that failed or vanished."""
    lost = [rank for rank, condition in enumerate(conditions) if condition.has_failed]
    return min(lost, key=lambda rank: conditions[rank].ended_at, default=None)


def billable_until(conditions: Sequence[ReplicaStatus], now: int) -> int:
    """Until when a job has used what it pays for, in milliseconds: now, or the end of the last of
    its replicas.
    """
    last = max(condition.ended_at for condition in conditions)
    return now if math.isinf(last) else min(now, int(last * 1000))


def final_update(
    taken: JobRecord, standing: JobObservation, lost: int | None, failure: str | None
) -> JobUpdate:
    """What is reported of the end of a job of which nothing runs any more; `failure` is why it
    could not be started.
    """
    if failure is not None:
        return JobUpdate(state=JobState.FAILURE, status=failure)
    conditions = standing.conditions
    codes = ", ".join(
        f"rank {rank}: {_code(condition)}" for rank, condition in enumerate(conditions)
    )
    if taken.stop_requested:
        return JobUpdate(state=JobState.SUCCESS, status="Your job has been cancelled!")
    if standing.end is not None:
        return standing.end.model_copy(
            update={"status": f"{standing.end.status} Exit codes: {codes}."}
        )
    if vanished := [
        str(rank) for rank, condition in enumerate(conditions) if condition.phase is Phase.VANISHED
    ]:
        who = f"The replica{'s' if len(vanished) > 1 else ''} of rank {', '.join(vanished)}"
        text = f"{who} vanished without an exit code: the machine or its processes were stopped."
        others = f" Exit codes: {codes}." if len(conditions) > len(vanished) else ""
        return JobUpdate(state=JobState.FAILURE, status=text + others)
    if len(conditions) == 1:
        return JobUpdate(
            state=JobState.SUCCESS,
            status=f"The job has finished with exit code {_code(conditions[0])}.",
        )
    first = f" Rank {lost} ended the job." if lost is not None else ""
    return JobUpdate(
        state=JobState.SUCCESS, status=f"The job has finished with exit codes {codes}.{first}"
    )


def _code(condition: ReplicaStatus) -> str:
    return "none" if condition.exit_code is None else str(condition.exit_code)

"""Make a `JobObservation` of control directories and Slurm's queue: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ucloud_orchestrator.models.job import JobState, JobUpdate
from ucloud_orchestrator.provider.executors.base import JobObservation
from ucloud_orchestrator.provider.executors.replica import ReplicaPhase, ReplicaStatus
from ucloud_orchestrator.provider.executors.slurm.commands import SlurmJob
from ucloud_orchestrator.provider.executors.slurm.states import SlurmPhase

FILE_TIMEOUT = 5.0
"""Seconds after the end of a Slurm job in which exit codes appear on a shared file system."""
SIGNAL_EXIT_CODES = 128
"""From here on an exit code of the shell stands for a signal that ended the program."""


@dataclass(frozen=True)
class ControlFiles:
    replicas: Sequence[ReplicaStatus]
    has_begun: bool = False
    """Whether a Slurm job has begun to run this job."""
    slurm_job_id: int | None = None
    """The id of that Slurm job."""
    restarts: int | None = None
    """Slurm's count of requeues when it began."""
    is_submitted: bool = False
    is_submitting: bool = False
    """Whether an `sbatch`, perhaps of a killed process, may still reach Slurm."""
    was_stopped: bool = False
    """Whether the provider has cancelled the Slurm job."""
    failure: str | None = None
    """Why a rank could not be started."""


@dataclass(frozen=True)
class QueueView:
    """The last poll of Slurm's queue, for one job."""

    slurm_job: SlurmJob | None = None
    last_seen: SlurmJob | None = None
    """The job as it was seen after its end; Slurm forgets ended jobs (`MinJobAge`)."""
    is_polled_since_submission: bool = False
    is_polled_since_begin: bool = True
    seconds_since_end: float = 0.0
    """Since it was first seen that the Slurm job is over or gone."""
    complaint: str | None = None
    """Why the last poll had no answer."""
    waiting_text: str | None = None


def is_over(files: ControlFiles, queue: QueueView) -> bool:
    """Check if Slurm runs nothing of the job, and will not."""
    is_known = queue.is_polled_since_submission and not files.is_submitting
    return is_known and (queue.slurm_job is None or queue.slurm_job.is_over)


def is_submitted(files: ControlFiles, queue: QueueView) -> bool:
    """Check if Slurm has the job, or had it."""
    return files.has_begun or files.is_submitted or queue.slurm_job is not None


def interpret(files: ControlFiles, queue: QueueView) -> JobObservation:
    if not is_submitted(files, queue):
        return _not_submitted(files, queue)
    replicas = files.replicas
    if _is_restarted(files, queue.slurm_job or queue.last_seen):
        # What the earlier attempt left does not count.
        replicas = [ReplicaStatus(ReplicaPhase.NOT_STARTED)] * len(replicas)
    if not is_over(files, queue):
        return _unfinished(files, queue, replicas)
    have_ended = all(replica.phase is ReplicaPhase.ENDED for replica in replicas)
    if not have_ended and files.failure is None and queue.seconds_since_end < FILE_TIMEOUT:
        return JobObservation(replicas, is_settled=False, is_submitted=True)
    return _finished(files, queue.slurm_job or queue.last_seen, replicas)


def _not_submitted(files: ControlFiles, queue: QueueView) -> JobObservation:
    is_known = queue.is_polled_since_submission and not files.is_submitting
    text = None
    if queue.complaint is not None and not queue.is_polled_since_submission:
        text = f"Your job waits to be submitted. {queue.complaint}"
    return JobObservation(
        files.replicas, is_settled=is_known, is_submitted=False, waiting_text=text
    )


def _is_restarted(files: ControlFiles, slurm_job: SlurmJob | None) -> bool:
    """Check if Slurm has requeued the job since the attempt of the control directories began."""
    if slurm_job is None or files.slurm_job_id is None or files.restarts is None:
        return False
    return slurm_job.restarts > files.restarts


def _unfinished(
    files: ControlFiles, queue: QueueView, replicas: Sequence[ReplicaStatus]
) -> JobObservation:
    slurm_job = queue.slurm_job
    waits = slurm_job is not None and slurm_job.mapping.phase is SlurmPhase.PENDING
    if not _is_restarted(files, slurm_job):
        # A poll of the time before the job began shows it in the queue still.
        is_old = files.slurm_job_id is not None and not queue.is_polled_since_begin
        if not waits or is_old:
            return JobObservation(replicas, is_settled=False, is_submitted=True)
    return JobObservation(
        [ReplicaStatus(ReplicaPhase.NOT_STARTED)] * len(replicas),
        is_settled=False,
        is_submitted=True,
        is_queued=True,
        waiting_text=queue.waiting_text if waits else None,
    )


def _finished(
    files: ControlFiles, slurm_job: SlurmJob | None, replicas: Sequence[ReplicaStatus]
) -> JobObservation:
    # What another rank or the provider ended has no exit code if it had to be killed.
    is_explained = files.was_stopped or any(replica.exit_code for replica in replicas)
    lost = ReplicaStatus(ReplicaPhase.ENDED if is_explained else ReplicaPhase.VANISHED)
    replicas = [lost if replica.is_active else replica for replica in replicas]
    end = None
    if files.failure is not None:
        end = JobUpdate(state=JobState.FAILURE, status=files.failure)
    elif slurm_job is not None and any(replica.exit_code != 0 for replica in replicas):
        end = _scheduler_end(slurm_job, files.was_stopped, replicas)
    has_begun = any(replica.is_over for replica in replicas)
    if end is None and (has_begun or not files.was_stopped):
        replicas = [replica if replica.is_over else lost for replica in replicas]
    return JobObservation(replicas, is_settled=True, is_submitted=True, end=end)


def _scheduler_end(
    slurm_job: SlurmJob, was_stopped: bool, replicas: Sequence[ReplicaStatus]
) -> JobUpdate | None:
    """Return the end that Slurm reports, unless exit codes or the provider's cancel explain it.

    A controller that was killed may requeue jobs that have ended, and cancel them when a node
    rejects them. So a fault after the end of all ranks does not count.
    """
    mapping = slurm_job.mapping
    if mapping.end is None or (was_stopped and slurm_job.state == "CANCELLED"):
        return None
    ended_by_themselves = all(
        replica.exit_code is not None and replica.exit_code < SIGNAL_EXIT_CODES
        for replica in replicas
    )
    if mapping.end is JobState.FAILURE and ended_by_themselves:
        return None
    return JobUpdate(state=mapping.end, status=mapping.text)

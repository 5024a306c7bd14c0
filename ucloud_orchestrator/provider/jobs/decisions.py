"""What the reconciler does with a job: one table, total and without I/O.

`docs/how-it-works/provider-decisions.md` is generated from it by
`python docs/generate_provider_decisions.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ucloud_orchestrator.models.job import Job, JobState, JobUpdate
from ucloud_orchestrator.provider.executors.base import JobObservation
from ucloud_orchestrator.provider.executors.replica import ReplicaPhase, ReplicaStatus

START_ATTEMPTS = 3
"""Starts of a job, where each leaves a replica that has not begun."""
START_BACKOFF = 1000
"""Milliseconds between two starts of a job."""
RUNNING = JobUpdate(state=JobState.RUNNING, status="Your job is now running.")
REQUEUED = JobUpdate(
    state=JobState.IN_QUEUE,
    status="Your job is back in the queue, and will start again from its beginning.",
)


class DesiredState(StrEnum):
    """What the orchestrator wants of a job."""

    RUN = "run"
    STOP = "stop"


class JobPhase(StrEnum):
    """How far a job has come; the provider's database keeps it."""

    PENDING = "pending"
    """Accepted, and not reported as running; also after a requeue."""
    RUNNING = "running"
    """Reported as running: every sandbox can be entered."""
    FAILED = "failed"
    """Could not be started; what has begun is being stopped."""
    ENDED = "ended"
    """The end is in the outbox."""


class Observed(StrEnum):
    """The class of a `JobObservation`."""

    UNKNOWN = "unknown"
    """A start is under way, or the executor does not know yet whether it has the job."""
    ABSENT = "absent"
    """Nothing has begun, and nothing will."""
    PARTIAL = "partial"
    """Some replicas have begun, and the others will not."""
    PARTIAL_ENDED = "partial, ended"
    """Some replicas began and have ended; the others will not begin."""
    QUEUED = "queued"
    """The scheduler has the job in its queue."""
    STARTING = "starting"
    """The executor has the job; not every sandbox can be entered yet."""
    RUNNING = "running"
    """Every replica runs or has ended with exit code 0."""
    FAILING = "failing"
    """A replica has failed, and others may still run."""
    ABORTED = "aborted"
    """The scheduler ended the job before every replica had begun."""
    ENDED = "ended"
    """Every replica has ended."""


class Action(StrEnum):
    """What the reconciler performs."""

    WAIT = "wait"
    """Do nothing in this pass."""
    START = "start"
    """Start the replicas that have not begun."""
    FAIL = "fail"
    """Give up: the last of the attempts to start the job has failed."""
    REPORT_WAITING = "report waiting"
    """Report why the job waits, each reason once."""
    REPORT_RUNNING = "report running"
    """Report RUNNING and start the meter."""
    REPORT_REQUEUED = "report requeued"
    """Report IN_QUEUE and pause the meter."""
    CHARGE = "charge"
    """Charge whole intervals."""
    STOP = "stop"
    """Ask the executor to end all replicas."""
    END = "end"
    """Keep the output, charge the rest and report the end."""


Row = dict[Observed, Action]

_STOP: Row = {
    Observed.UNKNOWN: Action.STOP,
    Observed.ABSENT: Action.END,
    Observed.PARTIAL: Action.STOP,
    Observed.PARTIAL_ENDED: Action.END,
    Observed.QUEUED: Action.STOP,
    Observed.STARTING: Action.STOP,
    Observed.RUNNING: Action.STOP,
    Observed.FAILING: Action.STOP,
    Observed.ABORTED: Action.END,
    Observed.ENDED: Action.END,
}
_NOTHING: Row = dict.fromkeys(Observed, Action.WAIT)

TABLE: Mapping[DesiredState, Mapping[JobPhase, Row]] = {
    DesiredState.RUN: {
        JobPhase.PENDING: {
            Observed.UNKNOWN: Action.REPORT_WAITING,
            Observed.ABSENT: Action.START,
            Observed.PARTIAL: Action.START,
            Observed.PARTIAL_ENDED: Action.START,
            Observed.QUEUED: Action.REPORT_WAITING,
            Observed.STARTING: Action.WAIT,
            Observed.RUNNING: Action.REPORT_RUNNING,
            Observed.FAILING: Action.STOP,
            Observed.ABORTED: Action.END,
            Observed.ENDED: Action.REPORT_RUNNING,
        },
        JobPhase.RUNNING: _STOP
        | {
            Observed.UNKNOWN: Action.WAIT,
            Observed.QUEUED: Action.REPORT_REQUEUED,
            Observed.STARTING: Action.WAIT,
            Observed.RUNNING: Action.CHARGE,
        },
        JobPhase.FAILED: _STOP,
        JobPhase.ENDED: _NOTHING,
    },
    DesiredState.STOP: {
        # A job that ran is reported as running first: its meter starts there.
        JobPhase.PENDING: _STOP
        | {Observed.RUNNING: Action.REPORT_RUNNING, Observed.ENDED: Action.REPORT_RUNNING},
        JobPhase.RUNNING: _STOP,
        JobPhase.FAILED: _STOP,
        JobPhase.ENDED: _NOTHING,
    },
}
"""Every action by desired state, phase and observation."""


@dataclass(frozen=True)
class JobRecord:
    """A job as the provider's database has it; `failure` is why it could not be started."""

    job: Job
    desired: DesiredState = DesiredState.RUN
    phase: JobPhase = JobPhase.PENDING
    failure: str | None = None

    @property
    def is_stop_requested(self) -> bool:
        return self.desired is DesiredState.STOP

    @property
    def has_ended(self) -> bool:
        return self.phase is JobPhase.ENDED

    @property
    def is_running(self) -> bool:
        """Whether the job was reported as running, and is not to be stopped."""
        return self.phase is JobPhase.RUNNING and not self.is_stop_requested


@dataclass(frozen=True)
class StartAttempts:
    """The starts of a job by this process; `not_before` in milliseconds since the epoch."""

    count: int = 0
    not_before: int = 0

    def next(self, now: int) -> StartAttempts:
        return StartAttempts(self.count + 1, now + START_BACKOFF)

    def is_backing_off(self, now: int) -> bool:
        """Whether the next start is not due; a clock that is set back delays none."""
        return 0 <= self.not_before - now <= START_BACKOFF


@dataclass(frozen=True)
class Decision:
    """An action, and its argument.

    `update` is the report of REPORT_WAITING, FAIL and END. `billable_until` is in milliseconds
    since the epoch.
    """

    action: Action
    billable_until: int
    update: JobUpdate | None = None


def decide(
    record: JobRecord,
    observation: JobObservation,
    now: int,
    attempts: StartAttempts = StartAttempts(),
) -> Decision:
    """Return what is to be done now (milliseconds since the epoch)."""
    action = TABLE[record.desired][record.phase][classify(observation)]
    update = None
    if action is Action.START and attempts.count >= START_ATTEMPTS:
        action = Action.FAIL
        update = JobUpdate(
            state=JobState.FAILURE,
            status=f"The job could not be started: of {START_ATTEMPTS} attempts none began all "
            "of its replicas.",
        )
    elif action is Action.START and attempts.is_backing_off(now):
        action = Action.WAIT
    elif action is Action.REPORT_WAITING and observation.waiting_text is not None:
        update = JobUpdate(status=observation.waiting_text)
    elif action is Action.END:
        update = final_update(record, observation)
    return Decision(action, billable_until(observation.replicas, now), update)


def classify(observation: JobObservation) -> Observed:
    replicas = observation.replicas
    if observation.is_queued:
        return Observed.QUEUED
    if observation.is_settled and not any(replica.is_active for replica in replicas):
        return _classify_inactive(observation)
    if observation.is_settled and not observation.is_submitted:
        return Observed.PARTIAL
    if any(replica.has_failed for replica in replicas):
        return Observed.FAILING
    if all(replica.is_over or replica.phase is ReplicaPhase.RUNNING for replica in replicas):
        return Observed.RUNNING
    return Observed.STARTING if observation.is_submitted else Observed.UNKNOWN


def _classify_inactive(observation: JobObservation) -> Observed:
    if all(replica.is_over for replica in observation.replicas):
        return Observed.ENDED
    if observation.is_submitted:
        return Observed.ABORTED
    has_begun = any(replica.is_over for replica in observation.replicas)
    return Observed.PARTIAL_ENDED if has_begun else Observed.ABSENT


def billable_until(replicas: Sequence[ReplicaStatus], now: int) -> int:
    """Return until when the job used its product: now, or the end of its last replica."""
    last = max(replica.ended_at for replica in replicas)
    return now if math.isinf(last) else min(now, int(last * 1000))


def first_failed_rank(replicas: Sequence[ReplicaStatus]) -> int | None:
    failed = [rank for rank, replica in enumerate(replicas) if replica.has_failed]
    return min(failed, key=lambda rank: replicas[rank].ended_at, default=None)


def final_update(record: JobRecord, observation: JobObservation) -> JobUpdate:
    replicas = observation.replicas
    if record.phase is JobPhase.FAILED:
        return JobUpdate(state=JobState.FAILURE, status=record.failure)
    if record.is_stop_requested:
        has_begun = any(replica.phase is not ReplicaPhase.NOT_STARTED for replica in replicas)
        before = "The job was cancelled before it was started."
        text = "Your job has been cancelled!" if has_begun else before
        return JobUpdate(state=JobState.SUCCESS, status=text)
    codes = ", ".join(f"rank {rank}: {_code(replica)}" for rank, replica in enumerate(replicas))
    if observation.end is not None:
        text = f"{observation.end.status} Exit codes: {codes}."
        return observation.end.model_copy(update={"status": text})
    if vanished := [rank for rank, replica in enumerate(replicas) if _is_lost(replica)]:
        return _vanished_update(vanished, "" if len(vanished) == len(replicas) else codes)
    if len(replicas) == 1:
        text = f"The job has finished with exit code {_code(replicas[0])}."
        return JobUpdate(state=JobState.SUCCESS, status=text)
    failed = first_failed_rank(replicas)
    first = f" Rank {failed} ended the job." if failed is not None else ""
    text = f"The job has finished with exit codes {codes}.{first}"
    return JobUpdate(state=JobState.SUCCESS, status=text)


def _vanished_update(ranks: Sequence[int], codes: str) -> JobUpdate:
    replicas = f"The replica{'s' if len(ranks) > 1 else ''} of rank {', '.join(map(str, ranks))}"
    text = f"{replicas} vanished without an exit code: the machine or its processes were stopped."
    others = f" Exit codes: {codes}." if codes else ""
    return JobUpdate(state=JobState.FAILURE, status=text + others)


def _is_lost(replica: ReplicaStatus) -> bool:
    """Whether a replica of an ended job has no end of its own."""
    return replica.phase in {ReplicaPhase.VANISHED, ReplicaPhase.NOT_STARTED}


def _code(replica: ReplicaStatus) -> str:
    return "none" if replica.exit_code is None else str(replica.exit_code)

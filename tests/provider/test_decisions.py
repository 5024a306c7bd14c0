"""The table of the provider's decisions: every desired state, phase and observation."""

from __future__ import annotations

from itertools import product

import pytest

from docs import generate_provider_decisions
from tests.builders import shell_job
from ucloud_orchestrator.models import Job, JobState, JobUpdate
from ucloud_orchestrator.provider.executors.base import JobObservation
from ucloud_orchestrator.provider.executors.replica import ReplicaPhase, ReplicaStatus
from ucloud_orchestrator.provider.jobs.decisions import (
    START_ATTEMPTS,
    START_BACKOFF,
    TABLE,
    Action,
    DesiredState,
    JobPhase,
    JobRecord,
    Observed,
    StartAttempts,
    classify,
    decide,
)

NOW = 1_000_000
JOB = Job.model_validate(shell_job("true", replicas=2))
NOT_STARTED, STARTING, RUNNING, VANISHED = (
    ReplicaStatus(phase)
    for phase in (
        ReplicaPhase.NOT_STARTED,
        ReplicaPhase.STARTING,
        ReplicaPhase.RUNNING,
        ReplicaPhase.VANISHED,
    )
)
SUCCEEDED, FAILED = (ReplicaStatus(ReplicaPhase.ENDED, code, 900.0) for code in (0, 3))


def observe(
    *replicas: ReplicaStatus, is_settled: bool = True, is_submitted: bool = True, **more: object
) -> JobObservation:
    return JobObservation(replicas, is_settled, is_submitted, **more)  # type: ignore[arg-type]


OBSERVATIONS = {
    Observed.UNKNOWN: observe(NOT_STARTED, NOT_STARTED, is_settled=False, is_submitted=False),
    Observed.ABSENT: observe(NOT_STARTED, NOT_STARTED, is_submitted=False),
    Observed.PARTIAL: observe(RUNNING, NOT_STARTED, is_submitted=False),
    Observed.PARTIAL_ENDED: observe(SUCCEEDED, NOT_STARTED, is_submitted=False),
    Observed.QUEUED: observe(NOT_STARTED, NOT_STARTED, is_settled=False, is_queued=True),
    Observed.STARTING: observe(RUNNING, STARTING),
    Observed.RUNNING: observe(RUNNING, SUCCEEDED),
    Observed.FAILING: observe(RUNNING, FAILED),
    Observed.ABORTED: observe(SUCCEEDED, NOT_STARTED, end=JobUpdate(state=JobState.FAILURE)),
    Observed.ENDED: observe(SUCCEEDED, FAILED),
}


def test_the_table_is_total() -> None:
    assert set(TABLE) == set(DesiredState)
    for phases in TABLE.values():
        assert set(phases) == set(JobPhase)
        assert all(set(row) == set(Observed) for row in phases.values())


@pytest.mark.parametrize(
    ("desired", "phase", "observed"), list(product(DesiredState, JobPhase, Observed))
)
def test_every_decision_is_the_tables_and_keeps_the_rules(
    desired: DesiredState, phase: JobPhase, observed: Observed
) -> None:
    observation = OBSERVATIONS[observed]
    assert classify(observation) is observed
    failure = "It could not be started." if phase is JobPhase.FAILED else None
    decision = decide(JobRecord(JOB, desired, phase, failure), observation, NOW)
    action = decision.action
    assert action is TABLE[desired][phase][observed]
    if phase is JobPhase.ENDED:
        assert action is Action.WAIT
    elif desired is DesiredState.STOP or phase is JobPhase.FAILED:
        assert action in {Action.STOP, Action.END, Action.REPORT_RUNNING}
    if action is Action.START:
        assert (desired, phase) == (DesiredState.RUN, JobPhase.PENDING)
        assert NOT_STARTED in observation.replicas
        assert not observation.is_submitted
    if action is Action.REPORT_RUNNING:
        # A second one cannot follow, and no sandbox is about to be made.
        assert phase is JobPhase.PENDING
        assert not {NOT_STARTED, STARTING} & set(observation.replicas)
    if action is Action.CHARGE:
        assert phase is JobPhase.RUNNING
    if action is Action.END:
        assert RUNNING not in observation.replicas
        assert observation.is_settled
        assert decision.update is not None
        assert decision.update.state is not None
        assert decision.update.state.is_terminal
    if any(replica.is_active for replica in observation.replicas):
        assert action is not Action.END


@pytest.mark.parametrize(
    ("replicas", "is_settled", "is_submitted", "observed"),
    [
        ([STARTING, STARTING], True, True, Observed.STARTING),
        ([RUNNING, NOT_STARTED], False, False, Observed.UNKNOWN),
        ([FAILED, NOT_STARTED], False, False, Observed.FAILING),
        ([SUCCEEDED, SUCCEEDED], False, True, Observed.RUNNING),
        ([RUNNING, VANISHED], True, True, Observed.FAILING),
        ([VANISHED, VANISHED], True, True, Observed.ENDED),
        ([NOT_STARTED, NOT_STARTED], True, True, Observed.ABORTED),
        ([NOT_STARTED, NOT_STARTED], False, True, Observed.STARTING),
    ],
)
def test_observations_have_one_class(
    replicas: list[ReplicaStatus], is_settled: bool, is_submitted: bool, observed: Observed
) -> None:
    assert classify(JobObservation(replicas, is_settled, is_submitted)) is observed


def test_a_start_is_repeated_after_a_backoff_a_few_times() -> None:
    record, absent, attempts = JobRecord(JOB), OBSERVATIONS[Observed.ABSENT], StartAttempts()
    for number in range(START_ATTEMPTS):
        now = NOW + number * (START_BACKOFF + 1)
        assert decide(record, absent, now, attempts).action is Action.START
        attempts = attempts.next(now)
        if number + 1 < START_ATTEMPTS:
            assert decide(record, absent, now + START_BACKOFF, attempts).action is Action.WAIT
    decision = decide(record, absent, NOW, attempts)
    assert decision.action is Action.FAIL
    assert decision.update is not None
    assert decision.update.state is JobState.FAILURE


def test_a_clock_that_is_set_back_delays_no_start() -> None:
    attempts = StartAttempts().next(NOW)
    earlier = NOW - 3_600_000
    absent = OBSERVATIONS[Observed.ABSENT]
    assert decide(JobRecord(JOB), absent, earlier, attempts).action is Action.START


def test_a_job_is_billed_until_the_end_of_its_last_replica() -> None:
    assert decide(JobRecord(JOB), observe(SUCCEEDED, FAILED), NOW).billable_until == 900_000
    assert decide(JobRecord(JOB), observe(SUCCEEDED, RUNNING), NOW).billable_until == NOW


@pytest.mark.parametrize(
    ("record", "observation", "state", "text"),
    [
        (
            JobRecord(JOB, DesiredState.STOP),
            observe(NOT_STARTED, NOT_STARTED),
            JobState.SUCCESS,
            "The job was cancelled before it was started.",
        ),
        (
            JobRecord(JOB, DesiredState.STOP, JobPhase.RUNNING),
            observe(VANISHED, VANISHED),
            JobState.SUCCESS,
            "Your job has been cancelled!",
        ),
        (
            JobRecord(JOB, DesiredState.STOP, JobPhase.FAILED, "Out of memory."),
            observe(NOT_STARTED, NOT_STARTED),
            JobState.FAILURE,
            "Out of memory.",
        ),
        (
            JobRecord(JOB, phase=JobPhase.RUNNING),
            observe(SUCCEEDED, VANISHED),
            JobState.FAILURE,
            "The replica of rank 1 vanished without an exit code: the machine or its processes "
            "were stopped. Exit codes: rank 0: 0, rank 1: none.",
        ),
        (
            JobRecord(JOB, phase=JobPhase.RUNNING),
            observe(NOT_STARTED, NOT_STARTED, is_submitted=False),
            JobState.FAILURE,
            "The replicas of rank 0, 1 vanished without an exit code: the machine or its processes "
            "were stopped.",
        ),
        (
            JobRecord(JOB, phase=JobPhase.RUNNING),
            observe(SUCCEEDED, FAILED),
            JobState.SUCCESS,
            "The job has finished with exit codes rank 0: 0, rank 1: 3. Rank 1 ended the job.",
        ),
    ],
)
def test_the_final_update_has_the_reason(
    record: JobRecord, observation: JobObservation, state: JobState, text: str
) -> None:
    update = decide(record, observation, NOW).update
    assert update is not None
    assert (update.state, update.status) == (state, text)


def test_the_document_is_made_from_the_table() -> None:
    assert generate_provider_decisions.DOCUMENT.read_text() == generate_provider_decisions.render()

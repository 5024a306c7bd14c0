"""The table of the lifecycle, and the rules of a provider's update."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs import generate_lifecycle
from tests import builders
from tests.builders import specification
from ucloud_orchestrator.models import (
    Job,
    JobState,
    JobStatus,
    JobUpdate,
    SimpleDuration,
)
from workflows import lifecycle
from workflows.lifecycle import TABLE, Event, UpdateOutcome

LIVE = [state for state in JobState if not state.is_terminal]
TERMINAL = [state for state in JobState if state.is_terminal]
HOUR = 3_600_000


def job_in(state: JobState, **status: int) -> Job:
    return builders.job(
        asked=specification(timeAllocation={"hours": 1}),
        status=JobStatus(state=state, **status),
        created_at=1000,
        updates=[JobUpdate(timestamp=1000, state=state)],
    )


def apply_one(job: Job, now: int = 2000, **update: object) -> tuple[Job, UpdateOutcome]:
    result = lifecycle.apply(job, [JobUpdate.model_validate(update)], now)
    return result.job, result.outcomes[0]


def test_the_table_is_total() -> None:
    assert set(TABLE) == set(JobState)
    assert all(set(row) == set(Event) for row in TABLE.values())


@pytest.mark.parametrize("state", TERMINAL)
@pytest.mark.parametrize("event", list(Event))
def test_a_terminal_state_absorbs_everything(state: JobState, event: Event) -> None:
    assert TABLE[state][event] == lifecycle.Transition(UpdateOutcome.ENDED, state)


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("end", TERMINAL)
def test_every_live_state_may_end_in_every_way(state: JobState, end: JobState) -> None:
    assert apply_one(job_in(state), state=end)[0].status.state is end


@pytest.mark.parametrize("reported", [JobState.IN_QUEUE, JobState.RUNNING, JobState.SUSPENDED])
def test_only_an_end_follows_canceling(reported: JobState) -> None:
    job = job_in(JobState.CANCELING)
    assert apply_one(job, state=reported, status="no") == (job, UpdateOutcome.ILLEGAL)


def test_a_requeue_is_real() -> None:
    job = job_in(JobState.RUNNING, started_at=1000, expires_at=1000 + HOUR)
    requeued, _ = apply_one(job, state="IN_QUEUE")
    again, _ = apply_one(requeued, now=5000, state="RUNNING")
    assert again.status == JobStatus(
        state=JobState.RUNNING, started_at=5000, expires_at=1000 + HOUR
    )


def test_running_sets_the_deadline() -> None:
    job, _ = apply_one(job_in(JobState.IN_QUEUE), now=4000, state="RUNNING")
    assert (job.status.started_at, job.status.expires_at) == (4000, 4000 + HOUR)


def test_text_changes_no_state() -> None:
    job, outcome = apply_one(job_in(JobState.SUSPENDED), status="still here")
    assert (job.status.state, job.updates[-1].status, outcome) == (
        JobState.SUSPENDED,
        "still here",
        UpdateOutcome.APPLIED,
    )


def test_the_same_text_twice_is_two_texts() -> None:
    result = lifecycle.apply(job_in(JobState.RUNNING), [JobUpdate(status="tick")] * 2, 2000)
    assert result.outcomes == [UpdateOutcome.APPLIED] * 2


def test_a_repeated_report_is_a_duplicate() -> None:
    job, _ = apply_one(job_in(JobState.IN_QUEUE), state="RUNNING", status="now running")
    job, _ = apply_one(job, status="half done")
    assert apply_one(job, state="RUNNING", status="now running") == (job, UpdateOutcome.DUPLICATE)
    assert apply_one(job, state="RUNNING") == (job, UpdateOutcome.DUPLICATE)
    assert apply_one(job, state="RUNNING", status="something new")[1] is UpdateOutcome.APPLIED


def test_an_unmet_guard_changes_nothing() -> None:
    job = job_in(JobState.RUNNING)
    assert apply_one(job, state="SUCCESS", expectedState="IN_QUEUE") == (job, UpdateOutcome.GUARDED)
    assert apply_one(job, state="RUNNING", status="x", expectedDifferentState=True) == (
        job,
        UpdateOutcome.GUARDED,
    )
    assert apply_one(job, state="SUCCESS", expectedState="RUNNING")[1] is UpdateOutcome.APPLIED


def test_a_new_allocation_moves_the_deadline() -> None:
    job = job_in(JobState.RUNNING, started_at=1000, expires_at=1000 + HOUR)
    job, _ = apply_one(job, newTimeAllocation=2 * HOUR)
    assert job.specification.time_allocation == SimpleDuration(hours=2)
    assert job.status.expires_at == 1000 + 2 * HOUR


def test_a_cancel_while_canceling_changes_nothing() -> None:
    job = job_in(JobState.CANCELING)
    assert lifecycle.cancel(job, "again", 2000) == lifecycle.Result(job, [UpdateOutcome.DUPLICATE])


UPDATES = st.builds(
    JobUpdate,
    state=st.none() | st.sampled_from(JobState),
    status=st.none() | st.text(max_size=5),
    new_time_allocation=st.none() | st.integers(1000, 10 * HOUR),
    expected_state=st.none() | st.sampled_from(JobState),
    expected_different_state=st.none() | st.booleans(),
)
STEPS = st.one_of(
    st.tuples(st.just("updates"), st.lists(UPDATES, max_size=4)),
    st.tuples(st.just("cancel"), st.none()),
    st.tuples(st.just("deadline"), st.none()),
    st.tuples(st.just("extend"), st.integers(1, 10 * HOUR)),
)


@given(st.lists(st.tuples(STEPS, st.integers(-5000, 5000)), max_size=30))
def test_no_sequence_breaks_the_rules(steps: list[tuple[tuple[str, object], int]]) -> None:
    job, now = job_in(JobState.IN_QUEUE), 1000
    for (kind, argument), passed in steps:
        before, now = job, now + passed  # a clock may be set back
        if kind == "updates":
            job = lifecycle.apply(job, argument, now).job  # type: ignore[arg-type]
        elif kind == "cancel":
            job = lifecycle.cancel(job, "cancel", now).job
        elif kind == "deadline":
            job = lifecycle.pass_deadline(job, "late", now).job
        elif not job.status.state.is_terminal:
            job = lifecycle.change_allocation(job, argument)  # type: ignore[arg-type]
        if before.status.state.is_terminal:
            assert job == before
        assert job.updates[: len(before.updates)] == before.updates
        assert job.status.state is [update.state for update in job.updates if update.state][-1]
        timestamps = [update.timestamp for update in job.updates]
        assert timestamps == sorted(timestamps)


def test_the_page_is_rendered_from_the_table() -> None:
    assert generate_lifecycle.DOCUMENT.read_text() == generate_lifecycle.render()

"""The states of a job and the transitions between them: one table, total, without I/O.

The rules are those of UCloud's `Job` ("States") and of the provider's `update` call.
`python docs/generate_lifecycle.py` renders the table as a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ucloud_orchestrator.models.job import (
    MILLISECONDS_PER_SECOND,
    TERMINAL_STATES,
    Job,
    JobOutput,
    JobState,
    JobUpdate,
    SimpleDuration,
)


class Event(StrEnum):
    """An event of a job: a report of its provider, a cancellation, or its deadline."""

    IN_QUEUE = "reported IN_QUEUE"
    RUNNING = "reported RUNNING"
    SUSPENDED = "reported SUSPENDED"
    CANCELING = "reported CANCELING"
    SUCCESS = "reported SUCCESS"
    FAILURE = "reported FAILURE"
    EXPIRED = "reported EXPIRED"
    TEXT = "text without a state"
    CANCEL = "cancel requested"
    DEADLINE = "time allocation ran out"


class UpdateOutcome(StrEnum):
    """The outcome of an event. Only `APPLIED` changes the job."""

    APPLIED = "applied"
    """The job changed its state, or has a new text."""
    DUPLICATE = "duplicate"
    """It repeats the current state."""
    GUARDED = "guard did not hold"
    """`expectedState` or `expectedDifferentState` was not met."""
    ILLEGAL = "illegal"
    """The state has no such transition."""
    ENDED = "job has ended"
    """A terminal state absorbs every event."""


@dataclass(frozen=True)
class Transition:
    outcome: UpdateOutcome
    state: JobState


def _row(state: JobState) -> dict[Event, Transition]:
    if state in TERMINAL_STATES:
        return {event: Transition(UpdateOutcome.ENDED, state) for event in Event}
    stay, illegal = (
        Transition(UpdateOutcome.APPLIED, state),
        Transition(UpdateOutcome.ILLEGAL, state),
    )
    row = {
        Event.TEXT: stay,
        # Only the orchestrator's own cancellation leads there: only it stops the job.
        Event.CANCELING: illegal,
        Event.SUCCESS: Transition(UpdateOutcome.APPLIED, JobState.SUCCESS),
        Event.FAILURE: Transition(UpdateOutcome.APPLIED, JobState.FAILURE),
        Event.EXPIRED: Transition(UpdateOutcome.APPLIED, JobState.EXPIRED),
    }
    if state is JobState.CANCELING:
        duplicate = Transition(UpdateOutcome.DUPLICATE, state)
        return row | {
            Event.IN_QUEUE: illegal,
            Event.RUNNING: illegal,
            Event.SUSPENDED: illegal,
            Event.CANCELING: duplicate,
            Event.CANCEL: duplicate,
            Event.DEADLINE: illegal,
        }
    return row | {
        Event.IN_QUEUE: Transition(UpdateOutcome.APPLIED, JobState.IN_QUEUE),
        Event.RUNNING: Transition(UpdateOutcome.APPLIED, JobState.RUNNING),
        Event.SUSPENDED: Transition(UpdateOutcome.APPLIED, JobState.SUSPENDED),
        Event.CANCEL: Transition(UpdateOutcome.APPLIED, JobState.CANCELING),
        Event.DEADLINE: Transition(UpdateOutcome.APPLIED, JobState.EXPIRED),
    }


TABLE: Mapping[JobState, Mapping[Event, Transition]] = {state: _row(state) for state in JobState}
"""The transition for each state and event.

A report of the current state adds its text; without a new text it is a duplicate.
"""


@dataclass(frozen=True)
class Result:
    """The job after a series of events, and the outcome of each."""

    job: Job
    outcomes: list[UpdateOutcome]


def apply(job: Job, updates: Sequence[JobUpdate], now: int) -> Result:
    """Apply the updates of one call in order.

    `now` is in milliseconds since the epoch and becomes their timestamp.
    """
    outcomes = []
    for update in updates:
        job, outcome = _apply_one(job, update, now)
        outcomes.append(outcome)
    return Result(job, outcomes)


def cancel(job: Job, status: str, now: int) -> Result:
    """Enter CANCELING. `status` is the sentence for the user."""
    return _apply_own_event(job, Event.CANCEL, status, now)


def pass_deadline(job: Job, status: str, now: int) -> Result:
    """Enter EXPIRED. `status` is the sentence for the user."""
    return _apply_own_event(job, Event.DEADLINE, status, now)


def change_allocation(job: Job, milliseconds: int) -> Job:
    """Set the whole time allocation, and move the deadline of a job that has started."""
    before = job.specification.time_allocation
    # An allocation of zero seconds is invalid: the job could not be parsed any more.
    allocation = SimpleDuration.from_milliseconds(max(milliseconds, MILLISECONDS_PER_SECOND))
    status = job.status
    if status.expires_at is not None and before is not None:
        moved = status.expires_at + allocation.milliseconds - before.milliseconds
        status = status.model_copy(update={"expires_at": moved})
    specification = job.specification.model_copy(update={"time_allocation": allocation})
    return job.model_copy(update={"specification": specification, "status": status})


def _apply_one(job: Job, update: JobUpdate, now: int) -> tuple[Job, UpdateOutcome]:
    current = job.status.state
    transition = TABLE[current][Event.TEXT if update.state is None else Event[update.state.name]]
    if transition.outcome is UpdateOutcome.ENDED:
        return job, transition.outcome
    if update.expected_state is not None and update.expected_state is not current:
        return job, UpdateOutcome.GUARDED
    if update.expected_different_state and update.state is current:
        return job, UpdateOutcome.GUARDED
    if transition.outcome is not UpdateOutcome.APPLIED:
        return job, transition.outcome
    if _changes_nothing(job, update):
        return job, UpdateOutcome.DUPLICATE
    if update.new_time_allocation is not None:
        job = change_allocation(job, update.new_time_allocation)
    if update.output_folder is not None:
        job = job.model_copy(update={"output": JobOutput(output_folder=update.output_folder)})
    return _enter_state(job, transition.state, update, now), UpdateOutcome.APPLIED


def _changes_nothing(job: Job, update: JobUpdate) -> bool:
    if update.state is None:
        return (
            update.status is None
            and update.output_folder is None
            and update.new_time_allocation is None
        )
    if update.state is not job.status.state:
        return False
    reported = (update.status, update.output_folder, update.new_time_allocation)
    last = next((past for past in reversed(job.updates) if past.state is update.state), None)
    return reported == (None, None, None) or (
        last is not None and reported == (last.status, last.output_folder, last.new_time_allocation)
    )


def _apply_own_event(job: Job, event: Event, status: str, now: int) -> Result:
    transition = TABLE[job.status.state][event]
    if transition.outcome is not UpdateOutcome.APPLIED:
        return Result(job, [transition.outcome])
    return Result(
        _enter_state(job, transition.state, JobUpdate(state=transition.state, status=status), now),
        [transition.outcome],
    )


def _enter_state(job: Job, state: JobState, update: JobUpdate, now: int) -> Job:
    status = job.status
    timestamp = max(now, job.updates[-1].timestamp if job.updates else job.created_at)
    if state is JobState.RUNNING and status.state is not JobState.RUNNING:
        allocation = job.specification.time_allocation
        expires_at = status.expires_at
        if expires_at is None and allocation is not None:
            expires_at = timestamp + allocation.milliseconds
        status = status.model_copy(update={"started_at": timestamp, "expires_at": expires_at})
    status = status.model_copy(update={"state": state})
    kept = update.model_copy(
        update={"timestamp": timestamp, "expected_state": None, "expected_different_state": None}
    )
    return job.model_copy(update={"status": status, "updates": [*job.updates, kept]})

"""The states of a job and every move between them: one table, total over states and events, and no
I/O.

The rules are those of UCloud's `Job` ("States") and of the provider's `update` call.
`docs/how-it-works/lifecycle.md` is generated from this table by `python
docs/generate_lifecycle.py`.
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
    """What can happen to a job: the provider reports a state or a text, somebody cancels, or its
    time runs out.
    """

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
    """What became of an event."""

    APPLIED = "applied"
    """The job changed its state, or kept a text."""
    DUPLICATE = "duplicate"
    """It says what is already so; nothing changed."""
    GUARDED = "guard did not hold"
    """`expectedState` or `expectedDifferentState` was not met; nothing changed."""
    ILLEGAL = "illegal"
    """There is no such move; nothing changed."""
    ENDED = "job has ended"
    """A terminal state absorbs everything; nothing changed."""


@dataclass(frozen=True)
class Transition:
    """An entry of the table: the verdict, and the state afterwards."""

    verdict: UpdateOutcome
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
        # Only a cancel request leads there, because only it stops the job
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
"""The whole life of a job.

A reported state that is the current one keeps its text, or is a duplicate without one.
"""


@dataclass(frozen=True)
class Outcome:
    """The job after a series of updates, and what became of each."""

    job: Job
    verdicts: list[UpdateOutcome]


def apply(job: Job, updates: Sequence[JobUpdate], now: int) -> Outcome:
    """Apply the updates of one call in order.

    `now` is in milliseconds since the epoch and becomes their timestamp.
    """
    verdicts = []
    for update in updates:
        job, verdict = _apply_one(job, update, now)
        verdicts.append(verdict)
    return Outcome(job, verdicts)


def cancel(job: Job, status: str, now: int) -> Outcome:
    """Somebody asked for the job's end."""
    return _apply_own_event(job, Event.CANCEL, status, now)


def pass_deadline(job: Job, status: str, now: int) -> Outcome:
    """The job's time allocation ran out."""
    return _apply_own_event(job, Event.DEADLINE, status, now)


def change_allocation(job: Job, milliseconds: int) -> Job:
    """Set the whole time allocation, and move the deadline of a job that has started.

    No state changes.
    """
    before = job.specification.time_allocation
    # Less than a second would be written as nothing, which is no allocation: nobody could read the
    # job any more.
    allocation = SimpleDuration.from_milliseconds(max(milliseconds, MILLISECONDS_PER_SECOND))
    status = job.status
    if status.expires_at is not None and before is not None:
        moved = status.expires_at + allocation.milliseconds - before.milliseconds
        status = status.model_copy(update={"expires_at": moved})
    specification = job.specification.model_copy(update={"time_allocation": allocation})
    return job.model_copy(update={"specification": specification, "status": status})


def _apply_one(job: Job, update: JobUpdate, now: int) -> tuple[Job, UpdateOutcome]:
    current = job.status.state
    move = TABLE[current][Event.TEXT if update.state is None else Event[update.state.name]]
    if move.verdict is UpdateOutcome.ENDED:
        return job, move.verdict
    if update.expected_state is not None and update.expected_state is not current:
        return job, UpdateOutcome.GUARDED
    if update.expected_different_state and update.state is current:
        return job, UpdateOutcome.GUARDED
    if move.verdict is not UpdateOutcome.APPLIED:
        return job, move.verdict
    if _changes_nothing(job, update):
        return job, UpdateOutcome.DUPLICATE
    if update.new_time_allocation is not None:
        job = change_allocation(job, update.new_time_allocation)
    if update.output_folder is not None:
        job = job.model_copy(update={"output": JobOutput(output_folder=update.output_folder)})
    return _enter_state(job, move.state, update, now), UpdateOutcome.APPLIED


def _changes_nothing(job: Job, update: JobUpdate) -> bool:
    if update.state is None:
        return (
            update.status is None
            and update.output_folder is None
            and update.new_time_allocation is None
        )
    if update.state is not job.status.state:
        return False
    said = (update.status, update.output_folder, update.new_time_allocation)
    last = next((past for past in reversed(job.updates) if past.state is update.state), None)
    return said == (None, None, None) or (
        last is not None and said == (last.status, last.output_folder, last.new_time_allocation)
    )


def _apply_own_event(job: Job, event: Event, status: str, now: int) -> Outcome:
    move = TABLE[job.status.state][event]
    if move.verdict is not UpdateOutcome.APPLIED:
        return Outcome(job, [move.verdict])
    return Outcome(
        _enter_state(job, move.state, JobUpdate(state=move.state, status=status), now),
        [move.verdict],
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

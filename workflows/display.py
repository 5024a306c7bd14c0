"""What operators see of a job in the Temporal Web UI: search attributes and current details."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate
from temporalio.exceptions import ApplicationError

from ucloud_orchestrator.models.job import JobState
from ucloud_orchestrator.temporal.names import (
    JOB_PROVIDER_GENERATED_ID,
    JOB_STATE,
    SEARCH_ATTRIBUTES,
)
from ucloud_orchestrator.temporal.search_attributes import search_attributes
from ucloud_orchestrator.temporal.user_metadata import code, table
from workflows.job_state import Phase, WorkflowState

_KEYS = {name: SearchAttributeKey.for_keyword(name) for name in SEARCH_ATTRIBUTES}
_MEANING = {
    JobState.IN_QUEUE: "The provider has the job, or is about to get it; it waits for its turn.",
    JobState.RUNNING: "All replicas run.",
    JobState.SUSPENDED: "The provider holds the job; its time allocation goes on.",
    JobState.CANCELING: "The provider is stopping the job.",
    JobState.SUCCESS: "The job has ended without a fault of the provider. The last update has the "
    "exit of its program.",
    JobState.FAILURE: "The scheduler, the hardware or the provider failed.",
    JobState.EXPIRED: "The time allocation ran out.",
}


class Display:
    def __init__(self, state: WorkflowState) -> None:
        self._state = state
        self._is_rejected = False
        self._are_details_due = False

    def refresh(self) -> None:
        """Update the search attributes that changed, and schedule the current details.

        The details are written once for all that a task brings: thousands of reports may wait.
        """
        self._upsert_search_attributes()
        if not self._are_details_due:
            self._are_details_due = True
            asyncio.get_running_loop().call_soon(self._set_details)

    def show_rejection(self, rejection: ApplicationError) -> None:
        """Show the rejection, and remove the state: a rejected job is not queued."""
        self._is_rejected = True
        workflow.upsert_search_attributes([_KEYS[JOB_STATE].value_unset()])
        workflow.set_current_details(
            f"**Rejected** ({code(rejection.type)}): {code(rejection.message)}\n\n"
            "The job holds nothing and does not run anywhere. Its owner got the same message."
        )

    def _upsert_search_attributes(self) -> None:
        job, provider_generated_id = self._state.job, self._state.provider_generated_id
        shown = {pair.key.name: pair.value for pair in workflow.info().typed_search_attributes}
        wanted = search_attributes(job)
        changes: list[SearchAttributeUpdate[str]] = []
        for name, key in _KEYS.items():
            value = wanted.get(name)
            if name != JOB_PROVIDER_GENERATED_ID and shown.get(name) != value:
                changes.append(key.value_unset() if value is None else key.value_set(value))
        if changes and provider_generated_id not in {None, job.id}:
            # Only along with another change: it is not worth an event of its own.
            changes.append(_KEYS[JOB_PROVIDER_GENERATED_ID].value_set(provider_generated_id[:255]))
        if changes:
            workflow.upsert_search_attributes(changes)

    def _set_details(self) -> None:
        self._are_details_due = False
        if not self._is_rejected:
            workflow.set_current_details(details(self._state))


def details(state: WorkflowState) -> str:
    """Render the current details in Markdown. It takes time in proportion to the updates."""
    job = state.job
    last = job.updates[-1] if job.updates else None
    cancel = next((update for update in job.updates if update.state is JobState.CANCELING), None)
    rows = {
        "Waits for": waiting_reason(state),
        "In this state since": time_of(_state_since(state)),
        "Started": time_of(job.status.started_at),
        "Runs out of time at": "" if state.has_ended else time_of(job.status.expires_at),
        "Cancelled at": time_of(cancel.timestamp) if cancel else "",
        "Reason of the cancellation": code((cancel.status or "")[:500]) if cancel else "",
        "Last update": code((last.status or "")[:500]) if last else "",
        "Updated at": time_of(last.timestamp) if last and last.status else "",
        "Credits charged": str(job.billing.credits_charged) if job.billing.price_per_unit else "",
        "Price per unit": str(job.billing.price_per_unit) if job.billing.price_per_unit else "",
        "Output folder": code(job.output.output_folder or "") if job.output else "",
        "Name at the provider": _code(state.provider_generated_id),
        "Ignored updates": str(state.ignored_updates) if state.ignored_updates else "",
    }
    meaning = _MEANING[job.status.state]
    if cancel is not None and job.status.state is JobState.SUCCESS:
        meaning = "The job was cancelled, and has stopped. That is not a fault of the provider."
    return f"**{job.status.state}**: {meaning}\n\n{table(rows)}"


def waiting_reason(state: WorkflowState) -> str:
    if state.has_ended:
        if state.phase is Phase.SETTLEMENT:
            return "nothing: it is in the archive"
        return "the settlement: release, bill, archive"
    if state.phase is Phase.PENDING:
        if state.batch is not None:
            return f"its batch `{state.batch.batch_id}`"
        if not state.may_be_at_provider:
            return "admission: the check of all that it asks for"
        return f"the answer of `{state.provider}` to its submission, retried until there is one"
    if state.out_of_credits_since is not None:
        return "credits, or its stop: the wallet is empty"
    return {
        JobState.IN_QUEUE: f"`{state.provider}` to start it",
        JobState.RUNNING: "its end, or its deadline",
        JobState.SUSPENDED: "a user to resume it; its time goes on",
    }.get(state.job.status.state, f"`{state.provider}` to confirm that it has stopped")


def _state_since(state: WorkflowState) -> int | None:
    updates = reversed(state.job.updates)
    current = state.job.status.state
    return next((update.timestamp for update in updates if update.state is current), None)


def _code(value: str | None) -> str:
    return code(value) if value else ""


def time_of(milliseconds: int | None) -> str:
    """Format a time for people; None is empty."""
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # after the year 9999
        return f"{milliseconds} ms after 1970"

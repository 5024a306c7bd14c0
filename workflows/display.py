"""What operators see of a job in the Temporal Web UI: its search attributes and its current details
(Markdown).
"""

from __future__ import annotations

from datetime import UTC, datetime

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from ucloud_orchestrator.models.job import Job, JobState
    from ucloud_orchestrator.temporal.names import (
        JOB_PROVIDER_GENERATED_ID,
        JOB_STATE,
        SEARCH_ATTRIBUTES,
    )
    from ucloud_orchestrator.temporal.search_attributes import search_attributes
    from ucloud_orchestrator.temporal.user_metadata import code, table

_KEYS = {name: SearchAttributeKey.for_keyword(name) for name in SEARCH_ATTRIBUTES}
_MEANING = {
    JobState.IN_QUEUE: "The provider has the job, or is about to get it; it waits for its turn.",
    JobState.RUNNING: "All replicas run.",
    JobState.SUSPENDED: "The provider holds the job; its time allocation goes on.",
    JobState.CANCELING: "The provider is stopping the job.",
    JobState.SUCCESS: "The job has ended without a fault of the provider; how its program ended "
    "is in the last word.",
    JobState.FAILURE: "The scheduler, the hardware or the provider failed.",
    JobState.EXPIRED: "The time allocation ran out.",
}


def show(job: Job, provider_generated_id: str | None) -> None:
    """Let the search attributes follow the job: an event only where one changes."""
    shown = {pair.key.name: pair.value for pair in workflow.info().typed_search_attributes}
    changes: list[SearchAttributeUpdate[str]] = []
    wanted = search_attributes(job)
    for name, key in _KEYS.items():
        value = wanted.get(name)
        if name != JOB_PROVIDER_GENERATED_ID and shown.get(name) != value:
            changes.append(key.value_unset() if value is None else key.value_set(value))
    if changes and provider_generated_id not in {None, job.id}:
        # Only along with another change: it is not worth an event of its own.
        changes.append(_KEYS[JOB_PROVIDER_GENERATED_ID].value_set(provider_generated_id[:255]))
    if changes:
        workflow.upsert_search_attributes(changes)


def describe(
    job: Job, waits_for: str, provider_generated_id: str | None, ignored_updates: int
) -> None:
    """Write the current details anew. It goes through all updates of the job."""
    workflow.set_current_details(_details(job, waits_for, provider_generated_id, ignored_updates))


def show_refusal(job: Job, refusal: ApplicationError) -> None:
    """A refused job has no state: it must not be found among the queued ones."""
    workflow.upsert_search_attributes([_KEYS[JOB_STATE].value_unset()])
    workflow.set_current_details(
        f"**Refused** ({code(refusal.type)}): {code(refusal.message)}\n\n"
        "Nothing is held for the job, and it does not run anywhere. Its owner was told the same."
    )


def _details(
    job: Job, waits_for: str, provider_generated_id: str | None, ignored_updates: int
) -> str:
    status, last = job.status, job.updates[-1] if job.updates else None
    cancel = next((update for update in job.updates if update.state is JobState.CANCELING), None)
    since = next(
        (update.timestamp for update in reversed(job.updates) if update.state is status.state), None
    )
    rows = {
        "Waits for": waits_for,
        "In this state since": time_of(since),
        "Started": time_of(status.started_at),
        "Runs out of time at": "" if status.state.is_terminal else time_of(status.expires_at),
        "Cancelled at": time_of(cancel.timestamp) if cancel else "",
        "Told the user": code((cancel.status or "")[:500]) if cancel else "",
        "Last word": code((last.status or "")[:500]) if last else "",
        "Said at": time_of(last.timestamp) if last and last.status else "",
        "Credits charged": str(job.billing.credits_charged) if job.billing.price_per_unit else "",
        "Price per unit": str(job.billing.price_per_unit) if job.billing.price_per_unit else "",
        "Output folder": code(job.output.output_folder or "") if job.output else "",
        "Name at the provider": code(provider_generated_id) if provider_generated_id else "",
        "Reports that changed nothing": str(ignored_updates) if ignored_updates else "",
    }
    meaning = _MEANING[status.state]
    if cancel is not None and status.state is JobState.SUCCESS:
        meaning = "The job was cancelled, and has stopped. That is no fault of the provider."
    return f"**{status.state}**: {meaning}\n\n{table(rows)}"


def time_of(milliseconds: int | None) -> str:
    """A time as a person reads it; empty for none."""
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (
        ValueError,
        OverflowError,
        OSError,
    ):  # after the year 9999; nothing that is shown may stop a job
        return f"{milliseconds} ms after 1970"

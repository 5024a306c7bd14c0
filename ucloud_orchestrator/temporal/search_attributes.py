"""The values of a job's search attributes."""

from __future__ import annotations

from ucloud_orchestrator.models.job import Job, JobOwner, JobSpecification, JobState
from ucloud_orchestrator.temporal import names

MAXIMUM_LENGTH = 255
"""Characters of a Keyword in Temporal's SQL visibility store."""


def search_attributes(job: Job) -> dict[str, str]:
    """Return the job's search attributes by name, except those without a value."""
    return initial_search_attributes(job.owner, job.specification) | {
        names.JOB_STATE: job.status.state.value
    }


def initial_search_attributes(owner: JobOwner, specification: JobSpecification) -> dict[str, str]:
    values = {
        names.JOB_STATE: JobState.IN_QUEUE.value,
        names.JOB_OWNER: owner.created_by,
        names.JOB_PROJECT: owner.project,
        names.JOB_PROVIDER: specification.product.provider,
        names.JOB_PRODUCT: f"{specification.product.id}/{specification.product.category}",
        names.JOB_APPLICATION: str(specification.application),
        names.JOB_NAME: specification.name,
    }
    return {name: value[:MAXIMUM_LENGTH] for name, value in values.items() if value}

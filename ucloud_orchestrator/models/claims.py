"""The exclusive resources and credits that a live job claims."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from ucloud_orchestrator.models.accounting import Price
from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import (
    Job,
    JobOwner,
    JobSpecification,
    JobState,
    JobStatus,
)
from ucloud_orchestrator.models.parameter_values import (
    AppParameterValue,
    IngressValue,
    NetworkValue,
)


class Claim(ApiModel):
    """The claim of one job. `price` is None for a free product."""

    job_id: str
    claimed_by: str
    """The id of the claiming workflow: a repeat by the same workflow is not a conflict."""
    owner: JobOwner
    specification: JobSpecification
    fingerprint: str
    allows_duplicates: bool
    bindings: list[tuple[str, str]]
    """(type, id) of each public link and IP address; the type is `ingress` or `network`."""
    fields: list[str]
    """The path of each binding in the specification, such as `resources[0]`."""
    price: Price | None = None

    def field_of(self, kind: str, resource_id: str) -> str:
        return self.fields[self.bindings.index((kind, resource_id))]


def claim_of(
    job_id: str,
    owner: JobOwner,
    specification: JobSpecification,
    price: Price | None,
    claimed_by: str | None = None,
) -> Claim:
    """Derive the claim of a job from its complete specification.

    `claimed_by` is the workflow of its batch; without it, the job's own workflow.
    """
    bindings = {
        (value.type, value.id): field
        for field, value in fields_and_values(specification)
        if isinstance(value, IngressValue | NetworkValue)
    }
    return Claim(
        job_id=job_id,
        claimed_by=claimed_by or job_id,
        owner=owner,
        specification=specification,
        fingerprint=fingerprint(owner, specification),
        allows_duplicates=specification.allow_duplicate_job,
        bindings=list(bindings),
        fields=list(bindings.values()),
        price=price,
    )


def job_of(claim: Claim, state: JobState, created_at: int) -> Job:
    """Return the job of a claim, without updates."""
    return Job(
        id=claim.job_id,
        owner=claim.owner,
        specification=claim.specification,
        status=JobStatus(state=state),
        created_at=created_at,
    )


def fingerprint(owner: JobOwner, specification: JobSpecification) -> str:
    """Hash owner and specification: two duplicate jobs have the same fingerprint."""
    document = specification.to_wire()
    document.pop("allowDuplicateJob", None)
    text = json.dumps([owner.to_wire(), document], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fields_and_values(specification: JobSpecification) -> Iterator[tuple[str, AppParameterValue]]:
    """Iterate over (path, value) of the parameters and resources of a specification."""
    for name, value in specification.parameters.items():
        yield f"parameters.{name}", value
    for index, value in enumerate(specification.resources):
        yield f"resources[{index}]", value

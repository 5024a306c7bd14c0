"""What a job needs held for as long as it lives."""

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
    """What one job takes when it is admitted. `price` is None for what is free."""

    job_id: str
    claimed_by: str
    """The workflow that takes it, so that its repeat can be told from another that uses the same
    id.
    """
    owner: JobOwner
    specification: JobSpecification
    fingerprint: str
    allows_duplicates: bool
    bindings: list[tuple[str, str]]
    """The kind (`ingress` or `network`) and the id of each public link and IP address."""
    fields: list[str]
    """Where in the specification each of the bindings stands."""
    price: Price | None = None

    def field_of(self, kind: str, resource_id: str) -> str:
        """Where in the specification a binding stands."""
        return self.fields[self.bindings.index((kind, resource_id))]


def claim_of(
    job_id: str,
    owner: JobOwner,
    specification: JobSpecification,
    price: Price | None,
    claimed_by: str | None = None,
) -> Claim:
    """What a job with a complete specification needs.

    Its own workflow takes it, unless it is in a batch.
    """
    bound = {
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
        bindings=list(bound),
        fields=list(bound.values()),
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
    """The same for two jobs of one owner that ask for the same."""
    asked = specification.to_wire()
    asked.pop("allowDuplicateJob", None)
    text = json.dumps([owner.to_wire(), asked], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fields_and_values(specification: JobSpecification) -> Iterator[tuple[str, AppParameterValue]]:
    """Every value of a specification, and where it stands."""
    for name, value in specification.parameters.items():
        yield f"parameters.{name}", value
    for index, value in enumerate(specification.resources):
        yield f"resources[{index}]", value

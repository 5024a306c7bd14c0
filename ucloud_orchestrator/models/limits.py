"""Size limits of requests, below Temporal's: 2 MB for one payload, 4 MB for one workflow task."""

from __future__ import annotations

from collections.abc import Sequence

from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.models.job import JobSpecification

MAXIMUM_SPECIFICATION_BYTES = 256 * 1024
"""Limit for one job: up to ten requests to its provider carry it in one task (decision 0013)."""
MAXIMUM_BATCH_BYTES = 1024 * 1024
"""Limit for all jobs of a batch together, with a margin for the fields around them."""


def size_findings(specifications: Sequence[JobSpecification]) -> list[Finding]:
    """Find a specification that is too large for a job, or a list too large for one message."""
    sizes = [
        len(specification.model_dump_json(by_alias=True, exclude_none=True).encode())
        for specification in specifications
    ]
    for subject, size, maximum in (
        ("job", max(sizes, default=0), MAXIMUM_SPECIFICATION_BYTES),
        ("request", sum(sizes), MAXIMUM_BATCH_BYTES),
    ):
        if size > maximum:
            message = (
                f"The {subject} has {size} bytes, and at most {maximum} are possible; put data "
                "into files."
            )
            return [
                Finding(field="parameters", message=message, code=ErrorCode.VERIFICATION_FAILED)
            ]
    return []

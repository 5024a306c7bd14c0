"""How large what a user sends may be: Temporal ends a workflow whose payloads exceed 2 MB, or 4 MB
in one task.
"""

from __future__ import annotations

from collections.abc import Sequence

from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.models.job import JobSpecification

MAXIMUM_SPECIFICATION_BYTES = 256 * 1024
"""For one job: each request to its provider has all of it, and ten may go out in one task (decision
0013).
"""
MAXIMUM_BATCH_BYTES = 1024 * 1024
"""For all jobs of a batch together; it leaves room for what is put around them."""


def size_findings(specifications: Sequence[JobSpecification]) -> list[Finding]:
    """A finding if a specification is too large for a job, or all are for one message."""
    sizes = [
        len(one.model_dump_json(by_alias=True, exclude_none=True).encode())
        for one in specifications
    ]
    for what, size, maximum in (
        ("job", max(sizes, default=0), MAXIMUM_SPECIFICATION_BYTES),
        ("request", sum(sizes), MAXIMUM_BATCH_BYTES),
    ):
        if size > maximum:
            message = (
                f"The {what} has {size} bytes, and at most {maximum} are possible; put data "
                "into files."
            )
            return [
                Finding(field="parameters", message=message, code=ErrorCode.VERIFICATION_FAILED)
            ]
    return []

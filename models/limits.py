"""How large what a user sends may be: Temporal ends a workflow whose payloads exceed 2 MB."""

from __future__ import annotations

from collections.abc import Sequence

from models.errors import ErrorCode, Finding
from models.job import JobSpecification

MAXIMUM_SPECIFICATION_BYTES = 1024 * 1024
"""For one job, and for all jobs of a batch together; it leaves room for what is put around them."""


def size_findings(specifications: Sequence[JobSpecification]) -> list[Finding]:
    """A finding if the specifications are too large to be one message."""
    size = sum(len(one.model_dump_json(by_alias=True, exclude_none=True).encode()) for one in specifications)
    if size <= MAXIMUM_SPECIFICATION_BYTES:
        return []
    message = (
        f"The request has {size} bytes, and at most {MAXIMUM_SPECIFICATION_BYTES} are possible; put data into files."
    )
    return [Finding(field="parameters", message=message, code=ErrorCode.VERIFICATION_FAILED)]

"""Error codes for programs, findings for users, and the limits of their size."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from ucloud_orchestrator.models.base import ApiModel


class ErrorCode(StrEnum):
    VERIFICATION_FAILED = "VERIFICATION_FAILED"
    DUPLICATE_JOB = "DUPLICATE_JOB"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    RESOURCE_IN_USE = "RESOURCE_IN_USE"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    PROVIDER_REJECTED = "PROVIDER_REJECTED"
    FEATURE_NOT_SUPPORTED_BY_PROVIDER = "FEATURE_NOT_SUPPORTED_BY_PROVIDER"
    INVALID_STATE = "INVALID_STATE"


class Finding(ApiModel):
    """A mistake in a request: the path of the field, such as `parameters.input`, and a sentence."""

    field: str
    message: str
    code: ErrorCode = ErrorCode.VERIFICATION_FAILED


MAXIMUM_FINDINGS = 50
MAXIMUM_SENTENCE = 500
"""Characters of a field or message: findings are sent in Temporal's failures, which are bounded."""


def truncate(text: str, length: int = MAXIMUM_SENTENCE) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def truncate_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Truncate the list and each finding; a last finding has the number of those left out."""
    first = [
        finding.model_copy(
            update={"field": truncate(finding.field), "message": truncate(finding.message)}
        )
        for finding in findings[:MAXIMUM_FINDINGS]
    ]
    more = len(findings) - len(first)
    return (
        [*first, Finding(field="", message=f"And {more} more.", code=findings[-1].code)]
        if more
        else first
    )

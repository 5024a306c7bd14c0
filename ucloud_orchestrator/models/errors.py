"""What can be wrong with a request, in words that a program and a person can use."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from ucloud_orchestrator.models.base import ApiModel


class ErrorCode(StrEnum):
    """The public codes of refusal."""

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
    """One thing that is wrong with a request: where (a path such as `parameters.input`), and a
    whole sentence.
    """

    field: str
    message: str
    code: ErrorCode = ErrorCode.VERIFICATION_FAILED


MAXIMUM_FINDINGS = 50
MAXIMUM_SENTENCE = 500
"""Characters. What is told travels in Temporal's messages, which have bounds."""


def truncate(text: str, length: int = MAXIMUM_SENTENCE) -> str:
    """The text, cut to that many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def truncate_findings(findings: Sequence[Finding]) -> list[Finding]:
    """What is told of many findings: the first of them, each cut to a sensible length, and how many
    more there are.
    """
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

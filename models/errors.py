"""What can be wrong with a request, in words that a program and a person can use."""

from __future__ import annotations

from enum import StrEnum

from models.wire import WireModel


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


class Finding(WireModel):
    """One thing that is wrong with a request: where (a path such as `parameters.input`), and a whole sentence."""

    field: str
    message: str
    code: ErrorCode = ErrorCode.VERIFICATION_FAILED

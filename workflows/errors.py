"""How a workflow says no: typed errors with a public code, and how an activity's failure becomes
one.
"""

from __future__ import annotations

from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from ucloud_orchestrator.models.base import ApiModel, error_messages
    from ucloud_orchestrator.models.errors import (
        MAXIMUM_FINDINGS,
        MAXIMUM_SENTENCE,
        ErrorCode,
        truncate,
    )

Message = TypeVar("Message", bound=ApiModel)


def checked(model: type[Message], message: Any) -> Message:
    """The message, or a refusal that names every wrong field."""
    try:
        return model.model_validate(message)
    except ValidationError as error:
        raise refusal_of(
            ErrorCode.VERIFICATION_FAILED, " ".join(error_messages(error, message))
        ) from error


def refusal_of(code: ErrorCode, message: str) -> ApplicationError:
    return ApplicationError(
        truncate(message, MAXIMUM_FINDINGS * MAXIMUM_SENTENCE), type=code, non_retryable=True
    )


def as_refusal(error: FailureError) -> ApplicationError:
    """The typed refusal inside an activity's failure; local activities give it bare, others
    wrapped.
    """
    cause = _application_error(error)
    if cause is not None and is_refusal(error):
        return ApplicationError(cause.message, *cause.details, type=cause.type, non_retryable=True)
    return refusal_of(
        ErrorCode.PROVIDER_REJECTED, f"The provider could not be asked: {cause or error}"
    )


def is_refusal(error: FailureError) -> bool:
    """Whether somebody has said no; anything else may go well another time."""
    cause = _application_error(error)
    return cause is not None and cause.type in ErrorCode.__members__


def _application_error(error: FailureError) -> ApplicationError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    return cause

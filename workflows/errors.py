"""Rejections of a workflow: typed errors with a public code, also made of activities' failures."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio.exceptions import ApplicationError, FailureError

from ucloud_orchestrator.models.base import ApiModel, error_messages
from ucloud_orchestrator.models.errors import (
    MAXIMUM_FINDINGS,
    MAXIMUM_SENTENCE,
    ErrorCode,
    truncate,
)

Message = TypeVar("Message", bound=ApiModel)


def validated(model: type[Message], message: Any) -> Message:
    """Validate the message. Raises a rejection that names every invalid field."""
    try:
        return model.model_validate(message)
    except ValidationError as error:
        text = " ".join(error_messages(error, message))
        raise rejection(ErrorCode.VERIFICATION_FAILED, text) from error


def rejection(code: ErrorCode, message: str) -> ApplicationError:
    """Return a non-retryable error whose type is `code`."""
    return ApplicationError(
        truncate(message, MAXIMUM_FINDINGS * MAXIMUM_SENTENCE), type=code, non_retryable=True
    )


def as_rejection(error: FailureError) -> ApplicationError:
    """Return the rejection inside an activity's failure.

    The failure of a local activity is the rejection itself; others wrap it.
    """
    cause = _application_error(error)
    if cause is not None and is_rejection(error):
        return ApplicationError(cause.message, *cause.details, type=cause.type, non_retryable=True)
    return rejection(
        ErrorCode.PROVIDER_REJECTED, f"The provider could not be asked: {cause or error}"
    )


def is_rejection(error: FailureError) -> bool:
    """Check if the failure is a rejection; a retry may help against any other."""
    cause = _application_error(error)
    return cause is not None and cause.type in ErrorCode.__members__


def _application_error(error: FailureError) -> ApplicationError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    return cause

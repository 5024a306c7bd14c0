"""The errors of the client, and the mapping of Temporal's errors to them.

OrchestratorError           the base; itself for wrong settings: a repeat does not help
├── RequestRefused          the request was rejected: a repeat does not help
│   ├── JobRejected         by `create` and `create_many`: no job was started
│   └── JobNotFound         there is no such job, or the actor may not see it
├── JobClosed               the job has ended: a repeat does not help
├── NamespaceNotReady       Temporal is not set up: a repeat helps once an operator has done so
└── Unreachable             no answer, and the effect is unknown: a repeat is safe and may help
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError
from temporalio.api.errordetails.v1 import (
    MultiOperationExecutionFailure,
    NamespaceNotFoundFailure,
    WorkflowNotReadyFailure,
)
from temporalio.client import (
    ActivityFailureError,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.temporal.connection_errors import (
    ConnectionConfigError,
    TemporalUnreachable,
)
from ucloud_orchestrator.temporal.encryption_keys import EncryptionKeyError
from ucloud_orchestrator.temporal.tracing import TracingUnavailable


class OrchestratorError(Exception):
    """The base of the errors; its text is one sentence for a person.

    Itself it is raised for wrong settings and for requests that Temporal rejects. A repeat does
    not help.
    """


class RequestRefused(OrchestratorError):
    """Raised when the orchestrator or the provider rejects a request. A repeat does not help.

    `code` is for programs; `findings` name every wrong field.
    """

    def __init__(self, code: ErrorCode, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.findings = list(findings)


class JobRejected(RequestRefused):
    """Raised when a job is not accepted: it claims and costs nothing. A repeat does not help."""


class JobNotFound(RequestRefused):
    """Raised when there is no such job, or the actor may not see it. A repeat does not help."""

    def __init__(self, job_id: str) -> None:
        super().__init__(ErrorCode.NOT_FOUND, f"There is no job {job_id}.")


class JobClosed(OrchestratorError):
    """Raised for a message to a job that has ended or is unknown. A repeat does not help."""


class NamespaceNotReady(OrchestratorError):
    """Raised when Temporal lacks the namespace or its search attributes.

    A repeat helps after `ucloud-orchestrator setup`.
    """


class Unreachable(OrchestratorError):
    """Raised without an answer, when the effect is unknown. A repeat is safe and may help."""


_FINDINGS = TypeAdapter(list[Finding])
_NO_ANSWER = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.INTERNAL,
        RPCStatusCode.UNKNOWN,
    }
)


@contextmanager
def map_errors(rejection: type[RequestRefused] = RequestRefused) -> Iterator[None]:
    """Map Temporal's errors to the client's; an error with one of our codes to `rejection`."""
    try:
        yield
    except (WorkflowUpdateFailedError, WorkflowFailureError) as error:
        raise _from_failure(error.cause, rejection) from error
    except ActivityFailureError as error:
        if isinstance(error.cause, ApplicationError) and error.cause.type in ErrorCode.__members__:
            raise _from_failure(error.cause, rejection) from error
        raise Unreachable(f"No worker answered: {error.cause}") from error
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        if isinstance(error.__cause__, asyncio.CancelledError):
            # Temporal's SDK hides the cancellation of the caller's own task.
            raise error.__cause__ from error
        raise Unreachable(
            "There was no answer in time; the request may still be under way."
        ) from error
    except asyncio.CancelledError as error:
        if isinstance(error.__cause__, RPCError):
            # Temporal's SDK raises this also for an answer that the server broke off.
            raise _from_rpc(error.__cause__) from error
        raise
    except RPCError as error:
        raise _from_rpc(error) from error
    except (ConnectionConfigError, EncryptionKeyError, TracingUnavailable) as error:
        raise OrchestratorError(str(error)) from error
    except TemporalUnreachable as error:
        raise Unreachable(str(error)) from error
    except (OSError, RuntimeError) as error:
        raise Unreachable(f"Temporal cannot be reached: {error}") from error


def _from_failure(
    cause: BaseException | None, rejection: type[RequestRefused]
) -> OrchestratorError:
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    if cause is None or cause.type is None or cause.type not in ErrorCode.__members__:
        if cause is not None and cause.type == "AcceptedUpdateCompletedWorkflow":
            return JobClosed("The job ended before it answered.")
        return RequestRefused(
            ErrorCode.INVALID_STATE, f"The job could not answer: {cause or 'it has ended'}."
        )
    return rejection(ErrorCode(cause.type), cause.message, _findings(cause.details))


def _findings(details: Sequence[Any]) -> list[Finding]:
    try:
        return _FINDINGS.validate_python(details[0]) if details else []
    except ValidationError:
        return []


def _details(error: RPCError) -> Iterator[Any]:
    for detail in error.grpc_status.details:
        operations = MultiOperationExecutionFailure()
        if detail.Unpack(operations):
            for status in operations.statuses:
                yield from status.details
        else:
            yield detail


def _from_rpc(error: RPCError) -> OrchestratorError:
    if any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in _details(error)):
        # Not JobClosed, although the status is NOT_FOUND: a provider would drop its reports.
        return NamespaceNotReady(
            f"{error.message.rstrip('.')}: correct TEMPORAL_NAMESPACE, or run "
            "'ucloud-orchestrator setup'."
        )
    if error.status is RPCStatusCode.NOT_FOUND:
        return JobClosed("The job has ended, or there is none of this id.")
    if any(detail.Is(WorkflowNotReadyFailure.DESCRIPTOR) for detail in _details(error)):
        return Unreachable(
            "The job cannot answer now, because its workers have failed several times; ask again."
        )
    if error.status in _NO_ANSWER:
        return Unreachable(f"Temporal did not answer: {error.message}.")
    if (
        error.status is RPCStatusCode.INVALID_ARGUMENT
        and "search attribute" in error.message.lower()
    ):
        return NamespaceNotReady(
            f"The namespace is not set up ({error.message}): run 'ucloud-orchestrator setup'."
        )
    return OrchestratorError(f"Temporal refused the request: {error.message}.")

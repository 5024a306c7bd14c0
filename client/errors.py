"""Every error of the client.

OrchestratorError ├── RequestRefused            it was understood and refused; a repeat will not
help. Has `code` and `findings` │   ├── JobRejected           by `create` │   └── JobNotFound
there is no such job, or it may not be seen ├── JobClosed                 the job has ended, so it
takes no more messages ├── NotSetUp                  Temporal lacks the namespace, or what
`ucloud-orchestrator setup` registers in it └── Unreachable               no answer; whether it had
an effect is unknown, and a repeat is safe
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
    """The base of all errors of this package. Its text is one sentence for a person."""


class RequestRefused(OrchestratorError):
    """The orchestrator or the provider said no.

    `code` is for programs; `findings` name every wrong field.
    """

    def __init__(self, code: ErrorCode, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.findings = list(findings)


class JobRejected(RequestRefused):
    """The job was not accepted, and nothing of it remains."""


class JobNotFound(RequestRefused):
    """There is no job of this id, or it may not be seen."""

    def __init__(self, job_id: str) -> None:
        super().__init__(ErrorCode.NOT_FOUND, f"There is no job {job_id}.")


class JobClosed(OrchestratorError):
    """The job has ended or is unknown; it takes no more messages."""


class NamespaceNotReady(OrchestratorError):
    """The Temporal namespace lacks what the orchestrator needs."""


class Unreachable(OrchestratorError):
    """There was no answer. Asking again is safe."""


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
def map_errors(refused: type[RequestRefused] = RequestRefused) -> Iterator[None]:
    """Map Temporal's errors to ours, once, at this edge. A refusal becomes `refused`."""
    try:
        yield
    except (WorkflowUpdateFailedError, WorkflowFailureError) as error:
        raise _refused(error.cause, refused) from error
    except ActivityFailureError as error:
        if isinstance(error.cause, ApplicationError) and error.cause.type in ErrorCode.__members__:
            raise _refused(error.cause, refused) from error
        raise Unreachable(f"No worker answered: {error.cause}") from error
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        if isinstance(error.__cause__, asyncio.CancelledError):
            # Temporal's SDK hides that the caller's own task is being cancelled.
            raise error.__cause__ from error
        raise Unreachable(
            "There was no answer in time; the request may still be under way."
        ) from error
    except asyncio.CancelledError as error:
        if isinstance(error.__cause__, RPCError):
            # Temporal's SDK takes a server that breaks off its answer for a cancel of the caller.
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


def _refused(cause: BaseException | None, refused: type[RequestRefused]) -> OrchestratorError:
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    if cause is None or cause.type is None or cause.type not in ErrorCode.__members__:
        if cause is not None and cause.type == "AcceptedUpdateCompletedWorkflow":
            return JobClosed("The job ended before it answered.")
        return RequestRefused(
            ErrorCode.INVALID_STATE, f"The job could not answer: {cause or 'it has ended'}."
        )
    return refused(ErrorCode(cause.type), cause.message, _findings(cause.details))


def _findings(details: Sequence[Any]) -> list[Finding]:
    try:
        return _FINDINGS.validate_python(details[0]) if details else []
    except ValidationError:
        return []


def _details(error: RPCError) -> Iterator[Any]:
    """What the server says beside the message, for an update-with-start of both of its parts."""
    for detail in error.grpc_status.details:
        both = MultiOperationExecutionFailure()
        if detail.Unpack(both):
            for part in both.statuses:
                yield from part.details
        else:
            yield detail


def _from_rpc(error: RPCError) -> OrchestratorError:
    if any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in _details(error)):
        # Nothing is known of the job: a provider that took this for its end would drop its reports.
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

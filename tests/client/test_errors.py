"""Map Temporal's errors to the client's."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.any_pb2 import Any as Detail
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.errordetails.v1 import (
    MultiOperationExecutionFailure,
    NamespaceNotFoundFailure,
    WorkflowNotReadyFailure,
)
from temporalio.service import RPCError, RPCStatusCode

from client import JobClosed, NamespaceNotReady, OrchestratorError, Unreachable
from client.errors import map_errors


def failure(
    status: RPCStatusCode, message: str = "no", details: list[Detail] | None = None
) -> RPCError:
    return RPCError(
        message, status, GrpcStatus(message=message, details=details or []).SerializeToString()
    )


def not_ready() -> RPCError:
    """The server's error while a worker is killed again and again."""
    detail = Detail()
    detail.Pack(WorkflowNotReadyFailure())
    return failure(RPCStatusCode.FAILED_PRECONDITION, "Workflow Task in failed state.", [detail])


def not_ready_to_create() -> RPCError:
    """The same for an update-with-start, whose start was not the reason."""
    detail, both = Detail(), Detail()
    detail.Pack(WorkflowNotReadyFailure())
    status = MultiOperationExecutionFailure.OperationStatus
    both.Pack(
        MultiOperationExecutionFailure(statuses=[status(code=10), status(code=9, details=[detail])])
    )
    return failure(RPCStatusCode.FAILED_PRECONDITION, "Workflow Task in failed state.", [both])


def no_namespace() -> RPCError:
    """The server's error for every call, also for calls about one job."""
    detail = Detail()
    detail.Pack(NamespaceNotFoundFailure(namespace="nowhere"))
    return failure(RPCStatusCode.NOT_FOUND, "Namespace nowhere is not found.", [detail])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (not_ready(), Unreachable),
        (not_ready_to_create(), Unreachable),
        (failure(RPCStatusCode.UNAVAILABLE), Unreachable),
        (failure(RPCStatusCode.RESOURCE_EXHAUSTED), Unreachable),
        (OSError("refused"), Unreachable),
        (failure(RPCStatusCode.NOT_FOUND), JobClosed),
        (no_namespace(), NamespaceNotReady),
        (
            failure(RPCStatusCode.INVALID_ARGUMENT, "no mapping for search attribute JobState"),
            NamespaceNotReady,
        ),
        (failure(RPCStatusCode.PERMISSION_DENIED), OrchestratorError),
    ],
)
def test_a_temporal_error_maps_to_one_of_the_client(
    error: Exception, expected: type[OrchestratorError]
) -> None:
    with pytest.raises(OrchestratorError) as raised, map_errors():
        raise error
    assert type(raised.value) is expected


def test_an_answer_cut_off_by_the_server_is_not_a_cancellation() -> None:
    with pytest.raises(Unreachable), map_errors():
        raise asyncio.CancelledError from failure(RPCStatusCode.CANCELLED)  # as the SDK does
    with pytest.raises(asyncio.CancelledError), map_errors():
        raise asyncio.CancelledError

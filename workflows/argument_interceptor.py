"""Drops surplus arguments of messages: they would make a job stuck."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.worker import (
    HandleQueryInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

HANDLER_ARGUMENTS = 1
"""Each handler of the workflow `Job` takes one payload, or none."""
NO_ARGUMENTS = frozenset({"accepted", "suspend", "unsuspend"})


class DropSurplusArguments(Interceptor):
    """Calls each handler of the workflow `Job` with the arguments that it accepts.

    Without it Temporal's Python SDK fails the workflow task again and again.
    """

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        return _Inbound


class _Inbound(WorkflowInboundInterceptor):
    async def handle_signal(self, input: HandleSignalInput) -> None:
        if input.signal == "update":
            input.args = _drop_surplus(input.signal, input.args)
        await super().handle_signal(input)

    async def handle_query(self, input: HandleQueryInput) -> Any:
        if input.query == "job":
            input.args = _drop_surplus(input.query, input.args)
        return await super().handle_query(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        input.args = _drop_surplus(input.update, input.args)
        super().handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        input.args = _drop_surplus(input.update, input.args)
        return await super().handle_update_handler(input)


def _drop_surplus(name: str, arguments: Any) -> Any:
    allowed = 0 if name in NO_ARGUMENTS else HANDLER_ARGUMENTS
    if len(arguments) > allowed:
        workflow.logger.warning(
            "%r was sent with %d surplus arguments.", name, len(arguments) - allowed
        )
    return arguments[:allowed]
